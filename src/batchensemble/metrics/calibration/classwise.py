"""Calibration errors by class, which one number over all classes may hide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from batchensemble.metrics.calibration.reliability import BINS, Binning, edges_of, of_bins
from batchensemble.metrics.labels import checked_labels
from batchensemble.predictions import Prediction


@dataclass(frozen=True)
class Classwise:
    """The calibration error of each class.

    Attributes:
        each: calibration error of each class, ``[classes]``; NaN for a class without examples.
        counts: number of examples that each is computed from, ``[classes]``.
        ece: their mean, weighted as the function that returned this says.
    """

    each: Float[np.ndarray, "classes"]
    counts: Int[np.ndarray, "classes"]
    ece: float


def classwise(
    prediction: Prediction, labels: Any, bins: int = BINS, *, binning: Binning = "width"
) -> Classwise:
    """Return the gap between each class's probability and its frequency.

    For each class its probabilities on all examples are binned, also those where another class is
    predicted; ``ece`` is the unweighted mean over the classes (Kull et al. 2019, arXiv 1910.12656).

    Args:
        prediction: the prediction of any ensemble.
        labels: the true class numbers, ``[examples]``.
        bins: number of bins, 15 by default.
        binning: ``"width"`` (the default) or ``"mass"``, see
            :func:`~batchensemble.metrics.reliability`.

    Raises:
        TypeError: ``bins`` is not a whole number.
        ValueError: an argument is out of range, or the labels do not fit the prediction.

    Example:
        >>> sure = Prediction(np.array([[[0.75, 0.25]], [[0.25, 0.75]]]))
        >>> classwise(sure, np.array([0, 0])).each.tolist()
        [0.5, 0.5]
    """
    labels = checked_labels(prediction, labels)
    errors = []
    for number, probs in enumerate(np.ascontiguousarray(prediction.probs.T)):
        edges = edges_of(probs, bins, binning)
        errors.append(of_bins(probs, labels == number, edges).ece)
    each = np.array(errors)
    return Classwise(each, np.full(len(each), len(labels)), float(each.mean()))


def top_label_by_class(
    prediction: Prediction, labels: Any, bins: int = BINS, *, binning: Binning = "width"
) -> Classwise:
    """Return the calibration error of the confidence, separately for each predicted class.

    The confidence may be right on average although it is too high for one predicted class and too
    low for another; ``ece`` is the mean weighted by how often a class is predicted, and never below
    the ECE with the same bins (Gupta and Ramdas 2022, arXiv 2107.08353).

    Args:
        prediction: the prediction of any ensemble.
        labels: the true class numbers, ``[examples]``.
        bins: number of bins for each class, 15 by default.
        binning: ``"width"`` (the default) or ``"mass"``, see
            :func:`~batchensemble.metrics.reliability`.

    Raises:
        TypeError: ``bins`` is not a whole number.
        ValueError: an argument is out of range, or the labels do not fit the prediction.

    Example:
        >>> sure = Prediction(np.array([[[0.75, 0.25]], [[0.25, 0.75]]]))
        >>> found = top_label_by_class(sure, np.array([0, 0]))
        >>> found.each.tolist(), found.ece
        ([0.25, 0.75], 0.5)
    """
    labels = checked_labels(prediction, labels)
    confidence, predicted = prediction.confidence, prediction.labels
    right = predicted == labels
    classes = prediction.probs.shape[1]
    counts = np.bincount(predicted, minlength=classes)
    each = np.full(classes, np.nan)
    for number in counts.nonzero()[0]:
        chosen = predicted == number
        own = confidence[chosen]
        each[number] = of_bins(own, right[chosen], edges_of(own, bins, binning)).ece
    full = counts > 0
    return Classwise(each, counts, float((each[full] * counts[full]).sum() / counts.sum()))
