"""Figures on decisions: risk against coverage, set sizes, detection, corruption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from batchensemble.core.arguments import one_of
from batchensemble.decisions.conformal.sets import PredictionSets
from batchensemble.decisions.detection import Detection
from batchensemble.decisions.selective import RiskCoverage
from batchensemble.decisions.shift import Shifted
from batchensemble.decisions.threshold import Threshold
from batchensemble.ensembles.methods import METHODS
from batchensemble.report.plots.style import (
    SOFT,
    MethodStyle,
    drawing,
    pale,
    plain,
    single_panel,
    style_of,
)

MOST_CURVE_POINTS = 2000  # of a curve; more than a figure has pixels
MEASURES = {
    "accuracy": "accuracy",
    "nll": "NLL (nats)",
    "ece": "expected calibration error",
    "total": "mean total uncertainty (nats)",
    "aleatoric": "mean aleatoric uncertainty (nats)",
    "epistemic": "mean epistemic uncertainty (nats)",
}
# The palette of Okabe and Ito, the most distinct colours first.
SPARE = [
    ("#0072B2", "s", (0, (5, 1.6))),
    ("#D55E00", "^", "solid"),
    ("#009E73", "D", (0, (5, 1.5, 1.2, 1.5))),
    ("#000000", "o", (0, (1.2, 1.2))),
    ("#CC79A7", "v", (0, (3, 1, 1, 1, 1, 1))),
]


@drawing()
def risk_coverage_curves(
    curves: Mapping[str, RiskCoverage], ax: Axes | None = None, threshold: Threshold | None = None
) -> Axes:
    """Draw risk against coverage, and pale the risk of the best possible order.

    Args:
        curves: curves by their names in the legend; names of methods get the method's style.
        ax: axes to draw into; by default those of a new figure.
        threshold: a threshold to mark with its bound; none by default.

    Raises:
        ValueError: there are no curves.
    """
    ax = single_panel(ax)
    for (name, curve), style in zip(curves.items(), _styles(curves), strict=True):
        at = _points(len(curve.risk))
        label = f"{style.name}, AURC {curve.aurc:.4f}"
        ax.plot(
            curve.coverage[at], curve.risk[at], color=style.colour, linestyle=style.line,
            label=label, gid=name,
        )  # fmt: skip
        ax.plot(
            curve.coverage[at], curve.best[at], color=pale(style.colour, 0.5), linewidth=1,
            linestyle=style.line, zorder=1, label=f"best order: {curve.best.mean():.4f}",
        )  # fmt: skip
    if threshold is not None and threshold.found:
        above = np.array([[0.0], [threshold.bound - threshold.risk]])
        ax.errorbar(
            threshold.coverage, threshold.risk, yerr=above,
            fmt="o", color=SOFT, capsize=3, clip_on=False, zorder=4,
            label=f"threshold for {100 * threshold.target:g} % with its bound",
        )  # fmt: skip
    ax.set(xlabel="coverage (share of examples answered)", ylabel="risk (mean loss of these)")
    ax.set(xlim=(0, 1), ylim=(0, None))
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.legend()
    return ax


@drawing()
def set_sizes(
    sets: PredictionSets, labels: Int[np.ndarray, "examples"] | None = None, ax: Axes | None = None
) -> Axes:
    """Draw the sizes of prediction sets, and with labels which sizes contain the true class.

    Args:
        sets: prediction sets of at least one example.
        labels: the true classes, ``[examples]``; by default only the sizes are drawn.
        ax: axes to draw into; by default those of a new figure.

    Raises:
        ValueError: there are no examples, or the labels do not fit.
    """
    if not len(sets):
        raise ValueError("there must be at least one set to draw, got none")
    ax = single_panel(ax)
    colour = style_of("batch").colour
    counts = np.bincount(sets.sizes)
    sizes = np.arange(len(counts))
    shares = counts / len(sets)
    ax.bar(sizes, shares, color=pale(colour, 0.3), width=0.8, label="all sets")
    title = f"mean size {sets.mean_size:.2f}"
    if labels is not None:
        title += f", coverage {sets.coverage(labels):.1%}, nominal {sets.confidence:.1%}"
        right = sets.contains[np.arange(len(sets)), labels]
        held = np.bincount(sets.sizes[right], minlength=len(counts)) / len(sets)
        ax.bar(sizes, held, color=colour, width=0.8, label="with the true class")
        ax.legend()
    ax.set(title=title, xlabel="classes in the set", ylabel="share of examples")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return ax


@drawing()
def detection_roc(detections: Mapping[str, Detection], ax: Axes | None = None) -> Axes:
    """Draw the ROC curve of detection by each uncertainty.

    Args:
        detections: detections by their names in the legend, as ``detect_errors`` and
            ``detect_shift`` return them.
        ax: axes to draw into; by default those of a new figure.

    Raises:
        ValueError: there is none, or none with a curve.
    """
    drawn = {name: each for name, each in detections.items() if len(each.hits)}
    reasons = {each.reason for each in detections.values() if each.reason}
    if not drawn:
        why = "; ".join(sorted(reasons)) or "none is given"
        raise ValueError(f"there is no detection to draw: {why}")
    ax = single_panel(ax, 4.6, 4.6)
    for (name, each), style in zip(drawn.items(), _styles(drawn), strict=True):
        at = _points(len(each.hits))
        ax.plot(
            each.false_alarms[at], each.hits[at], color=style.colour, linestyle=style.line,
            label=f"{style.name}, AUROC {each.auroc:.3f}", gid=name,
        )  # fmt: skip
    ax.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    ax.set(xlabel="false positive rate", ylabel="true positive rate")
    ax.set(xlim=(0, 1), ylim=(0, 1.01), aspect="equal")
    ax.legend(loc="lower right")
    return ax


@drawing()
def shift_curves(
    rows: Mapping[str, Sequence[Shifted]], measure: str = "accuracy", ax: Axes | None = None
) -> Axes:
    """Draw a score or a mean uncertainty against the strength of a corruption.

    Args:
        rows: results of ``under_shift`` by their names in the legend; names of methods get the
            method's style.
        measure: ``"accuracy"`` (the default), ``"nll"``, ``"ece"``, ``"total"``, ``"aleatoric"`` or
            ``"epistemic"``.
        ax: axes to draw into; by default those of a new figure.

    Raises:
        ValueError: there are no rows, or an unknown measure.
    """
    one_of("measure", measure, MEASURES)
    ax = single_panel(ax)
    for (name, each), style in zip(rows.items(), _styles(rows), strict=True):
        strengths = [row.strength for row in each]
        ax.plot(
            strengths, [getattr(row, measure) for row in each], color=style.colour,
            linestyle=style.line, marker=style.marker, markeredgecolor="white", markersize=6,
            label=style.name, gid=name,
        )  # fmt: skip
    corruptions = sorted({row.corruption for each in rows.values() for row in each})
    ax.set(xlabel=f"strength of the {plain(', '.join(corruptions))}", ylabel=MEASURES[measure])
    ax.legend()
    return ax


def _styles(named: Mapping[str, object]) -> list[MethodStyle]:
    """Return a style for each name: a method's own, or the next spare one."""
    if not named:
        raise ValueError("there must be at least one curve to draw, got none")
    if all(name in METHODS for name in named):
        return [style_of(name) for name in named]
    return [
        MethodStyle(plain(name), *SPARE[number % len(SPARE)]) for number, name in enumerate(named)
    ]


def _points(examples: int) -> Int[np.ndarray, "points"]:
    """Return the indices of at most as many points as a figure can show, with both ends."""
    return np.unique(
        np.linspace(0, examples - 1, min(examples, MOST_CURVE_POINTS)).round().astype(int)
    )
