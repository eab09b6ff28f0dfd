"""What an ensemble that may decline to answer risks: coverage against errors, by its doubt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from batchensemble.decisions import RiskCoverage
from batchensemble.predictions import Prediction, RegressionPrediction

THRESHOLDS = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class Abstaining:
    """Coverage and risk at each threshold, see :class:`batchensemble.decisions.RiskCoverage`.

    Attributes:
        thresholds: the least confidence that is answered; of numbers the share that is.
        coverage: share of the examples that are.
        risk: share of wrong answers among those, or their mean absolute error; NaN where there is
            none.
        deviation: of numbers: the largest predicted deviation that is answered.
    """

    thresholds: Float[np.ndarray, "thresholds"]
    coverage: Float[np.ndarray, "thresholds"]
    risk: Float[np.ndarray, "thresholds"]
    deviation: Float[np.ndarray, "thresholds"] | None = None


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
        >>> found = abstaining([one], np.array([0, 0]), np.array([0.5, 0.7, 0.95]))
        >>> found.coverage.tolist(), found.risk.tolist()
        ([1.0, 0.5, 0.0], [0.5, 0.0, nan])
    """
    confidence = np.concatenate([each.confidence for each in predictions])
    wrong = np.concatenate([each.labels != labels for each in predictions])
    risk = RiskCoverage.of(-confidence, wrong).risk
    answered = len(risk) - np.searchsorted(np.sort(confidence), thresholds, side="left")
    return Abstaining(thresholds, answered / len(risk), np.append(np.nan, risk)[answered])


def abstaining_from_numbers(
    predictions: Sequence[RegressionPrediction],
    targets: np.ndarray,
    shares: Float[np.ndarray, "thresholds"] = THRESHOLDS[1:],
) -> Abstaining:
    """Return the mean absolute error of the share of the examples that are surest.

    Args:
        predictions: of one method, one a seed; all of them count as one.
        targets: the true numbers, ``[examples]``.
        shares: that are answered, those of the smallest predicted deviation.

    Example:
        >>> from batchensemble.predictions import Points
        >>> two = Points(np.array([[1.0, 1.0], [0.0, 4.0]]))
        >>> found = abstaining_from_numbers([two], np.array([1.5, 5.0]), np.array([0.5, 1.0]))
        >>> found.risk.tolist(), found.deviation.tolist()
        ([0.5, 1.75], [0.0, 2.0])
    """
    deviation = np.concatenate([each.deviation for each in predictions])
    errors = np.concatenate([np.abs(each.mean - targets) for each in predictions])
    curve = RiskCoverage.of(deviation, errors)
    last = np.array([curve.answered_at(float(share)) for share in shares]) - 1
    return Abstaining(shares, shares, curve.risk[last], np.sort(deviation)[last])
