"""Fit when a saved model may answer, on held-out rows or on a table of any size."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from batchensemble.cli.workflows.decision import Decision, DecisionCheck
from batchensemble.cli.workflows.fitted_sets import fitted_sets
from batchensemble.cli.workflows.model_folder import ModelFolder
from batchensemble.cli.workflows.scored_rows import ScoredRows
from batchensemble.core.arguments import between, positive_number
from batchensemble.data.prediction_batch import PREDICTION_BATCH
from batchensemble.data.tables.dialects import Dialect
from batchensemble.decisions import ConformalIntervals, Threshold, threshold_for
from batchensemble.decisions.errors import answer_losses
from batchensemble.decisions.uncertainty_score import uncertainty_score
from batchensemble.ensembles.saving.trust import Trust
from batchensemble.losses import BinaryCrossEntropy
from batchensemble.predictions import Normals, Points, Prediction, Quantiles, RegressionPrediction
from batchensemble.predictions.predict import model_loss, predict

OneEach = Prediction | RegressionPrediction
Predicted = tuple[OneEach, np.ndarray, np.ndarray]  # prediction, uncertainties, targets
ALL_ALIKE = (
    "The {by} uncertainty is the same for all of these rows, so either all are answered or none. "
    "A single network has no epistemic uncertainty, and with --loss mse or huber it has no other."
)
SAME_UNCERTAINTY = 1e-12  # in nats or relative to a variance: differences below are rounding


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
    by_class: bool | None = None,
    device: str | torch.device | None = None,
    network: nn.Module | None = None,
    trust: Trust = False,
    dialect: Dialect | None = None,
) -> Decision:
    """Return when a saved model may answer, and prediction sets or intervals.

    A file is read in blocks. For each row only the ensemble's probabilities, or two numbers of its
    distribution, and one uncertainty are kept in memory, not the members' predictions.

    Args:
        path: the model's folder.
        source: rows used neither for training nor for choosing the model: a file, or a folder of
            Parquet files; by default the rows that the training kept for calibration. The decision
            is then checked on those kept for scoring.
        target: name of the column of targets; by default that of the training.
        risk: largest error rate of the answered rows, 0.05 by default, see
            :func:`batchensemble.decisions.threshold_for`.
        confidence: confidence of the bound on that rate, 0.95 by default.
        by: the uncertainty that the threshold is on, ``"total"`` by default.
        tolerance: for numbers: a larger absolute error is an error, in the targets' unit; without
            it there is no threshold.
        coverage: nominal coverage of the sets or intervals, 0.9 by default.
        by_class: whether the sets have that coverage in each class; by default where the smallest
            class is rare and each class has 20 rows or more, see
            :func:`~batchensemble.cli.workflows.fitted_sets.fitted_sets`.
        device: device to run the model on; by default that of the model.
        network: the plain network, if the folder does not say how to make one.
        trust: what may be imported of what the folder names, see :func:`batchensemble.load`; by
            default nothing.
        dialect: the dialect of CSV files as far as the user gives it; by default that of the
            training.

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
    # As predict does, so that what is answered there is what was measured here.
    model = folder.load(device, network, trust).freeze(PREDICTION_BATCH)
    if isinstance(model_loss(model), BinaryCrossEntropy):
        raise ValueError(
            f"the model in {path} is a multi-label classifier, and decide needs one class or one "
            "number for each example; batchensemble evaluate scores it"
        )
    if by_class and not folder.columns.class_names:
        raise ValueError("by_class is for sets of classes, and this model predicts numbers")
    rows = folder.rows(model, source, target, "calibration")
    found = _predict_blocks(model, rows, by, tolerance)
    decision = _fitted(folder, rows, found, risk, confidence, by, tolerance, coverage, by_class)
    if source is not None or not folder.parts:
        return decision
    others = _predict_blocks(model, folder.rows(model), by, tolerance)
    return replace(decision, check=_checked(decision, *others, tolerance))


def _fitted(
    folder: ModelFolder,
    rows: ScoredRows,
    predicted: Predicted,
    risk: float,
    confidence: float,
    by: str,
    tolerance: float | None,
    coverage: float,
    by_class: bool | None,
) -> Decision:
    """Return the decision that rows lead to."""
    prediction, uncertainties, targets = predicted
    with warnings.catch_warnings():
        # The decision says the same.
        warnings.filterwarnings("ignore", message="error rate at most .*: no threshold")
        warnings.filterwarnings("ignore", message="a confidence of .* needs at least")
        threshold: Threshold | None = None
        if isinstance(prediction, Prediction) or tolerance is not None:
            found = threshold_for(
                prediction, targets, risk, confidence, uncertainties, tolerance=tolerance
            )
            threshold = replace(found, by=by)
        about = (folder.config["sha256"], rows.title, len(targets), threshold)
        notes = rows.notes
        if threshold is not None and np.ptp(uncertainties) <= SAME_UNCERTAINTY * max(
            1.0, np.abs(uncertainties).max()
        ):
            notes += (ALL_ALIKE.format(by=by),)
        if isinstance(prediction, RegressionPrediction):
            intervals = ConformalIntervals(confidence=coverage).fit(prediction, targets)
            width = float(intervals(prediction).widths.mean())
            return Decision(*about, None, intervals, width, notes=notes)
        sets, more = fitted_sets(
            prediction, targets, coverage, by_class, folder.columns.class_names
        )
        notes += more
    sizes = sets(prediction).sizes
    return Decision(*about, sets, None, float(sizes.mean()), float((sizes == 1).mean()), notes)


def _checked(
    decision: Decision,
    prediction: OneEach,
    uncertainties: np.ndarray,
    targets: np.ndarray,
    tolerance: float | None,
) -> DecisionCheck:
    """Return how a decision does on other rows."""
    threshold, answered, risk = decision.threshold, None, None
    if threshold is not None:
        answers = threshold.accepts(prediction, uncertainties)
        answered = float(answers.mean())
        if answers.any():
            risk = float(answer_losses(prediction, targets, tolerance)[answers].mean())
    if decision.intervals is not None:
        assert isinstance(prediction, RegressionPrediction)
        found = decision.intervals(prediction)
        covered = (found.lower <= targets) & (targets <= found.upper)
        sizes = found.widths
    else:
        assert decision.sets is not None
        assert isinstance(prediction, Prediction)
        sets = decision.sets(prediction)
        covered, sizes = sets.contains[np.arange(len(targets)), targets], sets.sizes
    return DecisionCheck(len(targets), answered, risk, float(covered.mean()), float(sizes.mean()))


def _predict_blocks(
    model: Any, rows: Iterable[tuple[Any, Any]], by: str, tolerance: float | None
) -> Predicted:
    """Return the ensemble's prediction on all rows, their uncertainty, and the targets."""
    parts: list[OneEach] = []
    uncertainties, targets = [], []
    for X, target in rows:
        prediction: Any = predict(model, X)
        truth = np.asarray(target)
        answer_losses(prediction, truth, tolerance)  # errors are raised at the first block
        uncertainties.append(uncertainty_score(prediction, by))
        parts.append(_ensemble_only(prediction))
        targets.append(truth)
    return _joined(parts), np.concatenate(uncertainties), np.concatenate(targets)


def _ensemble_only(prediction: OneEach) -> OneEach:
    """Return the ensemble's prediction as a prediction with one member."""
    if isinstance(prediction, Prediction):
        return Prediction(prediction.probs[:, None])
    if isinstance(prediction, Normals):
        return Normals(prediction.mean[:, None], prediction.deviation[:, None])
    if isinstance(prediction, Quantiles):
        return Quantiles(prediction.together[:, None], prediction.levels)
    return Points(prediction.mean[:, None])


def _joined(parts: list[OneEach]) -> OneEach:
    """Return consecutive predictions as one."""
    first: Any = parts[0]
    arrays = {
        each.name: np.concatenate([getattr(part, each.name) for part in parts])
        for each in fields(first)
        if isinstance(getattr(first, each.name), np.ndarray)
    }
    joined: OneEach = replace(first, **arrays)
    return joined
