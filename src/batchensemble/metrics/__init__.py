"""Metrics of a prediction: scores, calibration, and diversity of the members."""

from __future__ import annotations

from batchensemble.metrics.brier import BrierParts, brier_parts
from batchensemble.metrics.calibration.classwise import Classwise, classwise, top_label_by_class
from batchensemble.metrics.calibration.interval import Interval, ece_interval
from batchensemble.metrics.calibration.reliability import BINS, Binning, Reliability, reliability
from batchensemble.metrics.calibration.smooth import Smooth, smooth_ece
from batchensemble.metrics.confusion_matrix import Confusion, confusion
from batchensemble.metrics.constant import ConstantNumber
from batchensemble.metrics.discrimination import average_precision, class_ranks, roc_auc
from batchensemble.metrics.importance import (
    ColumnEffect,
    ColumnImportance,
    column_effect,
    column_importance,
)
from batchensemble.metrics.labels import Labels, checked_labels
from batchensemble.metrics.losses_by_example import example_losses, losses_by_example
from batchensemble.metrics.members.diversity import Diversity, disagreement, diversity, one_class
from batchensemble.metrics.members.gain import ShareOfGain, share_of_gain
from batchensemble.metrics.members.member_curve import MemberCurve, by_members, effective_members
from batchensemble.metrics.members.one_model import OneModel, is_one_model
from batchensemble.metrics.multilabel import score_labels
from batchensemble.metrics.regression import (
    IntervalCalibration,
    checked_numbers,
    crps,
    interval_calibration,
    pit,
    score_numbers,
    widest_interval,
)
from batchensemble.metrics.scores import entries, evaluate, score
from batchensemble.metrics.values import Scores, only_one_class

__all__ = [
    "BINS",
    "Binning",
    "BrierParts",
    "Classwise",
    "ColumnEffect",
    "ColumnImportance",
    "Confusion",
    "ConstantNumber",
    "Diversity",
    "Interval",
    "IntervalCalibration",
    "Labels",
    "MemberCurve",
    "OneModel",
    "Reliability",
    "Scores",
    "ShareOfGain",
    "Smooth",
    "average_precision",
    "brier_parts",
    "by_members",
    "checked_labels",
    "checked_numbers",
    "class_ranks",
    "classwise",
    "column_effect",
    "column_importance",
    "confusion",
    "crps",
    "disagreement",
    "diversity",
    "ece_interval",
    "effective_members",
    "entries",
    "evaluate",
    "example_losses",
    "interval_calibration",
    "is_one_model",
    "losses_by_example",
    "one_class",
    "only_one_class",
    "pit",
    "reliability",
    "roc_auc",
    "score",
    "score_labels",
    "score_numbers",
    "share_of_gain",
    "smooth_ece",
    "top_label_by_class",
    "widest_interval",
]
