"""The smooth calibration error: a kernel instead of bins, without parameters to choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.fft import dct, idct
from scipy.optimize import brentq

from batchensemble.metrics.calibration.reliability import PerExample, top_label
from batchensemble.predictions import Prediction

SMOOTH_GRID = 1 << 13  # steps from 0 to 1; errors below 1 / GRID are rounded to the grid
SEARCH_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Smooth:
    """The smooth calibration error, and the width of the kernel that it is measured with.

    Attributes:
        ece: smooth calibration error, 0 to 1.
        bandwidth: bandwidth of the kernel, in units of the confidence; the same number, except for
            rounding.
    """

    ece: float
    bandwidth: float


def smooth_ece(prediction: Prediction, labels: Any) -> Smooth:
    """Return the smooth calibration error of the confidence.

    With residuals ``right - confidence`` and a Gaussian kernel K of bandwidth σ, reflected at 0 and
    1, ``smECE_σ = ∫ |mean_i K_σ(t, confidence_i) residual_i| dt``. It falls as σ grows, and the
    smooth ECE is the number at which both are equal (Błasiok and Nakkiran 2023, arXiv 2309.12236):
    unlike with bins, a small change of the confidences is a small change of the error.

    The residuals are spread onto a grid of 8,192 steps, each onto its two neighbours by distance,
    and smoothed there in the cosine basis, in which the reflected kernel is diagonal.

    Args:
        prediction: the prediction of any ensemble.
        labels: the true class numbers, ``[examples]``.

    Raises:
        ValueError: the labels do not fit the prediction.

    Example:
        >>> sure = Prediction(np.array([[[0.75, 0.25]], [[0.25, 0.75]]]))
        >>> round(smooth_ece(sure, np.array([0, 0])).ece, 3)
        0.25
    """
    confidence, right = top_label(prediction, labels)
    coefficients = dct(_on_grid(confidence, right - confidence), type=1)

    def excess(width: float) -> float:
        return _smoothed(coefficients, width) - width

    # A residual is at most 1, and a kernel adds nothing: at 2 the error is below the width.
    width = 0.0 if excess(0.0) <= 0 else float(brentq(excess, 0.0, 2.0, xtol=SEARCH_TOLERANCE))
    return Smooth(_smoothed(coefficients, width), width)


def _on_grid(confidence: PerExample, residual: PerExample) -> np.ndarray:
    """Return the mean residual as mass on the grid, each shared out to its two neighbours."""
    place = np.clip(confidence, 0, 1) * SMOOTH_GRID
    below = np.minimum(place.astype(np.int64), SMOOTH_GRID - 1)
    place -= below
    upper = np.bincount(below, weights=residual * place, minlength=SMOOTH_GRID)
    whole = np.bincount(below, weights=residual, minlength=SMOOTH_GRID)
    mass = np.zeros(SMOOTH_GRID + 1)
    mass[:-1] += whole - upper
    mass[1:] += upper
    # Mass at an end stands there once, where the cosine basis counts inner points twice.
    mass[[0, -1]] *= 2
    return mass / len(confidence)


def _smoothed(coefficients: np.ndarray, width: float) -> float:
    """Return the mean absolute residual after a reflected Gaussian of this width."""
    decay = np.exp(-((np.pi * width * np.arange(SMOOTH_GRID + 1)) ** 2) / 2)
    mass = np.abs(idct(coefficients * decay, type=1))
    return float(mass.sum() - (mass[0] + mass[-1]) / 2)
