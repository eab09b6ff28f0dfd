"""Scores of a prediction: is it right, is it calibrated, do the members differ."""

from __future__ import annotations

from batchensemble.metrics.labels import Labels, checked_labels
from batchensemble.metrics.reliability import BINS, Reliability, reliability
from batchensemble.metrics.scores import Scores, disagreement, evaluate, score

__all__ = [
    "BINS",
    "Labels",
    "Reliability",
    "Scores",
    "checked_labels",
    "disagreement",
    "evaluate",
    "reliability",
    "score",
]
