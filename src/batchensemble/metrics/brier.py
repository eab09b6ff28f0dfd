"""Decomposition of the Brier score into reliability, resolution and uncertainty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from batchensemble.metrics.calibration.reliability import BINS, Binning, bins_of, edges_of
from batchensemble.metrics.labels import checked_labels
from batchensemble.predictions import Prediction


@dataclass(frozen=True)
class BrierParts:
    """Murphy's decomposition, ``brier = reliability - resolution + uncertainty + remainder``.

    Attributes:
        reliability: mean squared gap between a bin's probability and the frequency of the class;
            0 is perfect, and recalibration can remove it.
        resolution: mean squared distance of the bins' frequencies from the overall one; higher is
            better.
        uncertainty: variance of the labels, which no model changes.
        remainder: what binning loses: the variance of the probabilities within the bins, minus
            twice their covariance with the labels there. 0 if each bin holds one probability only.
    """

    reliability: float
    resolution: float
    uncertainty: float
    remainder: float

    @property
    def brier(self) -> float:
        """The score itself, the one of :func:`~batchensemble.metrics.score`."""
        return self.reliability - self.resolution + self.uncertainty + self.remainder


def brier_parts(
    prediction: Prediction, labels: Any, bins: int = BINS, *, binning: Binning = "width"
) -> BrierParts:
    """Return the parts of the Brier score, squared probabilities summed over the classes.

    Each class is a forecast of its own (Murphy 1973). The identity holds for forecasts with few
    distinct values; binning others breaks it, and the rest is returned as the remainder (Stephenson
    et al. 2008), so that the four terms give the score exactly.

    Args:
        prediction: the prediction of any ensemble.
        labels: the true class numbers, ``[examples]``.
        bins: number of bins for each class, 15 by default.
        binning: ``"width"`` (the default) or ``"mass"``, see
            :func:`~batchensemble.metrics.reliability`.

    Raises:
        TypeError: ``bins`` is not a whole number.
        ValueError: an argument is out of range, or the labels do not fit the prediction.

    Example:
        >>> sure = Prediction(np.array([[[0.75, 0.25]], [[0.25, 0.75]]]))
        >>> brier_parts(sure, np.array([0, 1]))
        BrierParts(reliability=0.125, resolution=0.5, uncertainty=0.5, remainder=0.0)
    """
    labels = checked_labels(prediction, labels)
    parts = np.zeros(4)
    for number, probs in enumerate(np.ascontiguousarray(prediction.probs.T)):
        parts += _of_class(probs, labels == number, edges_of(probs, bins, binning))
    return BrierParts(*parts.tolist())


def _of_class(probs: np.ndarray, true: np.ndarray, edges: np.ndarray) -> np.ndarray:
    bins, examples = len(edges) - 1, len(probs)
    index = bins_of(probs, edges)
    counts = np.maximum(np.bincount(index, minlength=bins), 1)
    shares = counts / examples
    forecast = np.bincount(index, weights=probs, minlength=bins) / counts
    frequency = np.bincount(index, weights=true, minlength=bins) / counts
    shares[np.bincount(index, minlength=bins) == 0] = 0
    base = true.mean()
    within = probs - forecast[index]
    covariance = within @ (true - frequency[index])
    return np.array(
        [
            (shares * (forecast - frequency) ** 2).sum(),
            (shares * (frequency - base) ** 2).sum(),
            base * (1 - base),
            (within @ within - 2 * covariance) / examples,
        ]
    )
