"""Charts that the page draws as SVG in its own colours: coordinates and texts of each point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from batchensemble.comparison.differences import Differences
from batchensemble.comparison.results import Comparison
from batchensemble.comparison.summary import REGRESSION, Column, Row, format_number
from batchensemble.comparison.wording import capitalised, join_names, method_phrase, method_title
from batchensemble.core.printed_tables import formatted
from batchensemble.report.sections.abstaining import Abstaining
from batchensemble.report.sections.tables import risk_of, signed

IN_UNIT = REGRESSION[0]  # its format is that of all numbers in the unit of the target
WIDTH = 640
LEFT, RIGHT, TOP, BOTTOM = 72, 28, 14, 46  # margins around the axes of the curves
HEIGHT = 330
ROW_HEIGHT = 36  # height of a row of the intervals
NAMES_WIDTH = 185  # width of the column of names
POINTS_WITH_TEXT = 10  # every tenth threshold has a marker with its numbers


@dataclass(frozen=True)
class Tick:
    """A mark on an axis, in the chart's coordinates."""

    at: float
    text: str


@dataclass(frozen=True)
class Bar:
    """An interval of a difference: its ends, its estimate, and its text."""

    name: str
    method: str
    y: float
    low: float
    middle: float
    high: float
    text: str


@dataclass(frozen=True)
class Forest:
    """Intervals of differences to one method, one row each, and the position of 0."""

    height: int
    zero: float
    ticks: tuple[Tick, ...]
    bars: tuple[Bar, ...]
    finding: str


@dataclass(frozen=True)
class Point:
    """A marker with a text."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Curve:
    """A method's curve: its SVG path and its markers."""

    name: str
    method: str
    path: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Risks:
    """Risk against coverage: curves, axes, and the numbers for the slider."""

    curves: tuple[Curve, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    numbers: dict[str, Any]
    finding: str


def forest(
    column: Column, rows: Sequence[Row], differences: Differences, reference: str
) -> Forest | None:
    """Return the intervals of differences in a score to one method; ``None`` without any."""
    found = [
        (row, differences.between(column.key, row.method, reference))
        for row in rows
        if row.method != reference
    ]
    known = [(row, each) for row, each in found if each is not None]
    if not known:
        return None
    ends = [0.0, *(end for _, each in known for end in (each.low, each.high))]
    low, high = min(ends), max(ends)
    pad = 0.06 * (high - low) or 1.0
    low, high = low - pad, high + pad

    def at(number: float) -> float:
        return round(NAMES_WIDTH + (number - low) / (high - low) * (WIDTH - NAMES_WIDTH - RIGHT), 1)

    bars = []
    for index, (row, each) in enumerate(known):
        text = (
            f"{row.name}: {signed(each.estimate, column)} {column.unit}, 95% interval "
            f"{signed(each.low, column)} to {signed(each.high, column)}"
        )
        y = ROW_HEIGHT * (index + 0.5) + 4
        ends_at = (at(each.low), at(each.estimate), at(each.high))
        bars.append(Bar(row.name, row.method, y, *ends_at, text))
    finding = _significance(
        column,
        reference,
        [row.method for row, each in known if each.significant],
        [row.method for row, each in known if not each.significant],
    )
    ticks = tuple(Tick(at(each), formatted(each, "g")) for each in _ticks(low, high, 5))
    return Forest(ROW_HEIGHT * len(bars) + 8, at(0.0), ticks, tuple(bars), finding)


def _significance(
    column: Column, reference: str, different: Sequence[str], others: Sequence[str]
) -> str:
    """Return which methods differ significantly from one, and which do not, in two sentences."""
    to, sentences = method_phrase(reference), []
    if different:
        names = join_names([method_phrase(each) for each in different])
        verb = "differs" if len(different) == 1 else "differ"
        sentences.append(capitalised(f"{names} {verb} significantly from {to} in {column.title}."))
    if others:
        names = join_names([method_phrase(each) for each in others])
        found = f"No significant difference in {column.title} between {to} and "
        sentences.append(f"{found}{names}.")
    return " ".join(sentences)


def risks(comparison: Comparison) -> Risks:
    """Return each method's curve of risk against coverage, and the numbers for the slider."""
    numbers = comparison.data.task == "regression"
    found = {method: risk_of(comparison, method) for method in comparison.methods}
    highest = max(float(np.nanmax(each.risk)) for each in found.values())
    top = 1.08 * highest or 1e-3
    lowest = min(float(each.coverage[np.isfinite(each.risk)].min()) for each in found.values())
    x_ticks, y_ticks = _ticks(lowest, 1.0, 5), _ticks(0.0, top, 4)
    least = lowest if lowest < 1 else 0.0

    def place(coverage: float, risk: float) -> tuple[float, float]:
        x = LEFT + (coverage - least) / (1 - least) * (WIDTH - LEFT - RIGHT)
        return round(x, 1), round(HEIGHT - BOTTOM - risk / top * (HEIGHT - TOP - BOTTOM), 1)

    curves, chosen = [], []
    for method, each in found.items():
        name, known = method_title(method), np.isfinite(each.risk)
        texts = [_at_threshold(name, each, index) for index in range(len(known))]
        places = [place(*pair) if np.isfinite(pair[1]) else None for pair in _pairs(each)]
        line = dict.fromkeys(at for at in places if at is not None)
        points = tuple(
            Point(*at, text)
            for at, text in list(zip(places, texts, strict=True))[::POINTS_WITH_TEXT]
            if at is not None
        )
        path = "M" + " L".join(f"{x} {y}" for x, y in line)
        curves.append(Curve(name, method, path, points))
        chosen.append({"method": method, "texts": texts, "places": places})
    thresholds = next(iter(found.values())).thresholds
    intros = [
        f"Coverage {each:.0%}:" if numbers else f"Confidence of at least {each:.2f}:"
        for each in thresholds.tolist()
    ]
    return Risks(
        tuple(curves),
        tuple(Tick(place(share, 0.0)[0], f"{100 * share:g}%") for share in x_ticks),
        tuple(
            Tick(place(0.0, each)[1], formatted(each, ".3g") if numbers else f"{100 * each:.3g}%")
            for each in y_ticks
        ),
        {"intros": intros, "methods": chosen},
        _finding(comparison, numbers),
    )


def _pairs(each: Abstaining) -> list[tuple[float, float]]:
    return list(zip(each.coverage.tolist(), each.risk.tolist(), strict=True))


def _at_threshold(name: str, each: Abstaining, index: int) -> str:
    """Return a method's coverage and risk at a threshold, as a sentence."""
    coverage, risk = each.coverage[index], each.risk[index]
    if not np.isfinite(risk):
        return f"{name}: no predictions answered."
    if each.deviation is not None:
        deviation, error = (
            format_number(each.deviation[index], IN_UNIT),
            format_number(risk, IN_UNIT),
        )
        return (
            f"{name}: predicted standard deviation up to {deviation}, mean absolute error {error}."
        )
    return f"{name}: coverage {coverage:.1%}, error rate {risk:.2%}."


def _finding(comparison: Comparison, numbers: bool) -> str:
    """Return each method's risk with and without the most uncertain tenth of the examples."""
    changes = []
    for method in comparison.methods:
        if numbers:
            risks = risk_of(comparison, method, np.array([1.0, 0.9])).risk
            of_all, of_most = (format_number(each, IN_UNIT) for each in risks)
            changes.append(f"{method_title(method)} {of_all} → {of_most}")
            continue
        prediction = comparison.of(method)[0].classes
        order = np.argsort(-prediction.confidence, kind="stable")
        wrong = (prediction.labels != comparison.data.held_out[1])[order]
        answered = max(1, round(0.9 * len(wrong)))
        changes.append(f"{method_title(method)} {wrong.mean():.2%} → {wrong[:answered].mean():.2%}")
    what = "Mean absolute error" if numbers else "Error rate"
    return f"{what} of all predictions → without the most uncertain 10%: {'; '.join(changes)}."


def _ticks(low: float, high: float, most: int) -> list[float]:
    found = MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [round(float(each), 10) for each in found if low <= each <= high]
