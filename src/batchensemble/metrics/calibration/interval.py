"""Bootstrap interval of the expected calibration error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from batchensemble.core.arguments import between, whole_number
from batchensemble.metrics.calibration.reliability import (
    BINS,
    Binning,
    bins_of,
    edges_of,
    top_label,
)
from batchensemble.predictions import Prediction

BIN_BLOCK = 1 << 18  # numbers in memory at a time


@dataclass(frozen=True)
class Interval:
    """A number with its interval.

    Attributes:
        value: the estimate.
        low, high: ends of the interval.
        level: how often such an interval contains the true number, 0 to 1.
    """

    value: float
    low: float
    high: float
    level: float


def ece_interval(
    prediction: Prediction,
    labels: Any,
    bins: int = BINS,
    *,
    binning: Binning = "width",
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Return the expected calibration error with a bootstrap interval over the examples.

    The examples are resampled with replacement, in the bins of the original ones. The interval is
    the basic one, ``2 ECE - quantile`` (Davison and Hinkley 1997), as in Kumar et al. 2019: the
    noise that lifts the ECE above the true error lifts its resamples once more, so that a
    percentile interval would be too high by twice the bias. It is cut off at 0.

    A resample is drawn by cells, a cell being the correct or the wrong examples of a bin. The
    counts are multinomial, as in drawing one by one; the sum of the confidences of a cell is drawn
    from a normal distribution with its mean and variance. So a resample takes the same time for any
    number of examples.

    Args:
        prediction: the prediction of any ensemble.
        labels: the true class numbers, ``[examples]``.
        bins: number of bins, 15 by default.
        binning: ``"width"`` (the default) or ``"mass"``, see
            :func:`~batchensemble.metrics.reliability`.
        level: level of the interval, 0.95 by default.
        resamples: number of bootstrap resamples, 2,000 by default.
        seed: seed of the random draws, 0 by default.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of range, or the labels do not fit the prediction.

    Example:
        >>> sure = Prediction(np.tile([[[0.75, 0.25]]], (100, 1, 1)))
        >>> found = ece_interval(sure, np.repeat([0, 1], 50))
        >>> found.value, 0.1 < found.low < 0.25 < found.high < 0.4
        (0.25, True)
    """
    resamples, seed = whole_number("resamples", resamples), whole_number("seed", seed, at_least=0)
    level = between("level", level, 0, 1)
    confidence, right = top_label(prediction, labels)
    edges = edges_of(confidence, bins, binning)
    bins = len(edges) - 1
    cell = bins_of(confidence, edges) * 2 + right
    counts = np.bincount(cell, minlength=2 * bins)
    full = np.maximum(counts, 1)
    mean = np.bincount(cell, weights=confidence, minlength=2 * bins) / full
    squares = np.bincount(cell, weights=(confidence - mean[cell]) ** 2, minlength=2 * bins)
    deviation = np.sqrt(squares / full)
    is_right = np.tile([0.0, 1.0], bins)
    examples = len(confidence)

    def errors(drawn: np.ndarray, noise: np.ndarray | float = 0.0) -> Any:
        gaps = drawn * (mean - is_right) + np.sqrt(drawn) * deviation * noise
        return np.abs(gaps.reshape(*drawn.shape[:-1], bins, 2).sum(-1)).sum(-1) / examples

    generator = np.random.default_rng(seed)
    found: list[np.ndarray] = []
    step = max(1, BIN_BLOCK // (2 * bins))
    for start in range(0, resamples, step):
        several = min(step, resamples - start)
        drawn = generator.multinomial(examples, counts / examples, size=several)
        found.append(errors(drawn, generator.standard_normal(drawn.shape)))
    value = float(errors(counts))
    tails = np.quantile(np.concatenate(found), [(1 + level) / 2, (1 - level) / 2])
    low, high = np.clip(2 * value - tails, 0, 1).tolist()
    return Interval(value, low, high, level)
