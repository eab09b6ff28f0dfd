"""The figures, one file a question."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from batchensemble.compare import Comparison
from batchensemble.planes import Line
from batchensemble.plots.calibration import reliability, reliability_diagram
from batchensemble.plots.decisions import (
    detection_roc,
    risk_coverage,
    set_sizes,
    shift_curves,
)
from batchensemble.plots.plane import drawable, members, plane
from batchensemble.plots.regression import coverage, curve, error_by_deviation
from batchensemble.plots.saving import save_all
from batchensemble.plots.style import METHOD_STYLES
from batchensemble.plots.training import accuracy_time, error_time, loss_curves
from batchensemble.plots.uncertainty import epistemic_histogram

__all__ = [
    "METHOD_STYLES",
    "accuracy_time",
    "coverage",
    "curve",
    "detection_roc",
    "draw_all",
    "epistemic_histogram",
    "error_by_deviation",
    "error_time",
    "loss_curves",
    "members",
    "plane",
    "reliability",
    "reliability_diagram",
    "risk_coverage",
    "save_all",
    "set_sizes",
    "shift_curves",
]


def draw_all(comparison: Comparison) -> dict[str, Figure]:
    """Return every figure that the comparison allows, by name, in the order of a report.

    Figures show each method's first seed, except for accuracy or error against time. Without a
    finished run there are none. Of classes, ``plane`` and ``members`` need two features that vary,
    ``epistemic_histogram`` a method with more than one member; of numbers, ``curve`` needs one
    feature.

    Example:
        >>> from batchensemble.compare import Settings, compare
        >>> from batchensemble.data import load
        >>> quick = Settings(methods=("single",), epochs=1)
        >>> list(draw_all(compare(load("breast_cancer"), quick)))[:2]
        ['reliability', 'plane']
    """
    if not comparison.methods:
        return {}
    if comparison.data.task == "regression":
        return _of_numbers(comparison)
    figures = {"reliability": reliability(comparison)}
    if drawable(comparison.plane):
        figures["plane"] = plane(comparison)
        figures["members"] = members(comparison)
    if any(run.prediction.members > 1 for run in comparison.runs):
        figures["epistemic_histogram"] = _figure(epistemic_histogram(comparison))
    figures["loss_curves"] = loss_curves(comparison)
    figures["accuracy_time"] = _figure(accuracy_time(comparison))
    return figures


def _of_numbers(comparison: Comparison) -> dict[str, Figure]:
    figures = {}
    if isinstance(comparison.plane, Line):
        figures["curve"] = curve(comparison)
    return {
        **figures,
        "coverage": _figure(coverage(comparison)),
        "error_by_deviation": _figure(error_by_deviation(comparison)),
        "loss_curves": loss_curves(comparison),
        "error_time": _figure(error_time(comparison)),
    }


def _figure(ax: Axes) -> Figure:
    assert isinstance(ax.figure, Figure)
    return ax.figure
