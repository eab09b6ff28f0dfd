"""What each example costs a prediction, so that predictions can be compared example by example."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from batchensemble.checks import one_of
from batchensemble.metrics.labels import Labels, checked_labels
from batchensemble.metrics.scores import example_losses
from batchensemble.predictions import Prediction

Loss = Literal["nll", "brier", "error"]
UNITS = {"nll": "nats", "brier": "of the Brier score", "error": "of the error rate"}


def losses_by_example(
    prediction: Prediction, labels: Labels, score: Loss = "nll"
) -> Float[np.ndarray, "examples"]:
    """Return the loss of the members' mean on each example; the mean over them is the score.

    Args:
        prediction: of any ensemble.
        labels: the true class numbers, ``[examples]``.
        score: ``"nll"``, nats; ``"brier"``, 0 to 2; ``"error"``, 1 where the class is wrong.

    Raises:
        ValueError: the labels do not fit, or there is no such score.

    Example:
        >>> even = Prediction(np.array([[[0.5, 0.5]]]))
        >>> losses_by_example(even, np.array([1]), "brier").tolist()
        [0.5]
    """
    one_of("score", score, UNITS)
    labels = checked_labels(prediction, labels)
    if score == "nll":
        return example_losses(prediction, labels)
    if score == "error":
        return (prediction.labels != labels).astype(np.float64)
    of_truth = np.take_along_axis(prediction.probs, labels[:, None], 1)[:, 0]
    squares: Any = np.einsum("ec,ec->e", prediction.probs, prediction.probs)
    return squares - 2 * of_truth + 1
