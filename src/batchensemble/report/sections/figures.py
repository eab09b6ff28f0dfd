"""What is said beside each figure: what it shows in this run, and how to read it."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from matplotlib.figure import Figure

from batchensemble.comparison.results import Comparison, Run
from batchensemble.comparison.summary import CLASSIFICATION, COST, REGRESSION, format_number, value
from batchensemble.comparison.wording import method_title
from batchensemble.losses.standardised import OF_STANDARDISED
from batchensemble.metrics.members.member_curve import by_members
from batchensemble.predictions import Prediction

COLUMN = {column.key: column for column in (*CLASSIFICATION, *REGRESSION, *COST)}


@dataclass(frozen=True)
class FigureText:
    """What is said of a figure.

    Attributes:
        title: its heading.
        section: of the page.
        finding: returns a sentence with this run's numbers.
        reading: how to read it.
    """

    title: str
    section: str
    finding: Callable[[Comparison], str]
    reading: str


@dataclass(frozen=True)
class ShownFigure:
    """A figure as the page holds it; width and height in CSS pixels."""

    name: str
    title: str
    section: str
    finding: str
    reading: str
    alternative: str
    source: str
    width: int
    height: int


def shown_figures(
    comparison: Comparison, figures: Mapping[str, Figure], images: Mapping[str, bytes]
) -> list[ShownFigure]:
    """Return the figures with what is said of them.

    Args:
        comparison: what they show.
        figures: from :func:`batchensemble.report.plots.draw_all`.
        images: the same as SVG.
    """
    return [
        _shown(comparison, name, figure, images[name], TEXTS[name])
        for name, figure in figures.items()
    ]


def _shown(
    comparison: Comparison, name: str, figure: Figure, image: bytes, text: FigureText
) -> ShownFigure:
    width, height = figure.get_size_inches()
    finding = text.finding(comparison)
    return ShownFigure(
        name,
        text.title,
        text.section,
        finding,
        text.reading,
        f"{ALTERNATIVES[name]} {finding}",
        f"data:image/svg+xml;base64,{base64.b64encode(image).decode()}",
        round(96 * width),
        round(96 * height),
    )


def _each(comparison: Comparison, text: Callable[[Run], str]) -> str:
    """Return what is said of each method's first run, joined."""
    runs = [comparison.of(method)[0] for method in comparison.methods]
    return "; ".join(f"{method_title(run.method)} {text(run)}" for run in runs) + "."


def _number(run: Run, key: str) -> str:
    return format_number(value(run, COLUMN[key]), COLUMN[key])


def _reliability(comparison: Comparison) -> str:
    return "Expected calibration error: " + _each(comparison, lambda run: _number(run, "ece"))


def _plane(comparison: Comparison) -> str:
    def text(run: Run) -> str:
        if not isinstance(run.plane, Prediction) or run.plane.members == 1:
            return "0, one member"
        return f"{float(run.plane.epistemic.max()):.4f}"

    return "Highest mutual information anywhere on the map, in nats: " + _each(comparison, text)


def _members(comparison: Comparison) -> str:
    return "Share of the held-out examples on which two members differ: " + _each(
        comparison, lambda run: _number(run, "disagreement")
    )


def _member_curves(comparison: Comparison) -> str:
    labels = comparison.data.held_out[1]

    def text(run: Run) -> str:
        nll = by_members(run.classes, labels).nll
        return f"{nll[0]:.4f}" if len(nll) == 1 else f"{nll[0]:.4f} → {nll[-1]:.4f}"

    return "NLL in nats, of one member → of all: " + _each(comparison, text)


def _histogram(comparison: Comparison) -> str:
    return "Mean mutual information, in nats: " + _each(
        comparison, lambda run: _number(run, "mutual_information")
    )


def _curves(comparison: Comparison) -> str:
    def text(run: Run) -> str:
        losses, nlls = run.history.losses, run.history.validation_nll
        last = f"loss {losses[-1] if losses else math.nan:.4f}"
        if not nlls:
            return last
        lowest = min(range(len(nlls)), key=nlls.__getitem__)
        when = "the last epoch" if lowest == len(nlls) - 1 else f"epoch {lowest + 1}"
        return f"{last}, lowest held-out {what} {nlls[lowest]:.4f} after {when}"

    numbers = comparison.data.task == "regression"
    what = "loss" if numbers else "NLL"
    own = all(run.history.standardised is False for run in comparison.runs)
    unit = f" (losses {OF_STANDARDISED})" if numbers and not own else ""
    return f"At the end{unit}: " + _each(comparison, text)


def _curve(comparison: Comparison) -> str:
    return "Deviation of what the members differ in, on held-out examples: " + _each(
        comparison, lambda run: _number(run, "epistemic")
    )


def _coverage(comparison: Comparison) -> str:
    return "Intervals that should hold 90% hold: " + _each(
        comparison, lambda run: f"{run.scores['coverage']:.1%}"
    )


def _error_by_deviation(comparison: Comparison) -> str:
    def text(run: Run) -> str:
        predicted = format_number(math.hypot(*_deviations(run)), COLUMN["rmse"])
        return f"{_number(run, 'rmse')}, predicted {predicted}"

    return "RMSE over all examples, and the predicted standard deviation: " + _each(
        comparison, text
    )


def _deviations(run: Run) -> tuple[float, float]:
    return run.scores["aleatoric"], run.scores["epistemic"]


def _time(comparison: Comparison) -> str:
    key = "accuracy" if comparison.data.task == "classification" else "rmse"
    return f"{COLUMN[key].title}, first seed: " + _each(
        comparison,
        lambda run: f"{_number(run, key)} after {_number(run, 'training_seconds')} s",
    )


TEXTS = {
    "reliability": FigureText(
        "Reliability",
        "calibration",
        _reliability,
        "A bar is the share of right predictions among those made with that confidence; whiskers "
        "are 95% intervals. On the dashed line a confidence of 80% is right in 80% of the "
        "cases; above it the network is too modest, below it too sure. The counts below are on a "
        "log scale.",
    ),
    "plane": FigureText(
        "Predictions and doubt over the plane",
        "uncertainty",
        _plane,
        "Above, what each method predicts, with held-out examples on it and a line where the "
        "predicted class changes. Below, in nats and on one log scale, how much the members "
        "differ: a useful ensemble is dark where there were no examples to learn from.",
    ),
    "members": FigureText(
        "Where each member draws the line",
        "members",
        _members,
        "Thin lines are the members' own decisions, the wide pale one is that of their mean "
        "probabilities. Lines on top of each other mean that the members learned the same.",
    ),
    "member_curves": FigureText(
        "What members are worth",
        "members",
        _member_curves,
        "A point is the mean over all ensembles of so many of the members. A steep line has "
        "members that know different things, a flat one is one network several times over. A line "
        "that begins above the single network has members that are worse alone. The axes span at "
        "least four standard errors of a score on so many examples.",
    ),
    "epistemic_histogram": FigureText(
        "How much the members differ",
        "uncertainty",
        _histogram,
        "The mutual information of class and member for each held-out example. Further right, "
        "the members differ more; to the far left they are one network several times over.",
    ),
    "loss_curves": FigureText(
        "Training",
        "training",
        _curves,
        "The loss is averaged over the epoch and over the members, the held-out one is that of "
        "the ensemble after the epoch. A training loss that falls while the held-out one rises is "
        "overfitting.",
    ),
    "curve": FigureText(
        "The curve and its doubt",
        "uncertainty",
        _curve,
        "The line is the mean, the pale band holds 90% of what is predicted, the darker one in it "
        "is what the members differ in. Dashed lines are the ends of the training examples, which "
        "are the points. Below, the standard deviations: of all (pale) and of what the members "
        "differ in, which should grow beyond the examples and in gaps.",
    ),
    "coverage": FigureText(
        "Do intervals cover?",
        "calibration",
        _coverage,
        "On the dashed line an interval that should hold 90% of the targets holds 90%. Below it "
        "the method is too sure, above it too modest.",
    ),
    "error_by_deviation": FigureText(
        "Does doubt tell errors?",
        "uncertainty",
        _error_by_deviation,
        "The held-out examples in ten groups, from those the method is surest of to those it "
        "doubts most. On the dashed line the errors are as large as predicted; markers at one "
        "height say that the doubt tells nothing.",
    ),
    "error_time": FigureText(
        "Error for the time",
        "cost",
        _time,
        "Down and to the left is better. With one seed a bar is the standard error of the RMSE on "
        "so many examples; with several, bars are sample deviations and faint points the seeds.",
    ),
    "accuracy_time": FigureText(
        "Accuracy for the time",
        "cost",
        _time,
        "Up and to the left is better. With one seed a bar is the standard error of the accuracy "
        "on so many examples; with several, bars are sample deviations and faint points the seeds.",
    ),
}
ALTERNATIVES = {
    "reliability": "Accuracy against confidence in bins, a panel for each method.",
    "plane": "Maps over two axes of the features, two for each method: the predicted probabilities "
    "with the held-out examples, and the mutual information of class and member.",
    "members": "The decision lines of the members, a panel for each method.",
    "member_curves": "Accuracy and NLL against the number of members that are averaged.",
    "epistemic_histogram": "Histograms of the mutual information on the held-out examples.",
    "curve": "The predicted mean over the only feature with its intervals, a panel a method.",
    "coverage": "The share of held-out targets in intervals, against the share meant.",
    "error_by_deviation": "The error of ten groups of examples against the deviation predicted.",
    "error_time": "RMSE against training time.",
    "loss_curves": "Training loss and held-out loss by epoch.",
    "accuracy_time": "Accuracy against training time.",
}
