"""Losses by epoch, and scores against training time."""

from __future__ import annotations

import math
import statistics
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from batchensemble.comparison.results import Comparison, Run, comparison_loss
from batchensemble.losses.standardised import OF_STANDARDISED
from batchensemble.report.plots.regression import of_numbers
from batchensemble.report.plots.style import (
    drawing,
    figure_of,
    method_legend,
    pale,
    panels_of,
    single_panel,
    style_of,
)

MARKERS_A_LINE = 8


@drawing()
def loss_curves(comparison: Comparison, axes: Any = None) -> list[Axes]:
    """Draw the training loss (solid) and the validation loss (dashed) after each epoch.

    For classes in nats, on a log scale; for numbers in the loss's own unit, which may be below 0,
    of standardised targets unless the history says otherwise. Methods without such scores in
    their history have no dashed line.

    Args:
        comparison: a comparison with at least one finished run.
        axes: one axes for the training loss and, if there are any, one for held-out scores; by
            default those of a new figure.

    Returns:
        The axes drawn into.
    """
    numbers = comparison.data.task == "regression"
    runs = [comparison.of(method)[0] for method in comparison.methods]
    panels = [("Training loss, mean of the members", "losses", "solid")]
    if any(run.history.validation_nll for run in runs):
        scored = "Validation loss" if numbers else "Validation NLL"
        panels.append((f"{scored} of the ensemble", "validation_nll", "dashed"))
    [drawn] = panels_of(axes, len(panels), 3.5, sharey=True)
    figure = figure_of(drawn[0])
    if axes is None:
        figure.set_figwidth(4.1 * len(panels) + 0.6)
    for ax, (title, key, line) in zip(drawn, panels, strict=True):
        for number, run in enumerate(runs):
            _curve(ax, run, getattr(run.history, key), line, len(runs) - number)
        ax.set(title=title, xlabel="epoch", yscale="linear" if numbers else "log")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
        ax.grid(axis="y")
    method_legend(figure, comparison.methods, markersize=6)
    if numbers:
        loss = comparison_loss(comparison.settings, comparison.data)
        own = all(run.history.standardised is False for run in runs)
        drawn[0].set_ylabel(f"{loss} {'in the unit of the targets' if own else OF_STANDARDISED}")
        return drawn
    drawn[0].set_ylabel("cross-entropy (nats)")
    low, high = drawn[0].get_ylim()
    drawn[0].yaxis.set_major_locator(
        LogLocator(subs=(1, 2, 5) if high > 8 * low else (1, 2, 3, 4, 6, 8))
    )
    drawn[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    drawn[0].yaxis.set_minor_formatter(NullFormatter())
    return drawn


def _curve(ax: Axes, run: Run, values: list[float], line: str, above: int) -> None:
    """Draw one line, wider if more lines are drawn above it, so that none is hidden."""
    if not values:
        return
    style = style_of(run.method)
    every = max(1, len(values) // MARKERS_A_LINE)
    ax.plot(
        range(1, len(values) + 1),
        values,
        linestyle=line,
        color=style.colour,
        marker=style.marker,
        linewidth=1.0 + 0.45 * above,
        markersize=3.8 + 0.8 * above,
        markeredgecolor="white",
        markeredgewidth=0.5,
        markevery=every,
    )


@drawing()
def accuracy_time(comparison: Comparison, ax: Axes | None = None) -> Axes:
    """Draw held-out accuracy against training time in seconds, a marker for each method.

    With several seeds the marker is their mean, the bars are their sample standard deviation, and
    each seed is a faint point. With one seed the bar is the standard error of the accuracy.

    Args:
        comparison: a comparison with at least one finished run.
        ax: axes to draw into; by default those of a new figure.
    """
    ax = _score_time(comparison, ax, "accuracy")
    ax.set_ylabel("held-out accuracy")
    low, high = ax.get_ylim()
    ax.set_ylim(max(low, 0.0), min(high, 1.002))  # a share; a little air for a marker at 1
    return ax


@drawing()
def error_time(comparison: Comparison, ax: Axes | None = None) -> Axes:
    """Draw the held-out RMSE against training time in seconds, a marker for each method.

    With several seeds the marker is their mean, the bars are their sample standard deviation, and
    each seed is a faint point. With one seed the bar is the standard error of the RMSE.

    Args:
        comparison: a comparison of predicted numbers with at least one finished run.
        ax: axes to draw into; by default those of a new figure.
    """
    ax = _score_time(comparison, ax, "rmse")
    ax.set_ylabel("held-out RMSE")
    return ax


def _standard_error(comparison: Comparison, run: Run, mean: float) -> float:
    """Return the standard error of an accuracy or an RMSE over the held-out examples."""
    y = comparison.data.held_out[1]
    if comparison.data.task == "classification":
        return math.sqrt(mean * (1 - mean) / len(y))
    squares = np.square(y - of_numbers(run).mean)
    return float(squares.std() / math.sqrt(len(y)) / (2 * mean)) if mean else 0.0


def _score_time(comparison: Comparison, ax: Axes | None, score: str) -> Axes:
    ax = single_panel(ax)
    for method in comparison.methods:
        style, runs = style_of(method), comparison.of(method)
        seconds = [run.cost.training_seconds for run in runs]
        scores = [run.scores[score] for run in runs]
        mean, several = statistics.fmean(scores), len(runs) > 1
        error = _standard_error(comparison, runs[0], mean)
        if several:
            faint = pale(style.colour, 0.35)
            ax.plot(seconds, scores, style.marker, color=faint, markersize=5, zorder=1)
        ax.errorbar(
            statistics.fmean(seconds),
            mean,
            xerr=statistics.stdev(seconds) if several else None,
            yerr=statistics.stdev(scores) if several else error,
            fmt=style.marker,
            color=style.colour,
            markersize=9,
            markeredgecolor="white",
            elinewidth=1.3,
            zorder=3,
        )
    ax.set_xlabel("training time (seconds)")
    ax.margins(0.12)
    ax.set_xlim(left=0)
    ax.grid()
    method_legend(ax, comparison.methods, line="none", markersize=9)
    return ax
