"""Reliability: accuracy against confidence in bins, and the errors computed from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import norm

from batchensemble.core.arguments import one_of, whole_number
from batchensemble.metrics.labels import checked_labels
from batchensemble.predictions import Prediction

BINS = 15

PerExample = Float[np.ndarray, "examples"]
Binning = Literal["width", "mass"]


@dataclass(frozen=True)
class Reliability:
    """Confidence against accuracy in bins (Guo et al. 2017, arXiv 1706.04599).

    Attributes:
        edges: ``[bins + 1]``, from 0 to 1; a bin holds its right edge, so a confidence of exactly
            1 counts.
        counts: examples in each bin.
        confidence: mean probability of the predicted class in each bin; NaN where it is empty.
        accuracy: share of correct predictions in each bin; NaN where it is empty.
    """

    edges: Float[np.ndarray, "edges"]
    counts: Int[np.ndarray, "bins"]
    confidence: Float[np.ndarray, "bins"]
    accuracy: Float[np.ndarray, "bins"]

    @property
    def ece(self) -> float:
        """Expected calibration error, 0 to 1: the mean gap of the bins, weighted by their counts.

        It is biased: a perfectly calibrated model has an ECE above 0, the more the fewer examples
        a bin has. See :attr:`debiased_ece`.
        """
        gaps, shares, _ = self._full()
        return float((shares * gaps).sum())

    @property
    def mce(self) -> float:
        """Maximum calibration error, 0 to 1: the largest gap of any bin with an example."""
        gaps, _, _ = self._full()
        return float(gaps.max())

    @property
    def debiased_ece(self) -> float:
        """The ECE without its bias from noise, 0 to 1.

        Kumar et al. 2019 (arXiv 1909.10155) draw the accuracy of each bin from a normal
        distribution around the one found, with variance ``accuracy (1 - accuracy) / count``, and
        subtract the mean growth of the gaps from the ECE. That mean is the one of a folded normal
        distribution, so nothing is drawn here. The result is cut off at 0.
        """
        gaps, shares, deviations = self._full()
        ratio = np.divide(gaps, deviations, out=np.full_like(gaps, np.inf), where=deviations > 0)
        # Of a folded normal: E|gap + noise| = gap (1 - 2 Phi(-ratio)) + 2 deviation phi(ratio).
        drawn = gaps * (1 - 2 * norm.cdf(-ratio)) + 2 * deviations * norm.pdf(ratio)
        return float(max(0.0, (shares * (2 * gaps - drawn)).sum()))

    @property
    def squared(self) -> float:
        """The mean squared gap of the bins, weighted by their counts: the squared ℓ2 error."""
        gaps, shares, _ = self._full()
        return float((shares * gaps**2).sum())

    @property
    def debiased_squared(self) -> float:
        """The mean squared gap without its bias from noise; it may be below 0.

        ``Σ share (gap² - accuracy (1 - accuracy) / (count - 1))`` (Bröcker 2012; Kumar et al. 2019
        show that it needs fewer examples). A bin with one example has no estimate of its noise and
        adds its squared gap.
        """
        gaps, shares, deviations = self._full()
        counts = self.counts[self.counts > 0]
        noise = deviations**2 * counts / np.maximum(counts - 1, 1)
        return float((shares * (gaps**2 - noise)).sum())

    def _full(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return gaps, shares of the examples and deviations of the accuracy, of the full bins."""
        full = self.counts > 0
        accuracy, counts = self.accuracy[full], self.counts[full]
        gaps = np.abs(accuracy - self.confidence[full])
        return gaps, counts / counts.sum(), np.sqrt(accuracy * (1 - accuracy) / counts)


def reliability(
    prediction: Prediction, labels: Any, bins: int = BINS, *, binning: Binning = "width"
) -> Reliability:
    """Return the accuracy of the ensemble at each level of its confidence.

    Args:
        prediction: the prediction of any ensemble.
        labels: the true class numbers, ``[examples]``.
        bins: number of bins, 15 by default.
        binning: ``"width"`` (the default), bins of equal width from 0 to 1, or ``"mass"``, bins
            with equal numbers of examples (adaptive; Nguyen and O'Connor 2015); equal confidences
            are never split, so there may be fewer bins.

    Raises:
        TypeError: ``bins`` is not a whole number.
        ValueError: an argument is out of range, or the labels do not fit the prediction.

    Example:
        >>> sure = Prediction(np.array([[[0.75, 0.25]], [[0.25, 0.75]]]))
        >>> reliability(sure, np.array([0, 0])).ece
        0.25
    """
    confidence, right = top_label(prediction, labels)
    edges = edges_of(confidence, bins, binning)
    return of_bins(confidence, right, edges)


def top_label(
    prediction: Prediction, labels: Any
) -> tuple[PerExample, Bool[np.ndarray, "examples"]]:
    """Return the confidence of each example, and whether its predicted class is the true one.

    Raises:
        ValueError: the labels do not fit the prediction.
    """
    labels = checked_labels(prediction, labels)
    return prediction.confidence, prediction.labels == labels


def edges_of(confidence: PerExample, bins: int, binning: str) -> Float[np.ndarray, "edges"]:
    """Return the edges of the bins for these probabilities, from 0 to 1, ``[bins + 1]``."""
    bins = whole_number("bins", bins)
    if one_of("binning", binning, ("width", "mass")) == "width":
        return np.linspace(0, 1, bins + 1)
    last = np.ceil(np.arange(1, bins) * len(confidence) / bins).astype(int) - 1
    ordered = np.sort(confidence)
    inner = np.unique(ordered[last[last >= 0]])
    # The largest ends the last bin; probabilities of exactly 0 have the first bin for themselves.
    return np.concatenate([[0.0], inner[inner < ordered[-1]], [1.0]])


def bins_of(confidence: PerExample, edges: Float[np.ndarray, "edges"]) -> Any:
    """Return the bin of each probability, ``[examples]``."""
    # A mean of ones may round to just above 1.
    index = np.searchsorted(edges, confidence, side="left") - 1
    return np.clip(index, 0, len(edges) - 2, out=index)


def of_bins(
    confidence: PerExample, right: np.ndarray, edges: Float[np.ndarray, "edges"]
) -> Reliability:
    """Return the bins of any probabilities and of whether the events happened."""
    bins = len(edges) - 1
    index = bins_of(confidence, edges)
    counts = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        return Reliability(
            edges,
            counts,
            np.bincount(index, weights=confidence, minlength=bins) / counts,
            np.bincount(index, weights=right, minlength=bins) / counts,
        )
