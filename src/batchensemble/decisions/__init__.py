"""From uncertainty to decisions: thresholds, prediction sets and intervals, detection."""

from __future__ import annotations

from batchensemble.decisions.conformal.intervals import ConformalIntervals, Intervals
from batchensemble.decisions.conformal.sets import ConformalSets, PredictionSets
from batchensemble.decisions.detection import Detection, detect_errors, detect_shift
from batchensemble.decisions.selective import RiskCoverage, risk_coverage
from batchensemble.decisions.shift import Shifted, under_shift
from batchensemble.decisions.threshold import Threshold, threshold_for

__all__ = [
    "ConformalIntervals",
    "ConformalSets",
    "Detection",
    "Intervals",
    "PredictionSets",
    "RiskCoverage",
    "Shifted",
    "Threshold",
    "detect_errors",
    "detect_shift",
    "risk_coverage",
    "threshold_for",
    "under_shift",
]
