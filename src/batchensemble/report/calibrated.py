"""Is a calibration error more than that of a calibrated network on so few examples."""

from __future__ import annotations

import numpy as np

from batchensemble.metrics import BINS
from batchensemble.predictions import Prediction
from batchensemble.significance import LEVEL

DRAWS = 500


def error_by_chance(prediction: Prediction, *, level: float = LEVEL, seed: int = 0) -> float:
    """Return the calibration error that a network of this confidence stays below if calibrated.

    Right and wrong are drawn as its confidence says, again and again, and the ECE counted (Bröcker
    and Smith 2007, consistency resampling).

    Args:
        prediction: of classes.
        level: how often a calibrated network stays below.
        seed: of the draws.

    Example:
        >>> sure = Prediction(np.full((100, 1, 2), 0.5))
        >>> 0.05 < error_by_chance(sure) < 0.15
        True
    """
    confidence = np.minimum(prediction.probs.max(1), 1.0)
    edges = np.linspace(0, 1, BINS + 1)
    bins = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, BINS - 1)
    member = np.zeros((len(confidence), BINS))
    member[np.arange(len(confidence)), bins] = 1
    rng = np.random.default_rng(seed)
    errors = []
    for _ in range(DRAWS):
        right = rng.random(len(confidence)) < confidence
        errors.append(np.abs((confidence - right) @ member).sum() / len(confidence))
    return float(np.quantile(errors, level))
