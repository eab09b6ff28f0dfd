"""What members are worth: the scores of ensembles of some of them."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from batchensemble.comparison import Comparison
from batchensemble.metrics.member_curve import by_members
from batchensemble.plots.style import (
    METHOD_STYLES,
    drawing,
    figure_of,
    method_legend,
    panels_of,
)

PANELS = (("accuracy", "accuracy"), ("nll", "NLL (nats)"))


@drawing()
def member_curves(comparison: Comparison, axes: Any = None) -> list[Axes]:
    """Draw accuracy and NLL against the number of members that are averaged.

    Each point is the mean over the ensembles of so many of a method's members; a single network is
    the point at 1. Of each method's first seed.

    Args:
        comparison: of classes, with at least one finished run.
        axes: where to draw, two; those of a new figure by default.

    Returns:
        The axes drawn into.

    Example:
        >>> from batchensemble.compare import Settings, compare
        >>> from batchensemble.data import load
        >>> quick = Settings(methods=("single", "deep"), members=2, epochs=1)
        >>> left, right = member_curves(compare(load("breast_cancer"), quick))
        >>> right.get_ylabel()
        'NLL (nats)'
    """
    [drawn] = panels_of(axes, len(PANELS), 3.5)
    figure = figure_of(drawn[0])
    if axes is None:
        figure.set_figwidth(8.8)
    labels = comparison.data.held_out[1]
    for method in comparison.methods:
        curve = by_members(comparison.of(method)[0].classes, labels)
        style = METHOD_STYLES[method]
        for ax, (score, _) in zip(drawn, PANELS, strict=True):
            ax.plot(
                curve.members, getattr(curve, score), color=style.colour, linestyle=style.line,
                marker=style.marker, markeredgecolor="white", markersize=7, label=style.name,
                gid=method, clip_on=False,
            )  # fmt: skip
    for ax, (_, name) in zip(drawn, PANELS, strict=True):
        ax.set(xlabel="members averaged", ylabel=name)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        ax.tick_params(left=True, labelleft=True)  # the panels share no axis
        ax.grid(axis="y")
    drawn[0].yaxis.set_major_formatter(PercentFormatter(1))
    method_legend(figure, comparison.methods, line="own", markersize=7)
    return drawn
