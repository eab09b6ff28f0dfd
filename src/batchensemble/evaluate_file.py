"""The scores of a saved model on a table, or on what was held out from its training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import torch

from batchensemble.configuration import read
from batchensemble.data import NAMED, load
from batchensemble.metrics import Scores, evaluate
from batchensemble.model_columns import Columns, table
from batchensemble.saving import load as load_model
from batchensemble.saving import read_config

ROWS = 65_536


def evaluate_folder(
    folder: Path,
    source: str | None = None,
    target: str | None = None,
    *,
    device: str | torch.device | None = None,
) -> tuple[str, Scores]:
    """Return what a saved model was scored on, and its scores.

    Args:
        folder: of the model.
        source: a file, of which all rows count; a named data set, of which the held-out examples
            do; by default what was held out from the training, which the folder's ``run.toml``
            tells.
        target: the column of labels; by default that of the training.
        device: where the model runs.

    Raises:
        ValueError: the data do not fit the model.
        OSError: there is no such model or file.
    """
    config = read_config(folder)
    columns = Columns.of(config)
    model = load_model(folder, device=device)
    if source is None or source in NAMED:
        given: dict[str, Any] = {"data": source, "target": target}
        settings = _settings(folder) if source is None else given
        data = load(settings["data"], settings.get("target"))
        columns.check(data.name, data.feature_names)
        title = f"{len(data.held_out[0]):,} held-out examples of {data.name}"
        return title, evaluate(model, data.held_out)
    path = Path(source)
    pair = labelled(path, columns, target or columns.target)
    return f"{len(pair[1]):,} rows of {path.name}", evaluate(model, pair)


def labelled(path: Path, columns: Columns, target: str | None) -> tuple[Any, Any]:
    """Return the features and class numbers of all rows of a file.

    Raises:
        ValueError: there are none, or they do not fit the model.
    """
    if target is None:
        raise ValueError(f"target is missing: name the column of {path} that holds the labels")
    with table(path, ROWS) as rows:
        columns.check(path.name, rows.names, target)
        frame = pd.concat(list(rows.frames), ignore_index=True)
    if not len(frame):
        raise ValueError(f"{path.name} has no rows; there is nothing to score")
    return columns.inputs(path.name, frame), columns.labels(path.name, frame[target])


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / "run.toml"
    if not path.exists():
        raise ValueError(
            f"{folder} does not say what it was trained on; give --data FILE --target COLUMN"
        )
    return read(path)
