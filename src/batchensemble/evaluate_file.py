"""The scores of a saved model on a table of any size, or on what was held out from its training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from batchensemble.admission import place_of
from batchensemble.configuration import read
from batchensemble.data import NAMED
from batchensemble.ensembles import Ensemble
from batchensemble.files import Files
from batchensemble.frames import table
from batchensemble.metrics import Scores, evaluate
from batchensemble.model_columns import Columns
from batchensemble.predict_file import part_rows
from batchensemble.prediction import loss_of
from batchensemble.saving import load as load_model
from batchensemble.saving import read_config
from batchensemble.sources import MEMORY_LIMIT, open_batches
from batchensemble.streamed_scores import score_blocks
from batchensemble.training_data import TrainingData, open_data
from batchensemble.trust import Trust


def evaluate_folder(
    folder: Path,
    source: str | None = None,
    target: str | None = None,
    *,
    device: str | torch.device | None = None,
    network: nn.Module | None = None,
    trust: Trust = False,
) -> tuple[str, Scores]:
    """Return what a saved model was scored on, and its scores.

    A file is gone through in blocks: memory does not grow with it.

    Args:
        folder: of the model.
        source: a file, or a folder of Parquet files, of which all rows count; a named data set, of
            which the held-out examples do; by default what was held out from the training, which
            the folder's ``run.toml`` tells.
        target: the column of targets; by default that of the training.
        device: where the model runs.
        network: the plain network, where the folder does not say how to make one.
        trust: what may be imported of what the folder names, see :func:`batchensemble.load`.

    Raises:
        ValueError: the data do not fit the model.
        OSError: there is no such model or file.
    """
    config = read_config(folder)
    columns = Columns.of(config)
    model = load_model(folder, device=device, network=network, trust=trust)
    rows = rows_of(folder, model, columns, source, target)
    if isinstance(rows, HeldOut):
        return rows.title, scores_of(model, rows.data, rows.memory_limit)
    scores = score_blocks(model, rows)
    return rows.title, scores


def rows_of(
    folder: Path, model: Ensemble, columns: Columns, source: str | None, target: str | None
) -> HeldOut | Blocks:
    """Return the rows with targets that a saved model is asked about, block by block.

    Args:
        folder: of the model.
        model: what is in it.
        columns: that it takes.
        source: see :func:`evaluate_folder`.
        target: the column of targets; by default that of the training.

    Raises:
        ValueError: the data do not fit the model.
        OSError: there is no such file.
    """
    if source is None or source in NAMED:
        given: dict[str, Any] = {"data": source, "target": target}
        settings = _settings(folder) if source is None else given
        limit = settings.get("memory_limit", MEMORY_LIMIT)
        data = open_data(
            settings["data"],
            settings.get("target"),
            loss=loss_of(model),
            validation=settings.get("validation"),
            memory_limit=limit,
            columns=columns,
        )
        columns.check(data.name, data.columns.feature_names)
        return HeldOut(model, data, limit)
    path, target = Path(source), target or columns.target
    if target is None:
        raise ValueError(f"target is missing: name the column of {path} that holds them")
    return Blocks(path, columns, target, part_rows(model.members, len(columns.class_names)))


class HeldOut:
    """The held-out part of what a model was trained on, so many rows at a time.

    Args:
        model: that is asked.
        data: both parts.
        memory_limit: bytes; larger files are streamed.
    """

    def __init__(self, model: Ensemble, data: TrainingData, memory_limit: int) -> None:
        self.model, self.data, self.memory_limit = model, data, memory_limit

    @property
    def title(self) -> str:
        """What is printed."""
        return f"{self.data.held_out_rows:,} held-out examples of {self.data.name}"

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        """Yield features and targets."""
        size = part_rows(self.model.members, len(self.data.columns.class_names))
        if isinstance(self.data.held_out, Files):
            read, place = loss_of(self.model).read, place_of(self.model)
            options: dict[str, Any] = {"memory_limit": self.memory_limit, "read": read, **place}
            yield from open_batches(self.data.held_out, size, **options)
            return
        X, targets = self.data.held_out
        for start in range(0, len(X), size):
            yield X[start : start + size], targets[start : start + size]


class Blocks:
    """The rows of a table as a model takes them, so many at a time.

    Args:
        path: of a file or folder.
        columns: of the model.
        target: the column of labels.
        size: rows at a time.

    Attributes:
        rows: how many have been gone through.
    """

    def __init__(self, path: Path, columns: Columns, target: str, size: int) -> None:
        self.path, self.columns, self.target, self.size = path, columns, target, size
        self.rows = 0

    @property
    def title(self) -> str:
        """What is printed, after all rows have been gone through."""
        return f"{self.rows:,} rows of {self.path.name}"

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        """Yield features and class numbers, or the numbers that are predicted.

        Raises:
            ValueError: there are none, or they do not fit the model.
        """
        name, self.rows = self.path.name, 0
        with table(self.path, self.size) as rows:
            self.columns.check(name, rows.names, self.target)
            for frame in rows.frames:
                inputs = self.columns.inputs(name, frame, self.rows)
                yield inputs, self.columns.targets(name, frame[self.target], self.rows)
                self.rows += len(frame)
        if not self.rows:
            raise ValueError(f"{name} has no rows; there is nothing to score")


def scores_of(model: Ensemble, data: TrainingData, memory_limit: int) -> Scores:
    """Return the scores on the held-out part, in bounded memory where it is in files."""
    if not isinstance(data.held_out, Files):
        return evaluate(model, data.held_out)
    return score_blocks(model, HeldOut(model, data, memory_limit))


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / "run.toml"
    if not path.exists():
        raise ValueError(
            f"{folder} does not say what it was trained on; give --data FILE --target COLUMN"
        )
    return read(path)
