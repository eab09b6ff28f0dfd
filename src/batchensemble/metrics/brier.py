"""The Brier score in its parts: is it wrong for want of calibration, or for want of knowledge?"""

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
        reliability: mean squared gap between a bin's probability and how often the class is true;
            0 is perfect, and recalibration can take it away.
        resolution: mean squared distance of the bins' frequencies from that of all examples; the
            higher, the more the predictions tell apart.
        uncertainty: variance of the labels, which no model changes.
        remainder: what the bins hide: the variance of the probabilities within the bins, less twice
            their covariance with the truth there. 0 where each bin holds one probability only.
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

    Each class is a forecast of its own (Murphy 1973). His identity is of forecasts that take few
    values; binning others breaks it, and what is left over is given as the remainder (Stephenson et
    al. 2008), so that the four add up to the score exactly.

    Args:
        prediction: of any ensemble.
        labels: the true class numbers, ``[examples]``.
        bins: how many, of each class.
        binning: as in :func:`~batchensemble.metrics.reliability`.

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
