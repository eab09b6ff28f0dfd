"""The loss of each example, so that predictions can be compared example by example."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import rankdata

from batchensemble.core.arguments import one_of
from batchensemble.metrics.labels import checked_labels
from batchensemble.metrics.regression import crps
from batchensemble.predictions import AnyPrediction, Prediction, RegressionPrediction

ScoreName = Literal["nll", "brier", "error", "auroc"]
UNITS = {
    "nll": "nats",
    "brier": "in Brier score",
    "error": "in error rate",
    "auroc": "in AUROC",
}


def losses_by_example(
    prediction: Prediction, labels: Any, score: ScoreName = "nll"
) -> Float[np.ndarray, "examples"]:
    """Return the loss of the ensemble's prediction on each example; their mean is the score.

    Args:
        prediction: the prediction of any ensemble.
        labels: the true class numbers, ``[examples]``.
        score: ``"nll"`` (the default), in nats; ``"brier"``, 0 to 2; ``"error"``, 1 where the class
            is wrong; ``"auroc"``, the example's contribution to 1 minus the AUROC with which the
            epistemic uncertainty detects wrong predictions, NaN if none or all are wrong.

    Raises:
        TypeError: the labels are not whole numbers.
        ValueError: the labels do not fit, or there is no such score.

    Example:
        >>> even = Prediction(np.array([[[0.5, 0.5]]]))
        >>> losses_by_example(even, np.array([1]), "brier").tolist()
        [0.5]
    """
    one_of("score", score, UNITS)
    labels = checked_labels(prediction, labels)
    if score == "error":
        return (prediction.labels != labels).astype(np.float64)
    if score == "auroc":
        return 1 - added_to_auroc(prediction.epistemic, prediction.labels != labels)
    of_truth = prediction.probs[np.arange(len(labels)), labels]
    if score == "nll":
        return negative_log(of_truth)
    squares: Any = np.einsum("ec,ec->e", prediction.probs, prediction.probs)
    # Σ_c (p_c - y_c)²; rounding takes that of a sure and right prediction below 0.
    return np.maximum(squares - 2 * of_truth + 1, 0.0)


def added_to_auroc(
    uncertainty: Float[np.ndarray, "examples"], wrong: Bool[np.ndarray, "examples"]
) -> Float[np.ndarray, "examples"]:
    """Return numbers with the AUROC of error detection as mean, and with its sampling variance.

    An AUROC is the probability that a wrong example is more uncertain than a correct one, ties
    counting half, which is no mean over the examples. Over resamples it varies as the mean of
    ``AUROC + (place - AUROC) / share`` does, with ``place`` the share of the other kind that an
    example is ranked correctly against, and ``share`` that of its own kind (DeLong et al. 1988,
    doi 10.2307/2531595). So it can be bootstrapped like any other score.

    Args:
        uncertainty: higher where more uncertain, ``[examples]``.
        wrong: whether each prediction is wrong, ``[examples]``.

    Returns:
        ``[examples]``, NaN if none or all are wrong.

    Example:
        >>> float(added_to_auroc(np.array([0.1, 0.4, 0.3, 0.8]), np.array([0, 0, 1, 1]) > 0).mean())
        0.75
    """
    found = int(wrong.sum())
    others = len(wrong) - found
    if not found or not others:
        return np.full(len(wrong), np.nan)
    within = np.empty(len(wrong))
    for kind in (wrong, ~wrong):
        within[kind] = rankdata(uncertainty[kind])
    # The rank among all minus that among the own kind: how many of the other kind are below.
    place = rankdata(uncertainty) - within
    place[wrong] /= others
    place[~wrong] = 1 - place[~wrong] / found
    auroc = place[wrong].mean()
    return auroc + (place - auroc) * len(wrong) / np.where(wrong, found, others)


def example_losses(prediction: AnyPrediction, targets: Any) -> np.ndarray:
    """Return the NLL of each example in nats, or its CRPS for numbers without a density.

    Args:
        prediction: prediction of one class or one number for each example.
        targets: the true classes or numbers, ``[examples]``.

    Example:
        >>> example_losses(Prediction(np.array([[[0.5, 0.5]]])), [0]).round(4)
        array([0.6931])
    """
    if isinstance(prediction, RegressionPrediction):
        if prediction.has_density:
            return -prediction.log_density(targets)
        return crps(prediction, targets)
    if not isinstance(prediction, Prediction):
        raise TypeError(f"a {type(prediction).__name__} has no loss for single examples")
    return losses_by_example(prediction, checked_labels(prediction, targets))


def negative_log(of_truth: np.ndarray) -> np.ndarray:
    """Return the NLL of the true class's probabilities, in nats; large and finite for 0.

    Example:
        >>> negative_log(np.array([0.5, 0.0])).round(4).tolist()
        [0.6931, 708.3964]
    """
    losses: np.ndarray = -np.log(np.maximum(of_truth, np.finfo(np.float64).tiny))
    return losses
