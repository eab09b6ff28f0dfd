"""Epistemic uncertainty of the held-out examples."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes

from batchensemble.comparison.results import Comparison, Run
from batchensemble.report.plots.style import drawing, method_legend, single_panel, style_of

LOWEST_EPISTEMIC = 1e-8  # nats; below it differences are rounding
BINS_A_DECADE = 4


@drawing()
def epistemic_histogram(comparison: Comparison, ax: Axes | None = None) -> Axes:
    """Draw the histogram of the mutual information of class and member over held-out examples.

    Methods with one member, whose mutual information is always 0, are left out and named.

    Args:
        comparison: a comparison of classifiers with at least one finished run.
        ax: axes to draw into; by default those of a new figure.
    """
    ax = single_panel(ax)
    runs = [comparison.of(method)[0] for method in comparison.methods]
    ensembles = [run for run in runs if run.prediction.members > 1]
    left_out = [style_of(run.method).name for run in runs if run.prediction.members == 1]
    highest = math.log(comparison.data.classes)
    edges = np.geomspace(
        LOWEST_EPISTEMIC,
        highest,
        1 + math.ceil(BINS_A_DECADE * math.log10(highest / LOWEST_EPISTEMIC)),
    )
    for run in ensembles:
        _outline(ax, run, edges)
    ax.set(xscale="log", xlim=(LOWEST_EPISTEMIC, highest), ylabel="share of the held-out examples")
    ax.set_ylim(bottom=0)
    note = "values below 1e-8 are in the first bin; markers on the axis are means"
    if left_out:
        note += f"\n{' and '.join(left_out)} left out: one member, always 0"
    ax.set_xlabel(f"mutual information of class and member (nats)\n{note}")
    if ensembles:
        method_legend(ax, [run.method for run in ensembles], line="own", markersize=7)
    return ax


def _outline(ax: Axes, run: Run, edges: np.ndarray) -> None:
    style, values = style_of(run.method), run.prediction.epistemic
    shares = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] / len(values)
    ax.stairs(shares, edges, fill=True, color=style.colour, alpha=0.1)
    ax.stairs(shares, edges, color=style.colour, linestyle=style.line, linewidth=1.8)
    mean = min(max(float(values.mean()), edges[0]), edges[-1])
    ax.plot(
        mean,
        0,
        style.marker,
        color=style.colour,
        markeredgecolor="white",
        markersize=10,
        clip_on=False,
        zorder=5,
    )
