"""How well probabilities separate the classes, whatever threshold turns them into a decision."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from batchensemble.metrics.labels import Labels, checked_labels
from batchensemble.predictions import Prediction

MOST_PROBABILITIES = 2**24  # that scores keep until they are asked: 128 MB
RANKED = ("auc", "average_precision")


def roc_auc(prediction: Prediction, labels: Any) -> float:
    """Return the area under the ROC curve.

    For two classes it is the probability that an example of class 1 gets a higher probability of
    class 1 than one of class 0, ties counting half: 0.5 is chance, 1 separates them. Unlike the
    accuracy it depends neither on the shares of the classes nor on a threshold. For several classes
    it is the mean of each against the rest (macro one-vs-rest) over the classes that occur.
    ``sklearn.metrics.roc_auc_score`` computes each.

    Args:
        prediction: the prediction of any ensemble, with one class for each example.
        labels: the true class numbers, ``[examples]``.

    Returns:
        0 to 1; NaN where only one class occurs, or a probability is NaN.

    Raises:
        TypeError: the labels are not whole numbers.
        ValueError: the labels do not fit the prediction.

    Example:
        >>> rising = Prediction(np.array([[[0.9, 0.1]], [[0.6, 0.4]], [[0.7, 0.3]]]))
        >>> roc_auc(rising, [0, 0, 1])
        0.5
    """
    return _macro(roc_auc_score, prediction.probs, checked_labels(prediction, labels))


def average_precision(prediction: Prediction, labels: Any) -> float:
    """Return the average precision, a summary of the curve of precision against recall.

    For two classes that of class 1: the mean precision over the thresholds, weighted by the recall
    that each adds. Chance is the share of class 1, so it tells on a rare class what the AUC
    flatters (Saito and Rehmsmeier 2015, doi 10.1371/journal.pone.0118432). For several classes the
    mean over the classes that occur. ``sklearn.metrics.average_precision_score`` computes each.

    Args:
        prediction: the prediction of any ensemble, with one class for each example.
        labels: the true class numbers, ``[examples]``.

    Returns:
        0 to 1; NaN where only one class occurs, or a probability is NaN.

    Raises:
        TypeError: the labels are not whole numbers.
        ValueError: the labels do not fit the prediction.

    Example:
        >>> rising = Prediction(np.array([[[0.9, 0.1]], [[0.6, 0.4]], [[0.7, 0.3]]]))
        >>> average_precision(rising, [0, 0, 1])
        0.5
    """
    return _macro(average_precision_score, prediction.probs, checked_labels(prediction, labels))


def class_ranks(prediction: Prediction, labels: Any) -> tuple[list[float], list[float]]:
    """Return the AUC and the average precision of each class against the others.

    Args:
        prediction: the prediction of any ensemble, with one class for each example.
        labels: the true class numbers, ``[examples]``.

    Returns:
        ``[classes]`` each; NaN for a class without examples, or with all.
    """
    labels, probs = checked_labels(prediction, labels), prediction.probs
    found: tuple[list[float], list[float]] = ([], [])
    for number in range(probs.shape[1]):
        of_class = (labels == number).astype(np.int64)
        for scores, score in zip(found, (roc_auc_score, average_precision_score), strict=True):
            scores.append(_macro(score, probs[:, [number]], of_class))
    return found


@dataclass(frozen=True)
class Ranked:
    """Scores of ranks, which take longer than all others, computed when they are asked for.

    Attributes:
        probs: the ensemble's probabilities, ``[examples, classes]``; for two classes those of class
            1 are enough, ``[examples, 1]``. ``None`` where there are too many to keep, so that the
            scores are NaN.
        labels: the true class numbers, ``[examples]``.
    """

    probs: np.ndarray | None
    labels: Labels

    @classmethod
    def of(cls, prediction: Prediction, labels: Labels) -> Ranked:
        """Return the scores of a prediction with checked labels."""
        probs = prediction.probs
        return cls(probs if probs.size <= MOST_PROBABILITIES else None, labels)

    def __call__(self, name: str) -> float:
        """Return a score by its name, one of :data:`RANKED`."""
        if self.probs is None:
            return math.nan
        score = roc_auc_score if name == "auc" else average_precision_score
        return _macro(score, self.probs, self.labels)


def _macro(score: Callable[..., Any], probs: np.ndarray, labels: Labels) -> float:
    """Return the score of class 1 of two, or the mean over the classes that occur."""
    if len(labels) == 0 or (labels == labels[0]).all() or not np.isfinite(probs).all():
        return math.nan
    if probs.shape[1] <= 2:
        return float(score(labels == 1, probs[:, -1]))
    occurring = np.unique(labels)
    return float(np.mean([score(labels == each, probs[:, each]) for each in occurring]))
