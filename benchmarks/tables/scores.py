"""What a run is scored by: the same arithmetic for every method, on probabilities or quantiles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm
from sklearn.metrics import log_loss, roc_auc_score

from batchensemble.metrics import reliability
from batchensemble.predictions import Prediction

LEVELS = np.arange(1, 100) / 100
COVERAGE = 0.9
LEAST = 1e-6  # probability that a method is taken to give; forests give 0


@dataclass(frozen=True)
class Numbers:
    """What a method says of numbers.

    Attributes:
        mean: of each row.
        quantiles: at :data:`LEVELS`, ``[rows, levels]``.
        interval: lower and upper ends at :data:`COVERAGE`, ``[rows, 2]``.
    """

    mean: np.ndarray
    quantiles: np.ndarray
    interval: np.ndarray

    @classmethod
    def normal(cls, mean: np.ndarray, deviation: float) -> Numbers:
        """Return a normal around each point, with one deviation for all rows."""
        ends = mean[:, None] + deviation * norm.ppf([0.5 - COVERAGE / 2, 0.5 + COVERAGE / 2])
        return cls(mean, mean[:, None] + deviation * norm.ppf(LEVELS), ends)


def of_classes(probs: np.ndarray, labels: np.ndarray) -> dict[str, float | str]:
    """Return the scores of probabilities ``[rows, classes]`` and class numbers ``[rows]``.

    ``correct`` tells of each row, as hexadecimal digits, whether it was classified correctly; so
    two methods can be compared row by row.
    """
    probs = np.clip(probs.astype(np.float64), LEAST, 1)
    probs /= probs.sum(1, keepdims=True)
    count = probs.shape[1]
    right = probs.argmax(1) == labels
    present = np.unique(labels)
    if count == 2:
        auc = roc_auc_score(labels, probs[:, 1]) if len(present) == 2 else np.nan
    else:
        each = [roc_auc_score(labels == index, probs[:, index]) for index in present]
        auc = np.mean(each) if len(present) > 1 else np.nan
    return {
        "nll": float(log_loss(labels, probs, labels=np.arange(count))),
        "brier": float(((probs - np.eye(count)[labels]) ** 2).sum(1).mean()),
        "accuracy": float(right.mean()),
        "auc": float(auc),
        "ece": float(reliability(Prediction(probs[:, None]), labels).ece),
        "correct": np.packbits(right).tobytes().hex(),
    }


def of_numbers(said: Numbers, targets: np.ndarray) -> dict[str, float | str]:
    """Return the scores of numbers, in the unit of the targets.

    The CRPS is twice the mean pinball loss over the quantiles at 1 % to 99 %.
    """
    short = targets[:, None] - said.quantiles
    pinball = np.maximum(LEVELS * short, (LEVELS - 1) * short)
    inside = (said.interval[:, 0] <= targets) & (targets <= said.interval[:, 1])
    return {
        "rmse": float(np.sqrt(((said.mean - targets) ** 2).mean())),
        "crps": float(2 * pinball.mean()),
        "coverage": float(inside.mean()),
        "width": float((said.interval[:, 1] - said.interval[:, 0]).mean()),
    }
