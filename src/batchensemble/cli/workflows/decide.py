"""When a saved model may answer, learnt on what was held out or on a table of any size."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from batchensemble.cli.workflows.decision import Decision, smallest_sets
from batchensemble.cli.workflows.model_folder import ModelFolder
from batchensemble.core.arguments import between, positive_number
from batchensemble.data.batches import PREDICTION_BATCH
from batchensemble.data.tables.dialects import Dialect
from batchensemble.decisions import ConformalIntervals, Threshold, threshold_for
from batchensemble.decisions.errors import losses
from batchensemble.decisions.uncertainty_score import doubt
from batchensemble.ensembles.saving.trust import Trust
from batchensemble.losses import BinaryCrossEntropy
from batchensemble.predictions import Normals, Points, Prediction, Quantiles, RegressionPrediction
from batchensemble.predictions.predict import loss_of, predict

OneEach = Prediction | RegressionPrediction
ALL_ALIKE = (
    "The {by} uncertainty is the same for all of these rows, so either all are answered or none. "
    "One network alone has no epistemic uncertainty, and with --loss mse or huber no other."
)
ALIKE = 1e-12  # in nats or in shares of a variance, less than rounding leaves


def decide_folder(
    path: Path,
    source: str | None = None,
    target: str | None = None,
    *,
    risk: float = 0.05,
    confidence: float = 0.95,
    by: str = "total",
    tolerance: float | None = None,
    coverage: float = 0.9,
    device: str | torch.device | None = None,
    network: nn.Module | None = None,
    trust: Trust = False,
    dialect: Dialect | None = None,
) -> Decision:
    """Return when a saved model may answer, and sets or intervals that hold the truth.

    A file is gone through in blocks. Kept are the ensemble's probabilities, or two numbers of its
    distribution, and one uncertainty of each row: less than what the members say by their number.

    Args:
        path: of the model's folder.
        source: rows that neither trained nor chose the model: a file, or a folder of Parquet files;
            by default what was held out from the training.
        target: the column of targets; by default that of the training.
        risk: the share of errors among those answered, see
            :func:`batchensemble.decisions.threshold_for`.
        confidence: of the bound on that share.
        by: the uncertainty that says what is answered.
        tolerance: of numbers: one that is off by more is an error, in the targets' unit; without it
            there is no threshold.
        coverage: the share of sets or intervals that shall hold the truth.
        device: where the model runs.
        network: the plain network, where the folder does not say how to make one.
        trust: what may be imported of what the folder names, see :func:`batchensemble.load`.
        dialect: how CSV files are written, as far as the user says it.

    Raises:
        ValueError: an argument is out of range, or the data do not fit the model.
        OSError: there is no such model or file.
    """
    between("risk", risk, 0, 1)
    between("confidence", confidence, 0, 1)
    between("coverage", coverage, 0, 1)
    if tolerance is not None:
        positive_number("tolerance", tolerance)
    folder = ModelFolder(path, dialect)
    # As predict does, so that what is answered there is what was counted here.
    model = folder.load(device, network, trust).freeze(PREDICTION_BATCH)
    if isinstance(loss_of(model), BinaryCrossEntropy):
        raise ValueError(
            f"the model in {path} says which labels are there, and decide is of one class or one "
            "number an example; batchensemble evaluate scores it"
        )
    rows = folder.rows(model, source, target)
    said, doubts, targets = _gone_through(model, rows, by, tolerance)
    with warnings.catch_warnings():
        # What they say stands in the decision.
        warnings.filterwarnings("ignore", message="errors of .*: no threshold")
        warnings.filterwarnings("ignore", message="a confidence of .* takes at least")
        threshold: Threshold | None = None
        if isinstance(said, Prediction) or tolerance is not None:
            found = threshold_for(said, targets, risk, confidence, doubts, tolerance=tolerance)
            threshold = replace(found, by=by)
        about = (folder.config["sha256"], rows.title, len(targets), threshold)
        notes = rows.notes
        if threshold is not None and np.ptp(doubts) <= ALIKE * max(1.0, np.abs(doubts).max()):
            notes += (ALL_ALIKE.format(by=by),)
        if isinstance(said, RegressionPrediction):
            intervals = ConformalIntervals(confidence=coverage).fit(said, targets)
            width = float(intervals(said).widths.mean())
            return Decision(*about, None, intervals, width, notes=notes)
        sets = smallest_sets(coverage).fit(said, targets)
    sizes = sets(said).sizes
    return Decision(*about, sets, None, float(sizes.mean()), float((sizes == 1).mean()), notes)


def _gone_through(
    model: Any, rows: Iterable[tuple[Any, Any]], by: str, tolerance: float | None
) -> tuple[OneEach, np.ndarray, np.ndarray]:
    """Return what the ensemble says of all rows, its doubt by the members, and the targets."""
    parts: list[OneEach] = []
    doubts, targets = [], []
    for X, target in rows:
        said: Any = predict(model, X)
        truth = np.asarray(target)
        losses(said, truth, tolerance)  # what does not fit is told at the first block
        doubts.append(doubt(said, by))
        parts.append(_as_one_member(said))
        targets.append(truth)
    return _joined(parts), np.concatenate(doubts), np.concatenate(targets)


def _as_one_member(said: OneEach) -> OneEach:
    """Return a prediction of one member that says what all of them say together."""
    if isinstance(said, Prediction):
        return Prediction(said.probs[:, None])
    if isinstance(said, Normals):
        return Normals(said.mean[:, None], said.deviation[:, None])
    if isinstance(said, Quantiles):
        return Quantiles(said.together[:, None], said.levels)
    return Points(said.mean[:, None])


def _joined(parts: list[OneEach]) -> OneEach:
    """Return the predictions of blocks as one."""
    first: Any = parts[0]
    arrays = {
        each.name: np.concatenate([getattr(part, each.name) for part in parts])
        for each in fields(first)
        if isinstance(getattr(first, each.name), np.ndarray)
    }
    joined: OneEach = replace(first, **arrays)
    return joined
