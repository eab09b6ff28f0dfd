"""The figures, one file per question; each function takes matplotlib axes and returns them."""

from __future__ import annotations

from matplotlib.figure import Figure

from batchensemble.comparison.planes import Line
from batchensemble.comparison.results import Comparison
from batchensemble.metrics.confusion_matrix import MOST_SHOWN
from batchensemble.report.plots.calibration import reliability_diagram, reliability_panels
from batchensemble.report.plots.columns import column_effects, column_importances
from batchensemble.report.plots.confusion import confusion_panels
from batchensemble.report.plots.decisions import (
    detection_roc,
    risk_coverage_curves,
    set_sizes,
    shift_curves,
)
from batchensemble.report.plots.members import member_curves
from batchensemble.report.plots.plane import drawable, members, plane
from batchensemble.report.plots.ranks import mean_ranks
from batchensemble.report.plots.regression import coverage, curve, error_by_deviation
from batchensemble.report.plots.saving import save_all, save_as
from batchensemble.report.plots.style import figure_of, style_of
from batchensemble.report.plots.training import accuracy_time, error_time, loss_curves
from batchensemble.report.plots.uncertainty import epistemic_histogram

__all__ = [
    "accuracy_time",
    "column_effects",
    "column_importances",
    "confusion_panels",
    "coverage",
    "curve",
    "detection_roc",
    "draw_all",
    "epistemic_histogram",
    "error_by_deviation",
    "error_time",
    "figure_of",
    "loss_curves",
    "mean_ranks",
    "member_curves",
    "members",
    "plane",
    "reliability_diagram",
    "reliability_panels",
    "risk_coverage_curves",
    "save_all",
    "save_as",
    "set_sizes",
    "shift_curves",
    "style_of",
]


def draw_all(comparison: Comparison) -> dict[str, Figure]:
    """Return every figure that a comparison has, by name, in the order of the report.

    Figures show each method's first seed, except for accuracy or error against time. Without a
    finished run there are none. For classes, ``plane`` and ``members`` need two features that vary,
    ``member_curves`` and ``epistemic_histogram`` a method with several members; for numbers,
    ``curve`` needs a single feature.

    Example:
        >>> from batchensemble.comparison.compare import Settings, compare
        >>> from batchensemble.data.datasets import load_dataset
        >>> quick = Settings(methods=("single",), epochs=1)
        >>> list(draw_all(compare(load_dataset("breast_cancer"), quick)))[:2]
        ['confusion', 'reliability']
    """
    if not comparison.methods:
        return {}
    columns = _of_columns(comparison)
    if comparison.data.task == "regression":
        return {**columns, **_of_numbers(comparison)}
    figures = columns
    if comparison.data.classes <= MOST_SHOWN:
        figures["confusion"] = figure_of(confusion_panels(comparison)[0])
    figures["reliability"] = figure_of(reliability_panels(comparison)[0])
    if drawable(comparison.plane):
        figures["plane"] = figure_of(plane(comparison)[0])
        figures["members"] = figure_of(members(comparison)[0])
    if any(run.prediction.members > 1 for run in comparison.runs):
        figures["member_curves"] = figure_of(member_curves(comparison)[0])
        figures["epistemic_histogram"] = figure_of(epistemic_histogram(comparison))
    figures["loss_curves"] = figure_of(loss_curves(comparison)[0])
    figures["accuracy_time"] = figure_of(accuracy_time(comparison))
    return figures


def _of_columns(comparison: Comparison) -> dict[str, Figure]:
    if comparison.dependence is None:
        return {}
    return {
        "column_importances": figure_of(column_importances(comparison)),
        "column_effects": figure_of(column_effects(comparison)[0]),
    }


def _of_numbers(comparison: Comparison) -> dict[str, Figure]:
    figures = {}
    if isinstance(comparison.plane, Line):
        figures["curve"] = figure_of(curve(comparison)[0])
    return {
        **figures,
        "coverage": figure_of(coverage(comparison)),
        "error_by_deviation": figure_of(error_by_deviation(comparison)),
        "loss_curves": figure_of(loss_curves(comparison)[0]),
        "error_time": figure_of(error_time(comparison)),
    }
