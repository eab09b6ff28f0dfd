"""One score of a prediction by its name, without the others, and which way it is better."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.metrics import mean_pinball_loss, r2_score

from batchensemble.core.arguments import one_of
from batchensemble.losses import ClassLoss, Custom, EnsembleLoss, Standardised
from batchensemble.metrics.calibration.reliability import BINS, bins_of, edges_of
from batchensemble.metrics.labels import checked_labels
from batchensemble.metrics.losses_by_example import losses_by_example
from batchensemble.metrics.regression import checked_numbers, crps
from batchensemble.metrics.scores import score
from batchensemble.predictions import (
    AnyPrediction,
    MultiLabelPrediction,
    Prediction,
    Quantiles,
    RegressionPrediction,
)
from batchensemble.predictions.from_outputs import reading

# Whether higher is better. What is not here, such as a width or a disagreement, has no better end.
HIGHER_IS_BETTER = {
    "nll": False,
    "brier": False,
    "ece": False,
    "accuracy": True,
    "balanced_accuracy": True,
    "auc": True,
    "average_precision": True,
    "exact_match": True,
    "rmse": False,
    "mae": False,
    "r2": True,
    "crps": False,
    "pinball": False,
}

Weights = np.ndarray | None
OneScore = Callable[[Any, np.ndarray, Weights], float]


def names_of_scores(loss: EnsembleLoss) -> tuple[str, ...]:
    """Return the scores with a better end that :func:`evaluate` gives for a loss; ``nll`` first.

    Args:
        loss: what the outputs are trained with; ``nll`` stands for its held-out loss.

    Example:
        >>> from batchensemble.losses import GaussianNLL
        >>> names_of_scores(GaussianNLL())
        ('nll', 'rmse', 'mae', 'r2', 'crps')
    """
    loss = loss.loss if isinstance(loss, Standardised) else loss
    try:
        found = reading(loss)
        arrays = found.of(torch.zeros(2, 1, getattr(loss, "outputs_a_target", 2)))
        of_classes = isinstance(loss, (ClassLoss, Custom))
        given = score(found.make(*arrays), np.array([0, 1] if of_classes else [0.0, 1.0]))
    except (TypeError, ValueError):  # a loss of the user's own that defines no such prediction
        return ("nll",)
    return ("nll", *(each for each in HIGHER_IS_BETTER if each in given and each != "nll"))


def score_by_name(
    prediction: AnyPrediction, targets: Any, name: str, weights: Weights = None
) -> float:
    """Return one score of a prediction, the same number as :func:`score` has under the name.

    Args:
        prediction: the prediction of any ensemble, of one class for each example.
        targets: the true classes or numbers as :func:`score` takes them.
        name: a name in ``HIGHER_IS_BETTER``.
        weights: how much each example counts, ``[examples]``; by default all count the same.

    Raises:
        ValueError: there is no such score, it has no weighted form, or the targets do not fit.

    Example:
        >>> sure = Prediction(np.array([[[0.75, 0.25]], [[0.25, 0.75]]]))
        >>> score_by_name(sure, np.array([0, 0]), "accuracy", np.array([3.0, 1.0]))
        0.75
    """
    one_of("name", name, HIGHER_IS_BETTER)
    if isinstance(prediction, RegressionPrediction):
        alone = _OF_NUMBERS.get(name)
    elif isinstance(prediction, MultiLabelPrediction):
        alone = None
    else:
        alone, targets = _OF_CLASSES.get(name), checked_labels(prediction, targets)
    if alone is not None:
        return alone(prediction, targets, weights)
    if weights is not None:
        raise ValueError(f"{name} has no form for examples with weights; leave the weights out")
    found: float = score(prediction, targets)[name]
    return found


def _mean(losses: np.ndarray, weights: Weights) -> float:
    return float(np.average(losses, weights=weights))


def _accuracy(prediction: Prediction, labels: np.ndarray, weights: Weights) -> float:
    return _mean(prediction.labels == labels, weights)


def _of_each(name: Any) -> OneScore:
    def found(prediction: Prediction, labels: np.ndarray, weights: Weights) -> float:
        return _mean(losses_by_example(prediction, labels, name), weights)

    return found


def _ece(prediction: Prediction, labels: np.ndarray, weights: Weights) -> float:
    confidence = prediction.confidence
    shares = np.ones(len(labels)) if weights is None else weights
    gaps = shares * (confidence - (prediction.labels == labels))
    bins = bins_of(confidence, edges_of(confidence, BINS, "width"))
    return float(np.abs(np.bincount(bins, gaps)).sum() / shares.sum())


def _known(
    prediction: RegressionPrediction, targets: Any, weights: Weights
) -> tuple[np.ndarray, np.ndarray, Weights]:
    """Return all targets, a mask of the known ones, and the weight of each known one."""
    targets = checked_numbers(prediction, targets)
    known = ~np.isnan(targets)
    if weights is not None:
        along = weights.reshape(-1, *[1] * (targets.ndim - 1))
        weights = np.broadcast_to(along, targets.shape)[known]
    return targets, known, weights


def _of_errors(
    finish: Callable[[float], float], each: Callable[[np.ndarray], np.ndarray]
) -> OneScore:
    def found(prediction: RegressionPrediction, targets: Any, weights: Weights) -> float:
        y, known, some = _known(prediction, targets, weights)
        return float(finish(_mean(each((prediction.mean - y)[known]), some)))

    return found


def _r2(prediction: RegressionPrediction, targets: Any, weights: Weights) -> float:
    y, known, some = _known(prediction, targets, weights)
    y, mean = y[known], prediction.mean[known]
    return float(r2_score(y, mean, sample_weight=some)) if np.ptp(y) else float("nan")


def _crps(prediction: RegressionPrediction, targets: Any, weights: Weights) -> float:
    y, known, some = _known(prediction, targets, weights)
    return _mean(crps(prediction, y)[known], some)


def _pinball(prediction: RegressionPrediction, targets: Any, weights: Weights) -> float:
    assert isinstance(prediction, Quantiles)
    y, known, some = _known(prediction, targets, weights)
    quantiles = np.moveaxis(prediction.together, 1, 0)
    losses = [
        mean_pinball_loss(y[known], each[known], alpha=level, sample_weight=some)
        for each, level in zip(quantiles, prediction.levels, strict=True)
    ]
    return float(np.mean(losses))


_OF_CLASSES: dict[str, OneScore] = {
    "nll": _of_each("nll"),
    "brier": _of_each("brier"),
    "ece": _ece,
    "accuracy": _accuracy,
}
_OF_NUMBERS: dict[str, OneScore] = {
    "rmse": _of_errors(np.sqrt, np.square),
    "mae": _of_errors(float, np.abs),
    "r2": _r2,
    "crps": _crps,
    "pinball": _pinball,
}
