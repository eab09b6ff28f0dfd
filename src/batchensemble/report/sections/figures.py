"""The captions of the figures: the finding in this comparison, and how to read the figure."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from batchensemble.comparison.results import Comparison, Run
from batchensemble.comparison.summary import CLASSIFICATION, COST, REGRESSION, format_number, value
from batchensemble.comparison.wording import method_title
from batchensemble.core.printed_tables import formatted
from batchensemble.losses.standardised import OF_STANDARDISED
from batchensemble.metrics.members.member_curve import by_members
from batchensemble.metrics.values import class_name
from batchensemble.predictions import Prediction
from batchensemble.report.plots.columns import MOST_BARS
from batchensemble.training.history import format_loss

COLUMN = {column.key: column for column in (*CLASSIFICATION, *REGRESSION, *COST)}


@dataclass(frozen=True)
class FigureText:
    """The caption of a figure.

    Attributes:
        title: its heading.
        section: the section of the page that it is in.
        finding: function from the comparison to a sentence with its numbers.
        reading: how to read the figure.
    """

    title: str
    section: str
    finding: Callable[[Comparison], str]
    reading: str


@dataclass(frozen=True)
class ShownFigure:
    """A figure on the page; width and height in CSS pixels."""

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
    """Return the figures with their captions.

    Args:
        comparison: the comparison that the figures show.
        figures: the figures by name, from :func:`batchensemble.report.plots.draw_all`.
        images: the same figures as SVG files, by name.
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
    """Return the texts of each method's first run, joined."""
    runs = [comparison.of(method)[0] for method in comparison.methods]
    return "; ".join(f"{method_title(run.method)} {text(run)}" for run in runs) + "."


def _number(run: Run, key: str) -> str:
    return format_number(value(run, COLUMN[key]), COLUMN[key])


def _reliability(comparison: Comparison) -> str:
    return "Expected calibration error: " + _each(comparison, lambda run: _number(run, "ece"))


def _confusion(comparison: Comparison) -> str:
    labels = comparison.data.held_out[1]
    counts = np.bincount(labels, minlength=comparison.data.classes)
    occurring = np.flatnonzero(counts)
    rarest = int(occurring[counts[occurring].argmin()])
    name = class_name(rarest, comparison.data.class_names)

    def text(run: Run) -> str:
        return f"{int((run.classes.labels[labels == rarest] == rarest).sum()):,}"

    return f"Of the {counts[rarest]:,} examples of the rarest class, {name}, found: " + _each(
        comparison, text
    )


def _plane(comparison: Comparison) -> str:
    def text(run: Run) -> str:
        if not isinstance(run.plane, Prediction) or run.plane.members == 1:
            return "0 (one member)"
        return f"{float(run.plane.epistemic.max()):.4f}"

    return "Highest mutual information on the map, in nats: " + _each(comparison, text)


def _members(comparison: Comparison) -> str:
    return "Disagreement of two members on the held-out examples: " + _each(
        comparison, lambda run: _number(run, "disagreement")
    )


def _member_curves(comparison: Comparison) -> str:
    labels = comparison.data.held_out[1]

    def text(run: Run) -> str:
        nll = by_members(run.classes, labels).nll
        return f"{nll[0]:.4f}" if len(nll) == 1 else f"{nll[0]:.4f} → {nll[-1]:.4f}"

    return "NLL in nats, one member → all members: " + _each(comparison, text)


def _histogram(comparison: Comparison) -> str:
    return "Mean mutual information, in nats: " + _each(
        comparison, lambda run: _number(run, "mutual_information")
    )


def _curves(comparison: Comparison) -> str:
    def text(run: Run) -> str:
        losses, nlls = run.history.losses, run.history.validation_nll
        last = f"loss {format_loss(losses[-1] if losses else math.nan)}"
        if not nlls:
            return last
        lowest = min(range(len(nlls)), key=nlls.__getitem__)
        when = "the last epoch" if lowest == len(nlls) - 1 else f"epoch {lowest + 1}"
        return f"{last}, lowest validation {what} {format_loss(nlls[lowest])} after {when}"

    numbers = comparison.data.task == "regression"
    what = "loss" if numbers else "NLL"
    own = all(run.history.standardised is False for run in comparison.runs)
    unit = f" (losses {OF_STANDARDISED})" if numbers and not own else ""
    return f"At the end{unit}: " + _each(comparison, text)


def _curve(comparison: Comparison) -> str:
    return "Epistemic standard deviation on the held-out examples: " + _each(
        comparison, lambda run: _number(run, "epistemic")
    )


def _coverage(comparison: Comparison) -> str:
    return "Coverage of the 90% intervals: " + _each(
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


def _importances(comparison: Comparison) -> str:
    assert comparison.dependence is not None
    found = comparison.dependence.importance
    table = found.to_pandas()
    unit = " nats" if found.score == "nll" else ""
    first = ", ".join(
        f"{name} ({formatted(increase, '+.3g')}{unit})"
        for name, increase in table["importance"][:3].items()
    )
    columns = len(found.names)
    drawn = f" Drawn: the first {MOST_BARS} of {columns:,} columns." if columns > MOST_BARS else ""
    score = f"{found.score.upper()} of {formatted(found.baseline)}{unit}"
    return f"Most important: {first}, over an {score}.{drawn}"


def _effects(comparison: Comparison) -> str:
    assert comparison.dependence is not None
    parts = []
    for effect in comparison.dependence.effects:
        change = effect.ensemble.max() - effect.ensemble.min()
        parts.append(f"{effect.name} {formatted(change, '.3g')}")
    return f"Range of the mean prediction over the values of a column: {', '.join(parts)}."


TEXTS = {
    "column_importances": FigureText(
        "Which columns matter",
        "quality",
        _importances,
        "A column is shuffled, so that it carries no information, and the score is computed again. "
        "Bars: the ensemble, whiskers over three repetitions; dots: the members by their own "
        "score. Of two columns with the same information, each seems less important.",
    ),
    "column_effects": FigureText(
        "What the columns do",
        "quality",
        _effects,
        "The mean prediction if all rows had this value in the column (partial dependence). Wide "
        "line: the ensemble; thin lines: the members. Where they part, the data say little. All "
        "panels have one scale.",
    ),
    "confusion": FigureText(
        "Confusion matrix",
        "quality",
        _confusion,
        "Rows: the true class; columns: the predicted one, with counts for up to eight classes. "
        "Colour: share of the row. On the diagonal predictions are right. A column without colour: "
        "that class is never predicted.",
    ),
    "reliability": FigureText(
        "Reliability",
        "calibration",
        _reliability,
        "Bars: accuracy of the predictions with that confidence; whiskers: 95% intervals. Dashed: "
        "perfect calibration. Bars above it mean underconfidence, below it overconfidence. The "
        "counts are on a log scale.",
    ),
    "plane": FigureText(
        "Predictions and epistemic uncertainty over the plane",
        "uncertainty",
        _plane,
        "Top: predictions with the held-out examples and the decision boundary. Bottom: mutual "
        "information in nats, on one log scale. A useful ensemble is dark where there were no "
        "training examples.",
    ),
    "members": FigureText(
        "Decision boundaries of the members",
        "members",
        _members,
        "Thin lines: single members. Wide pale line: the ensemble's mean probabilities. Lines on "
        "top of each other: the members learned the same boundary.",
    ),
    "member_curves": FigureText(
        "Score against the number of members",
        "members",
        _member_curves,
        "Each point is the mean over subsets of that many members. A steep curve: the members "
        "complement each other. A flat curve: they are one network several times over. A curve "
        "that starts above the single network: its members are worse on their own. The axes span "
        "at least four standard errors.",
    ),
    "epistemic_histogram": FigureText(
        "Epistemic uncertainty of the held-out examples",
        "uncertainty",
        _histogram,
        "Mutual information of class and member for each held-out example. Far right: the members "
        "differ. Far left: they are one network several times over.",
    ),
    "loss_curves": FigureText(
        "Training",
        "training",
        _curves,
        "Training loss: mean over the epoch and the members. Validation loss: the ensemble after "
        "the epoch. One that rises while the training loss falls is overfitting.",
    ),
    "curve": FigureText(
        "Prediction and uncertainty",
        "uncertainty",
        _curve,
        "Line: the mean. Pale band: 90% interval; darker band: 90% by the epistemic part alone. "
        "Points: training examples, which end at the dashed lines. Bottom: total (pale) and "
        "epistemic standard deviation; the latter should grow outside the examples and in gaps.",
    ),
    "coverage": FigureText(
        "Coverage of intervals",
        "calibration",
        _coverage,
        "Dashed: perfect calibration, 90% intervals contain 90% of the targets. Below it the "
        "intervals are too narrow, above it too wide.",
    ),
    "error_by_deviation": FigureText(
        "Error against predicted standard deviation",
        "uncertainty",
        _error_by_deviation,
        "The held-out examples in ten groups, from the most certain to the most uncertain. Dashed: "
        "errors as large as predicted. Markers at one height: the uncertainty does not predict "
        "the error.",
    ),
    "error_time": FigureText(
        "RMSE against training time",
        "cost",
        _time,
        "Down and to the left is better. Bars: standard error with one seed, sample standard "
        "deviation with several, whose runs are the faint points.",
    ),
    "accuracy_time": FigureText(
        "Accuracy against training time",
        "cost",
        _time,
        "Up and to the left is better. Bars: standard error with one seed, sample standard "
        "deviation with several, whose runs are the faint points.",
    ),
}
ALTERNATIVES = {
    "column_importances": "Bars of the increase of the score where a column is shuffled.",
    "column_effects": "The mean prediction against the values of the most important columns.",
    "confusion": "How many examples of each true class got each predicted class, a panel for each "
    "method.",
    "reliability": "Accuracy against confidence in bins, a panel for each method.",
    "plane": "Maps over two axes of the features, two for each method: the predicted probabilities "
    "with the held-out examples, and the mutual information of class and member.",
    "members": "Decision boundaries of the members, a panel for each method.",
    "member_curves": "Accuracy and NLL against the number of members that are averaged.",
    "epistemic_histogram": "Histograms of the mutual information on the held-out examples.",
    "curve": "The predicted mean and its intervals over the feature, a panel for each method.",
    "coverage": "Coverage of intervals against their nominal coverage.",
    "error_by_deviation": "RMSE of ten groups of examples against the predicted deviation.",
    "error_time": "RMSE against training time.",
    "loss_curves": "Training loss and validation loss by epoch.",
    "accuracy_time": "Accuracy against training time.",
}
