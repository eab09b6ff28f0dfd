"""Scores of a prediction: is it right, is it calibrated, do the members differ."""

from __future__ import annotations

from batchensemble.metrics.labels import Labels, checked_labels
from batchensemble.metrics.multilabel import score_labels
from batchensemble.metrics.regression import (
    IntervalCalibration,
    checked_numbers,
    crps,
    interval_calibration,
    pit,
    score_numbers,
)
from batchensemble.metrics.reliability import BINS, Reliability, reliability
from batchensemble.metrics.scores import disagreement, entries, evaluate, example_losses, score
from batchensemble.metrics.values import Scores

__all__ = [
    "BINS",
    "IntervalCalibration",
    "Labels",
    "Reliability",
    "Scores",
    "checked_labels",
    "checked_numbers",
    "crps",
    "disagreement",
    "entries",
    "evaluate",
    "example_losses",
    "interval_calibration",
    "pit",
    "reliability",
    "score",
    "score_labels",
    "score_numbers",
]
