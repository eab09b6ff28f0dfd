"""Calibration: whether predictions made with a confidence of 80% are right in 80% of the cases."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from batchensemble.metrics.labels import Labels, checked_labels
from batchensemble.predictions import Prediction

BINS = 15


@dataclass(frozen=True)
class Reliability:
    """Confidence against accuracy in bins of equal width (Guo et al. 2017, arXiv 1706.04599).

    Attributes:
        edges: ``[bins + 1]``, from 0 to 1; a bin holds its right edge, so a confidence of exactly
            1 counts.
        counts: examples in each bin.
        confidence: mean probability of the predicted class in each bin; NaN where it is empty.
        accuracy: share of right predictions in each bin; NaN where it is empty.
    """

    edges: Float[np.ndarray, "edges"]
    counts: Int[np.ndarray, "bins"]
    confidence: Float[np.ndarray, "bins"]
    accuracy: Float[np.ndarray, "bins"]

    @property
    def ece(self) -> float:
        """Expected calibration error: the mean gap of the bins, weighted by their counts."""
        full = self.counts > 0
        gaps = np.abs(self.accuracy[full] - self.confidence[full])
        return float((gaps * self.counts[full]).sum() / self.counts.sum())


def reliability(prediction: Prediction, labels: Labels, bins: int = BINS) -> Reliability:
    """Return how often the ensemble is right at each level of its confidence."""
    labels = checked_labels(prediction, labels)
    edges = np.linspace(0, 1, bins + 1)
    confidence = prediction.probs.max(1)
    right = prediction.labels == labels
    # A mean of ones may round to just above 1.
    index = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    counts = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        return Reliability(
            edges,
            counts,
            np.bincount(index, weights=confidence, minlength=bins) / counts,
            np.bincount(index, weights=right, minlength=bins) / counts,
        )
