"""The tables of the page: a caption, column heads and rows."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from batchensemble.comparison.constant import constant_scores
from batchensemble.comparison.differences import Differences
from batchensemble.comparison.results import Comparison, Run
from batchensemble.comparison.summary import (
    COST,
    REGRESSION,
    Column,
    Row,
    format_number,
    quality,
    value,
)
from batchensemble.comparison.wording import method_phrase, method_title, printable
from batchensemble.core.printed_tables import formatted
from batchensemble.decisions import Threshold, threshold_for
from batchensemble.metrics.bootstrap import Difference
from batchensemble.predictions import Prediction, RegressionPrediction
from batchensemble.report.sections.abstaining import Abstaining, abstaining, abstaining_from_numbers

RMSE = REGRESSION[0]
ENOUGH_SEEDS = 5  # for an interval over them
GUARANTEED_RISKS = (0.1, 0.05, 0.02, 0.01, 0.005)  # shares of errors
SHOWN_SHARES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.25)
SHOWN_THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)

# Caption, and titles and units of the columns.
UNCERTAINTY = (
    "Mean uncertainty of correct and of wrong predictions. AUROC: probability that a wrong "
    "prediction is more uncertain than a correct one; 0.5 is chance.",
    (
        ("Total, correct", "nats"),
        ("Total, wrong", "nats"),
        ("Epistemic, correct", "nats"),
        ("Epistemic, wrong", "nats"),
        ("AUROC of total", ""),
        ("AUROC of epistemic", ""),
    ),
)
UNCERTAINTY_OF_NUMBERS = (
    "Mean variances by source, and the rank correlation of the predicted variance with the "
    "absolute error: 0 is chance, 1 is best.",
    (
        ("Aleatoric variance", ""),
        ("Epistemic variance", ""),
        ("Correlation of total with errors", ""),
        ("Correlation of epistemic with errors", ""),
    ),
)


@dataclass(frozen=True)
class Head:
    """The head of a column, and its unit."""

    title: str
    unit: str = ""


@dataclass(frozen=True)
class TableEntry:
    """One cell.

    Attributes:
        text: the text shown; a standard deviation follows after `` ± ``.
        value: the number to sort by; ``None`` comes last.
        mark: ``"best"``; ``"tied"``, not significantly different from the best;
            ``"significant"``, a significant difference; or empty.
        detail: a second line below the text.
    """

    text: str
    value: float | int | None = None
    mark: str = ""
    detail: str = ""


@dataclass(frozen=True)
class TableRow:
    """One row: its head, the method whose colour it has, and its cells."""

    name: str
    method: str
    entries: tuple[TableEntry, ...]


@dataclass(frozen=True)
class Table:
    """A table of the page.

    Attributes:
        name: prefix of the HTML ids of the table.
        caption: the text above the table.
        first: head of the first column, which has the heads of the rows.
        heads: heads of the other columns.
        lines: the rows.
    """

    name: str
    caption: str
    first: str
    heads: tuple[Head, ...]
    lines: tuple[TableRow, ...]


def quality_table(comparison: Comparison, rows: Sequence[Row]) -> Table:
    """Return the scores of each method."""
    caption = f"Scores on the held-out examples. {means(comparison)}{marks(comparison, rows)}"
    table = _columns("quality", caption, rows, quality(comparison))
    constant = constant_scores(comparison)
    cells = [(column, constant.scores.get(column.key)) for column in quality(comparison)]
    entries = [
        TableEntry("") if score is None else TableEntry(format_number(score, column), score)
        for column, score in cells
    ]
    name = f"Constant: {printable(constant.prediction)}"
    return replace(table, lines=(*table.lines, TableRow(name, "", tuple(entries))))


def cost_table(comparison: Comparison, rows: Sequence[Row]) -> Table:
    """Return the cost of each method."""
    return _columns("cost", f"Cost of each method. {means(comparison)}", rows, COST)


def means(comparison: Comparison) -> str:
    """Return what the numbers are means over, as a sentence."""
    seeds = len({run.seed for run in comparison.runs})
    return f"Mean ± sample standard deviation over {seeds} seeds." if seeds > 1 else "One seed."


def marks(comparison: Comparison, rows: Sequence[Row]) -> str:
    """Return what bold and ≈ mean, where there is something to mark."""
    if len(rows) < 2:
        return ""
    seeds = len({run.seed for run in comparison.runs})
    over = "the seeds and the examples" if seeds > 1 else "the examples"
    few = ", too narrow for so few seeds" if 1 < seeds < ENOUGH_SEEDS else ""
    return (
        " Bold: significantly better than all others. ≈: where none is, the best and those not "
        f"significantly different from it (95% bootstrap interval over {over}{few})."
    )


def _columns(name: str, caption: str, rows: Sequence[Row], columns: Sequence[Column]) -> Table:
    lines = []
    for row in rows:
        cells = [row.cells[column.key] for column in columns]
        entries = tuple(
            TableEntry(cell.text, cell.mean, "best" if cell.best else "tied" if cell.tied else "")
            for cell in cells
        )
        lines.append(TableRow(row.name, row.method, entries))
    heads = tuple(Head(column.title, column.unit) for column in columns)
    return Table(name, caption, "Method", heads, tuple(lines))


def difference_table(
    comparison: Comparison, rows: Sequence[Row], differences: Differences, reference: str
) -> Table | None:
    """Return the difference of each method to one of them, with intervals; ``None`` for one."""
    compared = [each for each in quality(comparison) if each.better and each.noise == "examples"]
    others = [row for row in rows if row.method != reference]
    lines = []
    for row in others:
        found = [differences.between(column.key, row.method, reference) for column in compared]
        entries = [_difference(each, column) for each, column in zip(found, compared, strict=True)]
        lines.append(TableRow(row.name, row.method, tuple(entries)))
    if not lines or not any(entry.value is not None for line in lines for entry in line.entries):
        return None
    name = method_phrase(reference)
    caption = (
        f"Difference of each method from {name}, with its 95% interval below. Bold: significant, "
        "the interval does not contain 0."
    )
    heads = tuple(Head(column.title, column.unit) for column in compared)
    return Table("differences", caption, "Method", heads, tuple(lines))


def _difference(found: Difference | None, column: Column) -> TableEntry:
    if found is None:
        return TableEntry("-")
    ends = f"{signed(found.low, column)} to {signed(found.high, column)}"
    mark = "significant" if found.significant else ""
    return TableEntry(signed(found.estimate, column), found.estimate, mark, ends)


def signed(number: float, column: Column) -> str:
    """Return a difference in the number format of a column, with its sign.

    Example:
        >>> signed(-0.25, COST[-1])
        '−0.25'
    """
    text = format_number(abs(number), column)
    return text if float(text.replace(",", "")) == 0 else f"{'−' if number < 0 else '+'}{text}"  # noqa: RUF001


def uncertainty_table(comparison: Comparison) -> Table:
    """Return the uncertainty of correct and wrong predictions, and how well it finds errors."""
    numbers = comparison.data.task == "regression"
    targets = comparison.data.held_out[1]
    measure: Any = _uncertainty_of_numbers if numbers else _uncertainty_of_classes
    lines = []
    for method in comparison.methods:
        found = [measure(run.prediction, targets) for run in comparison.of(method)]
        form = RMSE.format if numbers else ".4f"
        entries = tuple(mean_entry(values, form) for values in zip(*found, strict=True))
        lines.append(TableRow(method_title(method), method, entries))
    caption, heads = UNCERTAINTY_OF_NUMBERS if numbers else UNCERTAINTY
    return Table(
        "uncertainty", caption, "Method", tuple(Head(*each) for each in heads), tuple(lines)
    )


def mean_entry(values: Sequence[float], form: str = ".4f") -> TableEntry:
    """Return the mean over the seeds, or a dash where it is NaN."""
    mean = sum(values) / len(values)
    return TableEntry("-") if math.isnan(mean) else TableEntry(formatted(mean, form), mean)


def _uncertainty_of_classes(prediction: Prediction, labels: np.ndarray) -> list[float]:
    wrong = prediction.labels != labels
    found = []
    for uncertainty in (prediction.total, prediction.epistemic):
        for part in (~wrong, wrong):
            found.append(float(uncertainty[part].mean()) if part.any() else math.nan)
    for uncertainty in (prediction.total, prediction.epistemic):
        defined = wrong.any() and not wrong.all() and uncertainty.max() > 0
        found.append(float(roc_auc_score(wrong, uncertainty)) if defined else math.nan)
    return found


def _uncertainty_of_numbers(prediction: RegressionPrediction, targets: np.ndarray) -> list[float]:
    errors = np.abs(prediction.mean - targets)
    found = [float(each.mean()) for each in (prediction.aleatoric, prediction.epistemic)]
    for variance in (prediction.total, prediction.epistemic):
        varies = np.ptp(variance) > 0 and np.ptp(errors) > 0
        found.append(float(spearmanr(variance, errors).statistic) if varies else math.nan)
    return found


def threshold_table(comparison: Comparison) -> Table:
    """Return coverage and risk of each method at several thresholds."""
    numbers = comparison.data.task == "regression"
    at = np.array(SHOWN_SHARES if numbers else SHOWN_THRESHOLDS)
    found = {method: risk_of(comparison, method, at) for method in comparison.methods}
    answered = "largest predicted deviation" if numbers else "coverage"
    whats = (answered, "mean absolute error" if numbers else "error rate")
    heads = tuple(Head(method_title(method), what) for method in found for what in whats)
    lines = []
    for index, threshold in enumerate(at.tolist()):
        entries = []
        for each in found.values():
            if each.deviation is None:
                entries += [_share(each.coverage[index]), _share(each.risk[index])]
            else:
                entries += [_number(each.deviation[index]), _number(each.risk[index])]
        name = f"{threshold:.0%}" if numbers else f"{threshold:.2f}" if threshold else "all"
        lines.append(TableRow(name, "", tuple(entries)))
    if numbers:
        caption = (
            "Mean absolute error when only the predictions with the smallest predicted standard "
            "deviations are answered. Both in the unit of the target."
        )
        return Table("thresholds", caption, "Coverage", heads, tuple(lines))
    caption = (
        "Coverage and error rate when only predictions of at least this confidence are answered."
    )
    return Table("thresholds", caption, "Confidence", heads, tuple(lines))


def guarantee_table(comparison: Comparison) -> Table:
    """Return thresholds of confidence with a guarantee on the error rate, for classes."""
    labels = comparison.data.held_out[1]
    lines = []
    for risk in GUARANTEED_RISKS:
        entries = []
        for method in comparison.methods:
            with warnings.catch_warnings():
                # The table has "none" where no threshold meets the risk.
                warnings.filterwarnings("ignore", message="error rate at most .*: no threshold")
                found = threshold_for(
                    comparison.of(method)[0].classes, labels, risk, by="confidence"
                )
            entries.append(_guarantee(found))
        lines.append(TableRow(f"{risk:.1%}", "", tuple(entries)))
    caption = (
        "Coverage and least confidence to answer that keep the error rate on new examples from the "
        "same distribution at or below a limit, with 95% confidence. First seed."
    )
    heads = tuple(Head(method_title(method)) for method in comparison.methods)
    return Table("guarantees", caption, "Error rate at most", heads, tuple(lines))


def _guarantee(found: Threshold) -> TableEntry:
    if not found.found:
        return TableEntry("none", 0.0)
    from_here = f"above {1 - found.value:.3f}" if math.isfinite(found.value) else "any confidence"
    return TableEntry(f"{found.coverage:.1%}", found.coverage, "", from_here)


def risk_of(comparison: Comparison, method: str, at: np.ndarray | None = None) -> Abstaining:
    """Return coverage and risk of a method, at all thresholds or at the given ones."""
    curve: Any = abstaining_from_numbers if comparison.data.task == "regression" else abstaining
    predictions = [run.prediction for run in comparison.of(method)]
    found: Abstaining = curve(
        predictions, comparison.data.held_out[1], *(() if at is None else (at,))
    )
    return found


def _share(share: float) -> TableEntry:
    return TableEntry(f"{share:.2%}", float(share)) if math.isfinite(share) else TableEntry("-")


def _number(number: float) -> TableEntry:
    return TableEntry(format_number(number, RMSE), float(number))


def run_table(comparison: Comparison) -> Table:
    """Return the scores and the training time of every run."""
    columns = (
        *quality(comparison),
        next(column for column in COST if column.key == "training_seconds"),
    )
    lines = [
        TableRow(
            method_title(run.method),
            run.method,
            (
                TableEntry(str(run.seed), run.seed),
                *(
                    TableEntry(format_number(value(run, each), each), value(run, each))
                    for each in columns
                ),
            ),
        )
        for run in by_method(comparison)
    ]
    heads = (Head("Seed"), *(Head(column.title, column.unit) for column in columns))
    caption = "Scores on the held-out examples and training time, for every method and seed."
    return Table("runs", caption, "Method", heads, tuple(lines))


def by_method(comparison: Comparison) -> list[Run]:
    """Return the runs, grouped by method."""
    return [run for method in comparison.methods for run in comparison.of(method)]
