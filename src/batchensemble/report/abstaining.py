"""What an ensemble that may decline to answer risks: coverage against errors, by its doubt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from batchensemble.predictions import Prediction, RegressionPrediction

THRESHOLDS = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class Abstaining:
    """Coverage and risk at each threshold (El-Yaniv and Wiener 2010, JMLR 11).

    Attributes:
        thresholds: the least confidence that is answered; of numbers the share that is.
        coverage: share of the examples that are.
        risk: share of wrong answers among those, or the RMSE of them; NaN where there is none.
    """

    thresholds: Float[np.ndarray, "thresholds"]
    coverage: Float[np.ndarray, "thresholds"]
    risk: Float[np.ndarray, "thresholds"]


def abstaining(
    predictions: Sequence[Prediction],
    labels: np.ndarray,
    thresholds: Float[np.ndarray, "thresholds"] = THRESHOLDS,
) -> Abstaining:
    """Return what is answered, and how often wrongly, at each threshold.

    Args:
        predictions: of one method, one a seed; all of them count as one.
        labels: the true classes, ``[examples]``.
        thresholds: of the probability of the predicted class.

    Example:
        >>> one = Prediction(np.array([[[0.9, 0.1]], [[0.4, 0.6]]]))
        >>> found = abstaining([one], np.array([0, 0]), np.array([0.5, 0.7]))
        >>> found.coverage.tolist(), found.risk.tolist()
        ([1.0, 0.5], [0.5, 0.0])
    """
    confidence = np.concatenate([each.probs.max(1) for each in predictions])
    wrong = np.concatenate([each.labels != labels for each in predictions])
    order = np.argsort(confidence)
    first = np.searchsorted(confidence[order], thresholds, side="left")
    errors = np.append(np.cumsum(wrong[order][::-1])[::-1], 0)[first]
    answered = len(confidence) - first
    with np.errstate(invalid="ignore"):
        return Abstaining(thresholds, answered / len(confidence), errors / answered)


def abstaining_from_numbers(
    predictions: Sequence[RegressionPrediction],
    targets: np.ndarray,
    shares: Float[np.ndarray, "thresholds"] = THRESHOLDS[1:],
) -> Abstaining:
    """Return the RMSE of the share of the examples whose predicted deviation is smallest.

    Args:
        predictions: of one method, one a seed; all of them count as one.
        targets: the true numbers, ``[examples]``.
        shares: that are answered.

    Example:
        >>> from batchensemble.predictions import Points
        >>> two = Points(np.array([[1.0, 1.0], [0.0, 4.0]]))
        >>> found = abstaining_from_numbers([two], np.array([1.0, 5.0]), np.array([0.5, 1.0]))
        >>> found.risk.round(4).tolist()
        [0.0, 2.1213]
    """
    deviation = np.concatenate([each.deviation for each in predictions])
    squares = np.concatenate([(each.mean - targets) ** 2 for each in predictions])
    running = np.cumsum(squares[np.argsort(deviation, kind="stable")])
    answered = np.maximum(np.round(shares * len(running)).astype(np.int64), 1)
    return Abstaining(shares, answered / len(running), np.sqrt(running[answered - 1] / answered))
