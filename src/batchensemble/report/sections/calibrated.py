"""Calibration: is the error larger than that of a calibrated network on as many examples?"""

from __future__ import annotations

from typing import Any

import numpy as np

from batchensemble.comparison.results import Comparison, Run
from batchensemble.comparison.wording import method_title
from batchensemble.metrics import BINS, interval_calibration, reliability
from batchensemble.metrics.bootstrap import LEVEL
from batchensemble.metrics.calibration.reliability import bins_of, edges_of
from batchensemble.predictions import Prediction, Quantiles
from batchensemble.report.sections.tables import Head, Table, TableRow, mean_entry

DRAWS = 500
SHOWN_LEVELS = (0.5, 0.8, 0.9, 0.95)  # nominal coverage of the intervals


def calibration_table(comparison: Comparison) -> Table:
    """Return the calibration errors or the coverage of intervals of each method."""
    numbers = comparison.data.task == "regression"
    targets = comparison.data.held_out[1]
    lines, form = [], ".1%" if numbers else ".4f"
    for method in comparison.methods:
        runs = comparison.of(method)
        found = [(_holds if numbers else _errors)(run, targets) for run in runs]
        entries = tuple(mean_entry(values, form) for values in zip(*found, strict=True))
        lines.append(TableRow(method_title(method), method, entries))
    if numbers:
        caption = "Share of the held-out targets inside intervals of the given nominal coverage."
        heads = tuple(Head(f"{level:.0%} interval") for level in SHOWN_LEVELS)
        return Table("calibration", caption, "Method", heads, tuple(lines))
    caption = (
        "Calibration errors. By chance: the ECE that a calibrated network with the same confidence "
        "stays below in 95% of the cases on as many examples."
    )
    heads = tuple(map(Head, ("ECE", "By chance", "ECE, debiased", "Largest error of a bin")))
    return Table("calibration", caption, "Method", heads, tuple(lines))


def _errors(run: Run, labels: np.ndarray) -> list[float]:
    found = reliability(run.classes, labels)
    return [found.ece, error_by_chance(run.classes), found.debiased_ece, found.mce]


def _holds(run: Run, targets: np.ndarray) -> list[float]:
    prediction: Any = run.prediction
    widest = prediction.widest if isinstance(prediction, Quantiles) else 1.0
    return [
        float(interval_calibration(prediction, targets, [level]).coverage[0])
        if level <= widest + 1e-9
        else np.nan
        for level in SHOWN_LEVELS
    ]


def error_by_chance(prediction: Prediction, *, level: float = LEVEL, seed: int = 0) -> float:
    """Return the ECE that a calibrated network with the same confidence stays below.

    Correct and wrong are drawn at random with the predicted confidence, again and again, and the
    ECE of each draw is computed (consistency resampling, Bröcker and Smith 2007).

    Args:
        prediction: class probabilities of any ensemble.
        level: how often a calibrated network stays below the number returned, 0 to 1.
        seed: seed of the random draws.

    Example:
        >>> sure = Prediction(np.full((100, 1, 2), 0.5))
        >>> 0.05 < error_by_chance(sure) < 0.15
        True
    """
    confidence = np.minimum(prediction.confidence, 1.0)
    bins = bins_of(confidence, edges_of(confidence, BINS, "width"))
    rng = np.random.default_rng(seed)
    expected = np.bincount(bins, confidence, BINS)
    errors = []
    for _ in range(DRAWS):
        right = np.bincount(bins, rng.random(len(confidence)) < confidence, BINS)
        errors.append(np.abs(expected - right).sum() / len(confidence))
    return float(np.quantile(errors, level))
