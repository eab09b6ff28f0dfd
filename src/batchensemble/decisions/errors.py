"""The loss of an answer: a wrong class, or the absolute error of a number."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool

from batchensemble.core.arguments import positive_number
from batchensemble.decisions.uncertainty_score import ExampleScores, finite_numbers, one_number_each
from batchensemble.metrics.labels import checked_labels
from batchensemble.predictions import Prediction, RegressionPrediction


def answer_losses(
    prediction: Prediction | RegressionPrediction, targets: Any, tolerance: float | None = None
) -> ExampleScores:
    """Return the loss of each answer: 1 if it is wrong and 0 if not, or its absolute error.

    Args:
        prediction: prediction of classes or of numbers, one for each example.
        targets: the true classes, or the true numbers, ``[examples]``.
        tolerance: for numbers, the largest absolute error that is not an error, in the targets'
            unit; by default the loss is the absolute error.

    Raises:
        ValueError: the targets do not fit, or ``tolerance`` is given for classes.

    Example:
        >>> from batchensemble.predictions import Points
        >>> two = Points(np.array([[1.0], [5.0]]))
        >>> answer_losses(two, [1.5, 9.0]).tolist()
        [0.5, 4.0]
        >>> answer_losses(two, [1.5, 9.0], tolerance=1.0).tolist()
        [0.0, 1.0]
    """
    if isinstance(prediction, RegressionPrediction) and tolerance is None:
        return off_by(prediction, targets)
    return are_wrong(prediction, targets, tolerance).astype(np.float64)


def are_wrong(
    prediction: Prediction | RegressionPrediction, targets: Any, tolerance: float | None = None
) -> Bool[np.ndarray, "examples"]:
    """Return which answers are wrong.

    Args:
        prediction: prediction of classes or of numbers, one for each example.
        targets: the true classes, or the true numbers, ``[examples]``.
        tolerance: for numbers, and required there: the largest absolute error that is not wrong,
            in the targets' unit.

    Raises:
        ValueError: the targets do not fit, or ``tolerance`` is missing for numbers or given for
            classes.

    Example:
        >>> are_wrong(Prediction(np.array([[[0.8, 0.2]], [[0.6, 0.4]]])), [0, 1]).tolist()
        [False, True]
    """
    if isinstance(prediction, RegressionPrediction):
        if tolerance is None:
            raise ValueError(
                "tolerance is missing: a predicted number is never exactly right; give the largest "
                "acceptable error, in the unit of the targets"
            )
        return off_by(prediction, targets) > positive_number("tolerance", tolerance)
    labels = checked_labels(prediction, targets)
    if tolerance is not None:
        raise ValueError(
            f"tolerance is for numbers, not for classes; leave it out, got {tolerance}"
        )
    wrong: Bool[np.ndarray, "examples"] = prediction.labels != labels
    return wrong


def off_by(prediction: RegressionPrediction, targets: Any) -> ExampleScores:
    """Return the absolute errors of predicted numbers, in the targets' unit.

    Raises:
        ValueError: there are several targets for each example, no examples, or the targets do not
            fit or are not all known.
    """
    mean = one_number_each(prediction)
    found = finite_numbers("targets", targets, len(mean))
    if not len(found):
        raise ValueError("there must be at least one example to score, got none")
    return np.abs(found - finite_numbers("the predicted numbers", mean, len(mean)))
