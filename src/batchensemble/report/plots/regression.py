"""Predicted numbers: curve and intervals, coverage, and error against predicted deviation."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from scipy.stats import norm

from batchensemble.comparison.planes import Line
from batchensemble.comparison.results import Comparison, Run
from batchensemble.metrics import interval_calibration, widest_interval
from batchensemble.metrics.regression import COVERAGE
from batchensemble.predictions import Quantiles, RegressionPrediction
from batchensemble.report.plots.style import (
    FAINT,
    SOFT,
    drawing,
    figure_of,
    method_legend,
    pale,
    panels_of,
    plain,
    single_panel,
    style_of,
    subsample,
)

CURVE_POINTS = 800
GROUPS = 10  # of equally many examples, by their predicted deviation


def of_numbers(run: Run) -> RegressionPrediction:
    """Return the prediction of a run on the held-out examples, of numbers."""
    assert isinstance(run.prediction, RegressionPrediction)
    return run.prediction


@drawing()
def curve(comparison: Comparison, axes: Any = None) -> list[Axes]:
    """Draw each method's mean and 90 % interval over the feature, and below the deviations.

    Args:
        comparison: a comparison with at least one finished run.
        axes: two rows of axes, one column for each method; by default those of a new figure.

    Returns:
        The axes drawn into, row by row.

    Raises:
        ValueError: the data have more than one feature.
    """
    line = comparison.plane
    if not isinstance(line, Line):
        raise ValueError(
            "a curve needs data with one feature and numbers to predict, got "
            f"{comparison.data.features} features"
        )
    runs = [comparison.of(method)[0] for method in comparison.methods]
    upper, lower = panels_of(
        axes, len(runs), 5.2, rows=2, sharex=True, sharey="row", height_ratios=[2, 1]
    )
    some = subsample(len(line.examples), CURVE_POINTS)
    data = comparison.data
    y = (data.train if len(data.train[1]) else data.held_out)[1]  # those the line was made from
    for ax, below, run in zip(upper, lower, runs, strict=True):
        _bands(ax, run, line)
        ax.plot(line.examples[some], y[some], ".", color="#9a9a9a", markersize=2, zorder=1)
        _deviations(below, run, line)
        for panel in (ax, below):
            for edge in (line.examples.min(), line.examples.max()):
                panel.axvline(edge, color=SOFT, linewidth=0.8, linestyle=(0, (4, 3)))
        ax.set_title(style_of(run.method).name)
    upper[0].set(ylabel=plain(comparison.data.target or "y"), xlim=(line.x[0], line.x[-1]))
    lower[0].set(ylabel="deviation")
    lower[0].set_ylim(bottom=0)
    figure_of(upper[0]).supxlabel(plain(comparison.data.feature_names[0]), fontsize=9.5)
    return [*upper, *lower]


def _bands(ax: Axes, run: Run, line: Line) -> None:
    """Draw the mean, the interval, and in it the interval by the epistemic part alone."""
    prediction, colour = run.plane, style_of(run.method).colour
    assert isinstance(prediction, RegressionPrediction)
    low, high, _ = widest_interval(prediction)
    ax.fill_between(line.x, low, high, color=pale(colour, 0.2), linewidth=0)
    half = norm.ppf((1 + COVERAGE) / 2) * np.sqrt(prediction.epistemic)
    mean = prediction.mean
    ax.fill_between(line.x, mean - half, mean + half, color=pale(colour, 0.5), linewidth=0)
    ax.plot(line.x, mean, color=colour)


def _deviations(ax: Axes, run: Run, line: Line) -> None:
    """Draw the total and the epistemic standard deviation."""
    prediction, colour = run.plane, style_of(run.method).colour
    assert isinstance(prediction, RegressionPrediction)
    ax.fill_between(line.x, prediction.deviation, color=pale(colour, 0.2), linewidth=0)
    ax.fill_between(line.x, np.sqrt(prediction.epistemic), color=pale(colour, 0.5), linewidth=0)


@drawing()
def coverage(comparison: Comparison, ax: Axes | None = None) -> Axes:
    """Draw the coverage of central intervals against their nominal coverage.

    Args:
        comparison: a comparison of predicted numbers with at least one finished run.
        ax: axes to draw into; by default those of a new figure.
    """
    ax = single_panel(ax, 6.4, 4.6)
    ax.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle=(0, (4, 3)))
    for method in comparison.methods:
        style, prediction = style_of(method), of_numbers(comparison.of(method)[0])
        if isinstance(prediction, Quantiles) and prediction.widest <= 0:
            continue
        found = interval_calibration(prediction, comparison.data.held_out[1])
        ax.plot(
            found.levels,
            found.coverage,
            color=style.colour,
            linestyle=style.line,
            marker=style.marker,
            markersize=4,
            markevery=3,
        )
    ax.set(xlabel="nominal coverage", ylabel="coverage")
    ax.set(xlim=(0, 1), ylim=(0, 1))
    ax.grid()
    method_legend(ax, comparison.methods, line="own", markersize=5)
    return ax


@drawing()
def error_by_deviation(comparison: Comparison, ax: Axes | None = None) -> Axes:
    """Draw the root mean squared error of examples against their predicted deviation.

    The held-out examples are in ten groups of equal size, by predicted standard deviation. On the
    dashed line the error is as large as predicted.

    Args:
        comparison: a comparison of predicted numbers with at least one finished run.
        ax: axes to draw into; by default those of a new figure.
    """
    ax = single_panel(ax, 6.4, 4.6)
    y = comparison.data.held_out[1]
    largest = 0.0
    for method in comparison.methods:
        style, prediction = style_of(method), of_numbers(comparison.of(method)[0])
        groups = np.array_split(np.argsort(prediction.total, kind="stable"), min(GROUPS, len(y)))
        predicted = [np.sqrt(prediction.total[group].mean()) for group in groups]
        found = [np.sqrt(((y - prediction.mean)[group] ** 2).mean()) for group in groups]
        ax.plot(
            predicted,
            found,
            style.marker,
            color=style.colour,
            markersize=6,
            markeredgecolor="white",
        )
        largest = max(largest, *predicted, *found)
    ax.plot([0, largest], [0, largest], color=SOFT, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    ax.set(xlabel="predicted standard deviation", ylabel="root mean squared error")
    ax.set(xlim=(0, 1.05 * largest or 1), ylim=(0, 1.05 * largest or 1))
    ax.grid(color=FAINT)
    method_legend(ax, comparison.methods, line="none", markersize=7)
    return ax
