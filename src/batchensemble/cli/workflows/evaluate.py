"""Evaluation of a saved model on a table of any size, or on the rows held out from training."""

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
    """Return the rows that a saved model was evaluated on, and its scores.

    Files are read block by block, so memory does not grow with them.

    Args:
        path: of the model's folder.
        source: see :meth:`~batchensemble.cli.workflows.model_folder.ModelFolder.rows`.
        target: the column of targets; by default that of the training.
        device: of the model; by default the CPU.
        network: the plain network, where the folder does not name one.
        trust: which code named by the folder may be imported, see :func:`batchensemble.load`.
        dialect: how CSV files are written; what it leaves open is detected.

    Raises:
        ValueError: the data do not fit the model, or which rows it was trained on is not known.
        OSError: there is no such model or file.
    """
    folder = ModelFolder(path, dialect)
    model = folder.load(device, network, trust)
    rows = folder.rows(model, source, target)
    scores = scores_of(model, rows)
    remark = scores.remark(folder.columns.class_names)
    rows.notes += (*notes_on(model.loss), *([remark] if remark else []))
    return rows, scores
