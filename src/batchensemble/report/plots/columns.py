"""Which columns of a table a prediction depends on, and how."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from batchensemble.comparison.results import Comparison
from batchensemble.metrics.encoded_columns import ColumnDependence
from batchensemble.metrics.importance import ColumnEffect
from batchensemble.report.plots.style import (
    drawing,
    figure_of,
    panels_of,
    plain,
    single_panel,
    style_of,
)

MOST_BARS = 15
ROW = 0.3  # inches, height of a bar


@drawing()
def column_importances(comparison: Comparison, ax: Axes | None = None) -> Axes:
    """Draw by how much the score gets worse where a column is shuffled, the largest at the top.

    Bars are of the ensemble, with whiskers over the repetitions; dots are the members.

    Args:
        comparison: of one trained model, with its ``dependence``.
        ax: axes to draw into; by default those of a new figure.
    """
    found = _dependence(comparison).importance
    order = np.argsort(found.ensemble.mean(1), kind="stable")[-MOST_BARS:]
    ax = single_panel(ax, 6.4, 1.2 + ROW * len(order))
    style, places = style_of(comparison.methods[0]), np.arange(len(order))
    ax.barh(
        places, found.ensemble.mean(1)[order], xerr=found.ensemble.std(1)[order],
        color=style.colour, alpha=0.35, ecolor=style.colour, height=0.7,
    )  # fmt: skip
    for member in found.members[order].T:
        ax.plot(member, places, ".", color=style.colour, markersize=4, alpha=0.8)
    ax.set_yticks(places, [plain(found.names[number]) for number in order])
    unit = " (nats)" if found.score == "nll" else ""
    ax.set_xlabel(f"increase of the {found.score.upper()}{unit} where the column is shuffled")
    ax.grid(axis="x")
    return ax


@drawing()
def column_effects(comparison: Comparison, axes: Any = None) -> list[Axes]:
    """Draw how the mean prediction changes with each of the most important columns.

    The thick line is the ensemble, thin lines are the members.

    Args:
        comparison: of one trained model, with its ``dependence``.
        axes: axes to draw into; by default those of a new figure.
    """
    effects = _dependence(comparison).effects
    [drawn] = panels_of(axes, len(effects), 3.0)
    style = style_of(comparison.methods[0])
    for ax, effect in zip(drawn, effects, strict=True):
        places = _places(effect)
        for member in effect.members.T:
            ax.plot(places, member, color=style.colour, linewidth=0.7, alpha=0.45)
        line = "-" if effect.values.dtype.kind == "f" else ":"
        ax.plot(
            places, effect.ensemble, line, color=style.colour, linewidth=2.2,
            marker="o", markersize=3.5,
        )  # fmt: skip
        if effect.values.dtype.kind != "f":
            names = [plain(str(each), 12) for each in effect.values]
            ax.set_xticks(places, names, rotation=40, ha="right", fontsize=7)
        ax.set_xlabel(plain(effect.name))
        ax.grid(axis="y")
    every = np.concatenate([effect.members.ravel() for effect in effects])
    margin = 0.05 * max(np.ptp(every), 1e-12)
    drawn[0].set_ylim(every.min() - margin, every.max() + margin)
    for ax in drawn[1:]:
        ax.sharey(drawn[0])
    of = effects[0].of
    what = f"mean predicted {plain(comparison.data.target or 'number', 24)}"
    if of is not None:
        what = f"mean probability of {plain(str(of), 16)}"
    drawn[0].set_ylabel(what)
    figure_of(drawn[0]).set_layout_engine("constrained")
    return drawn


def _places(effect: ColumnEffect) -> Any:
    return effect.values if effect.values.dtype.kind == "f" else np.arange(len(effect.values))


def _dependence(comparison: Comparison) -> ColumnDependence:
    assert comparison.dependence is not None
    return comparison.dependence
