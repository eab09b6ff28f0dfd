"""Checks of the true classes that a prediction is scored against."""

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
        TypeError: the labels are not whole numbers.
        ValueError: the lengths differ, there are none, or a label is not among the classes.
    """
    return labels_among(labels, *class_probs(prediction).shape)


def class_probs(prediction: Prediction) -> Float[np.ndarray, "examples classes"]:
    """Return the probabilities of a prediction with one class for each example.

    Raises:
        TypeError: it is a prediction of numbers, or a multi-label prediction.
        ValueError: it has a class for each token or pixel.
    """
    if not isinstance(prediction, Prediction):
        raise TypeError(f"the prediction must be of classes, got {type(prediction).__name__}")
    if prediction.member_probs.ndim != 3:
        raise ValueError(
            "the prediction must have one class for each example, got the shape "
            f"{list(prediction.member_probs.shape)}; batchensemble.metrics.entries turns tokens "
            "and pixels into examples"
        )
    return prediction.probs


def labels_among(labels: Any, examples: int, classes: int) -> Labels:
    """Return the true classes as an array of int64, after checking them.

    Args:
        labels: class numbers, ``[examples]`` or ``[examples, 1]``, in any form that
            :func:`~batchensemble.losses.targets.whole_labels` takes.
        examples: expected number of examples.
        classes: number of classes.

    Raises:
        TypeError: the labels are not whole numbers.
        ValueError: the lengths differ, there are none, or a label is not among the classes.

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
            f"labels must have the shape [{examples}], one for each example, got "
            f"{list(labels.shape)}{cure}"
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"labels must be from 0 to {classes - 1}, got {labels.min()} to {labels.max()}"
        )
    return labels
