"""The true classes that a prediction is scored against."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Int

from batchensemble.predictions import Prediction

Labels = Int[np.ndarray, "examples"]


def checked_labels(prediction: Prediction, labels: Any) -> Labels:
    """Return the true classes as an array.

    Raises:
        ValueError: lengths differ, there are none, or a label is not among the classes.
    """
    labels = np.asarray(labels)
    if labels.shape != (len(prediction),):
        raise ValueError(
            f"labels must have the shape [{len(prediction)}], one an example, got "
            f"{list(labels.shape)}"
        )
    classes = prediction.probs.shape[1]
    if len(labels) == 0:
        raise ValueError("there must be at least one example to score, got none")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"labels must be from 0 to {classes - 1}, got {labels.min()} to {labels.max()}"
        )
    return labels
