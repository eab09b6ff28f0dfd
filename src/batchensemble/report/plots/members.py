"""Scores against the number of members."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from batchensemble.comparison.results import Comparison
from batchensemble.metrics.losses_by_example import ScoreName, losses_by_example
from batchensemble.metrics.members.member_curve import by_members
from batchensemble.report.plots.style import (
    drawing,
    figure_of,
    method_legend,
    panels_of,
    style_of,
)

# Score of a curve, loss of an example, name of the axis.
PANELS: tuple[tuple[str, ScoreName, str], ...] = (
    ("accuracy", "error", "accuracy"),
    ("nll", "nll", "NLL (nats)"),
)
LEAST_SPAN = 4  # standard errors that an axis spans at least, so that noise looks like noise


@drawing()
def member_curves(comparison: Comparison, axes: Any = None) -> list[Axes]:
    """Draw accuracy and NLL against the number of members that are averaged.

    Each point is the mean over subsets of that many of a method's members; a single network is the
    point at 1. Each method's first seed is drawn. An axis spans at least four standard errors of
    its score.

    Args:
        comparison: a comparison of classifiers with at least one finished run.
        axes: two axes to draw into; by default those of a new figure.

    Returns:
        The axes drawn into.

    Example:
        >>> from batchensemble.comparison.compare import Settings, compare
        >>> from batchensemble.data.datasets import load_dataset
        >>> quick = Settings(methods=("single", "deep"), members=2, epochs=1)
        >>> left, right = member_curves(compare(load_dataset("breast_cancer"), quick))
        >>> right.get_ylabel()
        'NLL (nats)'
    """
    [drawn] = panels_of(axes, len(PANELS), 3.5)
    figure = figure_of(drawn[0])
    if axes is None:
        figure.set_figwidth(8.8)
    labels, methods = comparison.data.held_out[1], comparison.methods
    for method in methods:
        curve = by_members(comparison.of(method)[0].classes, labels)
        style = style_of(method)
        for ax, (score, _, _) in zip(drawn, PANELS, strict=True):
            ax.plot(
                curve.members, getattr(curve, score), color=style.colour, linestyle=style.line,
                marker=style.marker, markeredgecolor="white", markersize=7, label=style.name,
                gid=method, clip_on=False,
            )  # fmt: skip
    for ax, (_, loss, name) in zip(drawn, PANELS, strict=True):
        _widen(ax, LEAST_SPAN * max(_error(comparison, method, loss) for method in methods))
        ax.set(xlabel="members averaged", ylabel=name)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        ax.tick_params(left=True, labelleft=True)  # the panels share no axis
        ax.grid(axis="y")
    drawn[0].yaxis.set_major_formatter(PercentFormatter(1))
    method_legend(figure, methods, line="own", markersize=7)
    return drawn


def _error(comparison: Comparison, method: str, loss: ScoreName) -> float:
    """Return the standard error of a score of a method's first run."""
    losses = losses_by_example(comparison.of(method)[0].classes, comparison.data.held_out[1], loss)
    return float(losses.std() / np.sqrt(len(losses)))


def _widen(ax: Axes, least: float) -> None:
    """Make the axis span at least so much, around what is drawn."""
    low, high = ax.get_ylim()
    short = max(0.0, least - (high - low))
    ax.set_ylim(low - short / 2, high + short / 2)
