"""The scores of a saved model on a table of any size, or on what was held out from its training."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from batchensemble.cli.workflows.model_folder import ModelFolder
from batchensemble.cli.workflows.scored_rows import ScoredRows, notes_on, scores_of
from batchensemble.data.tables.dialects import Dialect
from batchensemble.ensembles.saving.trust import Trust
from batchensemble.metrics import Scores


def evaluate_folder(
    path: Path,
    source: str | None = None,
    target: str | None = None,
    *,
    device: str | torch.device | None = None,
    dialect: Dialect | None = None,
    network: nn.Module | None = None,
    trust: Trust = False,
) -> tuple[ScoredRows, Scores]:
    """Return the rows that a saved model was scored on, and its scores.

    A file is gone through in blocks: memory does not grow with it.

    Args:
        path: of the model's folder.
        source: see :meth:`~batchensemble.cli.workflows.model_folder.ModelFolder.rows`.
        target: the column of targets; by default that of the training.
        device: where the model runs.
        network: the plain network, where the folder does not say how to make one.
        trust: what may be imported of what the folder names, see :func:`batchensemble.load`.
        dialect: how CSV files are written, as far as the user says it.

    Raises:
        ValueError: the data do not fit the model, or it cannot be told which rows trained it.
        OSError: there is no such model or file.
    """
    folder = ModelFolder(path, dialect)
    model = folder.load(device, network, trust)
    rows = folder.rows(model, source, target)
    scores = scores_of(model, rows)
    remark = scores.remark(folder.columns.class_names)
    rows.notes += (*notes_on(model.loss), *([remark] if remark else []))
    return rows, scores
