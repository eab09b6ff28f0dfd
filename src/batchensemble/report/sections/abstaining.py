"""Selective prediction on the page: coverage against error, by uncertainty."""

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
        thresholds: of classes, the least confidence that is answered; of numbers, the share of the
            examples that is answered. From 0 to 1.
        coverage: share of the examples that are answered, 0 to 1.
        risk: error rate of the answered examples, or their mean absolute error in the targets'
            unit; NaN where none is answered.
        deviation: of numbers, the largest predicted standard deviation that is answered, in the
            targets' unit; ``None`` of classes.
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
    """Return coverage and error rate at each threshold of the confidence.

    Args:
        predictions: predictions of one method on the same examples, one for each seed; they are
            pooled.
        labels: the true classes, ``[examples]``.
        thresholds: least probabilities of the predicted class, 0 to 1.

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
    """Return the mean absolute error of the most certain examples.

    Args:
        predictions: predictions of one method on the same examples, one for each seed; they are
            pooled.
        targets: the true numbers, ``[examples]``.
        shares: shares of the examples that are answered, above 0 and up to 1, those with the
            smallest predicted standard deviation first.

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
