"""The contribution of each example to a score, so that a bootstrap need not score again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from batchensemble.metrics import BINS, crps, example_losses, losses_by_example
from batchensemble.metrics.bootstrap import Contributions
from batchensemble.metrics.calibration.reliability import bins_of, edges_of
from batchensemble.predictions import Prediction, RegressionPrediction

Terms = np.ndarray
ExampleScore = Callable[[Any, np.ndarray], Terms]
SMALLEST = np.finfo(np.float64).tiny


def contributions(
    key: str, predictions: Sequence[Any], targets: np.ndarray
) -> Contributions | None:
    """Return the contribution of each example to a score of :func:`batchensemble.metrics.score`.

    Args:
        key: name of the score.
        predictions: predictions of one method on the same examples, one for each seed.
        targets: class numbers or numbers, ``[examples, ...]``.

    Returns:
        ``None`` for a score that is no function of means over the examples, for another kind of
        prediction, or where a target is NaN.

    Example:
        >>> sure = Prediction(np.array([[[0.75, 0.25]], [[0.25, 0.75]]]))
        >>> contributions("ece", [sure], np.array([0, 1])).score
        0.25
    """
    function = _example_scores(predictions, targets).get(key)
    if function is None:
        return None
    parts = np.stack([_columns(function(each, targets)) for each in predictions])
    return Contributions(parts, FINISH[key]) if key in FINISH else Contributions(parts)


def _example_scores(predictions: Sequence[Any], targets: np.ndarray) -> Mapping[str, ExampleScore]:
    """Return the scores of this kind of prediction that are functions of means over examples."""
    if all(isinstance(each, Prediction) and each.member_probs.ndim == 3 for each in predictions):
        return CLASS_SCORES
    if not all(isinstance(each, RegressionPrediction) for each in predictions):
        return {}
    if np.isnan(targets).any():
        return {}
    left_out = set()
    if not all(each.has_density for each in predictions):
        left_out.add("nll")
    # A mean of several R² is no function of means over the examples, and equal targets have none.
    if targets.ndim > 1 or targets.min() == targets.max():
        left_out.add("r2")
    return {key: function for key, function in NUMBERS.items() if key not in left_out}


def _columns(values: np.ndarray) -> np.ndarray:
    """Return ``[examples, parts]``."""
    return values[:, None] if values.ndim == 1 else values


def accuracy(prediction: Prediction, labels: np.ndarray) -> Terms:
    """Return 1 where the most probable class is the true one, ``[examples]``."""
    return (prediction.labels == labels).astype(np.float64)


def ece(prediction: Prediction, labels: np.ndarray) -> Terms:
    """Return confidence minus correctness, in the column of its bin, ``[examples, bins]``.

    The bins are those of :func:`batchensemble.metrics.calibration.reliability`.
    """
    confidence = prediction.confidence
    bins = bins_of(confidence, edges_of(confidence, BINS, "width"))
    gaps = np.zeros((len(labels), BINS))
    gaps[np.arange(len(labels)), bins] = confidence - (prediction.labels == labels)
    return gaps


def _mean_of_targets(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1).mean(1)


def _squares(prediction: RegressionPrediction, y: np.ndarray) -> np.ndarray:
    """Return the terms of R², ``[examples, 3]``.

    The targets are centred, which keeps their variance and the precision of their squares.
    """
    centred = y - y.mean()
    return np.stack([(prediction.mean - y) ** 2, centred, centred**2], 1)


def _explained(means: np.ndarray) -> np.ndarray:
    errors, mean, square = np.moveaxis(means, -1, 0)
    return 1 - errors / np.maximum(square - mean**2, SMALLEST)


def _root(means: np.ndarray) -> np.ndarray:
    return np.sqrt(means[..., 0])


def _sum_of_gaps(means: np.ndarray) -> np.ndarray:
    return np.abs(means).sum(-1)


CLASS_SCORES: dict[str, ExampleScore] = {
    "accuracy": accuracy,
    "nll": example_losses,
    "brier": lambda prediction, labels: losses_by_example(prediction, labels, "brier"),
    "ece": ece,
}
NUMBERS: dict[str, ExampleScore] = {
    "rmse": lambda prediction, y: _mean_of_targets((prediction.mean - y) ** 2),
    "mae": lambda prediction, y: _mean_of_targets(np.abs(prediction.mean - y)),
    "r2": lambda prediction, y: _squares(prediction, y),
    "nll": lambda prediction, y: _mean_of_targets(example_losses(prediction, y)),
    "crps": lambda prediction, y: _mean_of_targets(crps(prediction, y)),
}
# How a mean over the examples becomes the score, where it is not the score already.
FINISH: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "ece": _sum_of_gaps,
    "rmse": _root,
    "r2": _explained,
}
