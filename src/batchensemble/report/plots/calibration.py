"""Reliability diagrams: is accuracy 90 % where the confidence is 90 %?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from scipy.stats import norm

from batchensemble.comparison.results import Comparison
from batchensemble.core.arguments import one_of
from batchensemble.ensembles.methods import METHODS
from batchensemble.metrics import Reliability
from batchensemble.metrics import reliability as bins_of
from batchensemble.metrics.bootstrap import LEVEL
from batchensemble.report.plots.style import (
    PANEL,
    SOFT,
    MethodStyle,
    drawing,
    figure_of,
    pale,
    panels_of,
    single_panel,
    style_of,
)


@drawing()
def reliability_panels(comparison: Comparison, axes: Any = None) -> list[Axes]:
    """Draw accuracy against confidence for each method, and the number of examples in each bin.

    The bins are those of the expected calibration error; whiskers are 95 % Wilson intervals.

    Args:
        comparison: with at least one finished run.
        axes: two rows of axes, one column for each method; by default those of a new figure.

    Returns:
        The axes drawn into, row by row.
    """
    labels = comparison.data.held_out[1]
    bins = {m: bins_of(comparison.of(m)[0].classes, labels) for m in comparison.methods}
    low = _lowest(list(bins.values()))
    diagrams, histograms = panels_of(
        axes, len(bins), 4.4, rows=2, sharex=True, sharey="row", height_ratios=[2.6, 1]
    )
    for diagram, histogram, (method, found) in zip(diagrams, histograms, bins.items(), strict=True):
        _diagram(diagram, found, style_of(method))
        _histogram(histogram, found, style_of(method))
    diagrams[0].set(ylabel="accuracy", xlim=(low, 1 + 0.03 * (1 - low)), ylim=(0, 1.03))
    most = max(found.counts.max() for found in bins.values())
    histograms[0].set(ylabel="examples", yscale="log", ylim=(0.5, 2 * most))
    name = "confidence (probability of the predicted class)"
    figure_of(diagrams[0]).supxlabel(name, fontsize=9.5)
    return [*diagrams, *histograms]


@drawing()
def reliability_diagram(
    found: Reliability, ax: Axes | None = None, *, method: str = "batch", title: str | None = None
) -> Axes:
    """Draw accuracy against confidence of one prediction, such as before and after calibration.

    Args:
        found: the bins, from :func:`batchensemble.metrics.reliability`.
        ax: axes to draw into; by default those of a new figure.
        method: the method whose colour and marker to use, a name of
            :data:`batchensemble.ensembles.METHODS`.
        title: title of the axes; by default the method's title.

    Returns:
        The axes drawn into.

    Raises:
        ValueError: there is no such method.

    Example:
        >>> from batchensemble import Prediction
        >>> sure = Prediction(np.array([[[0.75, 0.25]], [[0.25, 0.75]]]))
        >>> reliability_diagram(bins_of(sure, np.array([0, 0])), title="before").get_title()
        'before'
    """
    style = style_of(one_of("method", method, METHODS))
    ax = single_panel(ax, PANEL + 0.9, PANEL + 0.9)
    _diagram(ax, found, style if title is None else replace(style, name=title))
    low = _lowest([found])
    ax.set(xlim=(low, 1 + 0.03 * (1 - low)), ylim=(0, 1.03))
    ax.set(xlabel="confidence", ylabel="accuracy")
    return ax


def _lowest(all_bins: list[Reliability]) -> float:
    """Return the left edge of the first bin that any method fills."""
    return float(min(found.edges[found.counts.nonzero()[0][0]] for found in all_bins))


def _diagram(ax: Axes, found: Reliability, style: MethodStyle) -> None:
    full = found.counts > 0
    confidence, accuracy = found.confidence[full], found.accuracy[full]
    ax.bar(
        found.edges[:-1][full],
        accuracy,
        width=np.diff(found.edges)[full],
        align="edge",
        color=pale(style.colour, 0.22),
        edgecolor="white",
        linewidth=0.8,
    )
    ax.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle=(0, (4, 3)), zorder=2)
    below, above = wilson(accuracy, found.counts[full])
    ax.errorbar(
        confidence,
        accuracy,
        yerr=np.maximum([accuracy - below, above - accuracy], 0),
        fmt=style.marker,
        color=style.colour,
        markersize=5,
        markeredgecolor="white",
        markeredgewidth=0.6,
        elinewidth=1.1,
        zorder=3,
        clip_on=False,
    )
    ax.set_title(style.name, pad=21)
    ax.text(0.5, 1.03, f"ECE {found.ece:.4f}", transform=ax.transAxes, ha="center")


def _histogram(ax: Axes, found: Reliability, style: MethodStyle) -> None:
    ax.bar(
        found.edges[:-1],
        found.counts,
        width=np.diff(found.edges),
        align="edge",
        color=style.colour,
        edgecolor="white",
        linewidth=0.8,
    )


def wilson(share: np.ndarray, examples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of the 95 % interval of a share (Wilson 1927).

    Args:
        share: observed shares, 0 to 1, ``[bins]``.
        examples: numbers of examples, at least 1 each, ``[bins]``.

    Example:
        >>> low, high = wilson(np.array([1.0]), np.array([10]))
        >>> round(float(low[0]), 3), round(float(high[0]), 3)
        (0.722, 1.0)
    """
    z2 = norm.ppf((1 + LEVEL) / 2) ** 2 / examples
    middle = (share + z2 / 2) / (1 + z2)
    half = np.sqrt(z2 * (share * (1 - share) + z2 / 4)) / (1 + z2)
    return middle - half, middle + half
