"""Predictions for a file of any size, in constant memory, resumed after an interruption.

Rows are predicted in parts. Each part is a file beside the result, written atomically; at the end
they are joined. Parts always begin at the same rows, so that the result is the same with and
without an interruption.
"""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from batchensemble.cli.workflows.decision import Decision, read_decision
from batchensemble.cli.workflows.model_folder import ModelFolder
from batchensemble.cli.workflows.scored_rows import block_rows
from batchensemble.core.atomic_files import sync, write_whole, writing
from batchensemble.data.prediction_batch import PREDICTION_BATCH
from batchensemble.data.tables.dialects import Dialect
from batchensemble.data.tables.formats import PARQUET, need_pyarrow
from batchensemble.data.tables.schema import Columns
from batchensemble.ensembles import Ensemble
from batchensemble.ensembles.saving.trust import Trust
from batchensemble.losses import BinaryCrossEntropy, EnsembleLoss
from batchensemble.metrics import widest_interval
from batchensemble.predictions import AnyPrediction, MultiLabelPrediction, RegressionPrediction
from batchensemble.predictions.predict import model_loss, predict
from batchensemble.training.callbacks.progress import rows_bar

ROW_COLUMN = "row"
UNCERTAINTY_COLUMNS = ("total", "aleatoric", "epistemic")


def predict_file(
    path: Path,
    source: Path,
    out: Path,
    *,
    id: str | None = None,
    device: str | torch.device | None = None,
    progress: bool | None = None,
    network: nn.Module | None = None,
    trust: Trust = False,
    dialect: Dialect | None = None,
) -> int:
    """Write the predictions of a saved model for each row of a file.

    Columns: the id; for classes ``label`` and ``prob_CLASS`` of each class (mean of the members);
    for regression ``mean``, ``lower`` and ``upper`` (90 % interval, or as wide as quantiles reach);
    for binary labels ``label`` and ``prob``; then the uncertainties ``total``, ``aleatoric`` and
    ``epistemic``: entropies in nats, or variances for regression. If ``decide`` wrote a decision,
    its columns follow: ``answer``, whether to answer the row; for classes ``set``, a list in
    Parquet and text in CSV; for regression ``conformal_lower`` and ``conformal_upper``.

    Args:
        path: of the model's folder.
        source: a CSV, Parquet or Feather file or a folder of Parquet files, with the columns that
            the model was trained on; others are ignored.
        out: a .csv or .parquet file. An existing file is replaced when all rows are predicted.
        id: a column to copy; by default ``row``, the number of the row from 1.
        device: of the model; by default the CPU.
        progress: show a progress bar; by default only in a terminal.
        network: the plain network, where the folder does not name one.
        trust: which code named by the folder may be imported, see :func:`batchensemble.load`.
        dialect: how a CSV file is written; what it leaves open is detected.

    Returns:
        The number of rows.

    Raises:
        ValueError: the file does not fit the model, or the decision is of other weights.
        ImportError: Parquet needs pyarrow, which is not installed.
        OSError: a file cannot be read or written. Finished parts are kept in any case.
    """
    folder = ModelFolder(path, dialect)
    columns = folder.columns
    # Frozen for one size, layers compute the same way whatever ran before.
    model = folder.load(device, network, trust).freeze(PREDICTION_BATCH)
    decision = read_decision(folder)
    names = [id or ROW_COLUMN, *_names(columns, model_loss(model)), *UNCERTAINTY_COLUMNS]
    names += [] if decision is None else decision.names
    if len(set(names)) < len(names):
        raise ValueError(f"id {id!r} is also the name of a column of the result; rename it")
    if out.suffix not in (".csv", *PARQUET):
        raise ValueError(f"out must end in .csv or .parquet, got {out.name}")
    if out.suffix in PARQUET:
        need_pyarrow(out)
    size, lists = block_rows(model.members, len(columns.class_names)), out.suffix in PARQUET
    with columns.open(source) as rows:
        columns.check(source.name, rows.names, *([] if id is None else [id]))
        about = {**_fingerprint(source), "model": folder.config["sha256"], "id": id, "rows": size}
        about |= {"dialect": asdict(rows.dialect)}
        about |= {} if decision is None else {"decision": decision.sha256}
        parts = PredictionParts(out, names, about)
        done, start = len(parts), 0
        with rows_bar(f"predicting {source.name}", rows.count, show=progress) as advance:
            for number, block in enumerate(columns.blocks(rows, size, id=id)):
                if number >= done:
                    X = columns.inputs(source.name, block)
                    ids = np.arange(len(X)) + start + 1 if id is None else block.columns[id]
                    said = _predictions(names, ids, columns, model, X, decision, lists)
                    parts.add(number, said)
                start += block.rows
                advance(block.rows)
    with writing(out):
        parts.join()
    return start


class PredictionParts:
    """The finished parts of a result, in a folder beside it.

    Args:
        out: path of the result.
        names: of its columns.
        about: identifies the inputs of the result; parts made of other inputs are deleted.
    """

    def __init__(self, out: Path, names: list[str], about: dict[str, Any]) -> None:
        self.out, self.names = out, names
        self.folder = out.with_name(f".{out.name}.parts")
        text = json.dumps({**about, "columns": names})
        note = self.folder / "about.json"
        if not note.exists() or note.read_text(encoding="utf-8") != text:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(note, text.encode())

    def __len__(self) -> int:
        count = 0
        while self._path(count).exists():
            count += 1
        return count

    def add(self, number: int, frame: pd.DataFrame) -> None:
        """Write a part."""
        content = io.BytesIO()
        if self.out.suffix in PARQUET:
            frame.to_parquet(content, index=False)
        else:
            frame.to_csv(content, index=False, header=False)
        write_whole(self._path(number), content.getvalue())

    def join(self) -> None:
        """Join all parts into the result."""
        part = self.folder / "whole"
        paths = [self._path(number) for number in range(len(self))]
        if self.out.suffix in PARQUET:
            self._join_parquet(part, paths)
        else:
            with part.open("wb") as whole:
                whole.write(pd.DataFrame(columns=self.names).to_csv(index=False).encode())
                for path in paths:
                    with path.open("rb") as file:
                        shutil.copyfileobj(file, whole)
        sync(part)
        part.replace(self.out)
        sync(self.out.parent)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _join_parquet(self, part: Path, paths: list[Path]) -> None:
        if not paths:
            pd.DataFrame(columns=self.names).to_parquet(part, index=False)
            return
        from pyarrow import parquet

        schema = parquet.read_schema(paths[0])
        with parquet.ParquetWriter(part, schema) as writer:
            for path in paths:
                writer.write_table(parquet.read_table(path).cast(schema))

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:08d}"


def _predictions(
    names: list[str],
    ids: Any,
    columns: Columns,
    model: Ensemble,
    X: Any,
    decision: Decision | None,
    lists: bool,
) -> pd.DataFrame:
    said = predict(model, X)
    uncertainties = (getattr(said, name) for name in UNCERTAINTY_COLUMNS)
    decided = [] if decision is None else decision.columns(said, columns.class_names, lists=lists)
    values = [np.asarray(ids), *_values(columns, said), *uncertainties, *decided]
    return pd.DataFrame(dict(zip(names, values, strict=True)))


def _names(columns: Columns, loss: EnsembleLoss) -> list[str]:
    """Return the columns between the id and the uncertainties."""
    if columns.class_names:
        return ["label", *(f"prob_{name}" for name in columns.class_names)]
    return ["label", "prob"] if isinstance(loss, BinaryCrossEntropy) else ["mean", "lower", "upper"]


def _values(columns: Columns, said: AnyPrediction) -> list[Any]:
    if isinstance(said, RegressionPrediction):
        return [said.mean, *widest_interval(said)[:2]]
    if isinstance(said, MultiLabelPrediction):
        return [said.labels, said.probs]
    return [np.array(columns.class_names, dtype=object)[said.labels], *said.probs.T]


def _fingerprint(source: Path) -> dict[str, Any]:
    found = source.stat()
    return {"source": source.name, "bytes": found.st_size, "changed": found.st_mtime_ns}
