"""The true classes that a prediction is scored against."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from batchensemble.losses.targets import ONE_HOT, whole_labels
from batchensemble.predictions import Prediction

Labels = Int[np.ndarray, "examples"]


def checked_labels(prediction: Prediction, labels: Any) -> Labels:
    """Return the true classes as an array.

    Raises:
        TypeError: they are no whole numbers.
        ValueError: lengths differ, there are none, or a label is not among the classes.
    """
    return labels_among(labels, *class_probs(prediction).shape)


def class_probs(prediction: Prediction) -> Float[np.ndarray, "examples classes"]:
    """Return the probabilities of a prediction that has one class an example.

    Raises:
        TypeError: it is one of numbers, or of labels that are there or not.
        ValueError: it has a class for each token or pixel.
    """
    if not isinstance(prediction, Prediction):
        raise TypeError(f"the prediction must be one of classes, got {type(prediction).__name__}")
    if prediction.member_probs.ndim != 3:
        raise ValueError(
            "the prediction must have one class an example, got the shape "
            f"{list(prediction.member_probs.shape)}; batchensemble.metrics.scores.entries takes "
            "tokens and pixels as examples"
        )
    return prediction.probs


def labels_among(labels: Any, examples: int, classes: int) -> Labels:
    """Return the true classes of so many examples as an array of int64.

    Args:
        labels: as :func:`~batchensemble.losses.targets.whole_labels` takes them, ``[examples]`` or
            a column ``[examples, 1]``.
        examples: how many there are.
        classes: how many there are.

    Raises:
        TypeError: they are no whole numbers.
        ValueError: lengths differ, there are none, or a label is not among the classes.

    Example:
        >>> labels_among([0, 3], examples=2, classes=3)
        Traceback (most recent call last):
        ValueError: labels must be from 0 to 2, got 0 to 3
    """
    if np.size(labels) == examples == 0:
        raise ValueError("there must be at least one example to score, got none")
    labels = whole_labels(labels)
    if labels.shape == (examples, 1):
        labels = labels[:, 0]
    if labels.shape != (examples,):
        cure = f"; {ONE_HOT}" if labels.shape == (examples, classes) else ""
        raise ValueError(
            f"labels must have the shape [{examples}], one an example, got {list(labels.shape)}"
            f"{cure}"
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"labels must be from 0 to {classes - 1}, got {labels.min()} to {labels.max()}"
        )
    return labels
