"""The numbers of a comparison as one table: mean and deviation over the seeds, the best marked.

Only significant differences are marked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from batchensemble.comparison.differences import Differences
from batchensemble.comparison.results import Comparison, Run
from batchensemble.comparison.wording import method_title
from batchensemble.core.printed_tables import formatted
from batchensemble.metrics.bootstrap import spread


@dataclass(frozen=True)
class Column:
    """One number of a run, and how tables show it.

    Attributes:
        key: its name in :class:`batchensemble.metrics.Scores` or
            :class:`batchensemble.comparison.cost.Cost`.
        title: heading of the column.
        unit: unit of the numbers; empty for shares and counts.
        better: whether higher or lower is better; ``None`` where neither is.
        format: format specification of one number, as in ``format(0.5, ".4f")``.
        noise: source of its random variation: ``"examples"``, the held-out examples and the seeds;
            ``"runs"``, a measurement that differs from run to run; ``"none"``, a count;
            ``"untested"``, that of the examples in a score that is no mean over them, so that
            differences have no interval.
    """

    key: str
    title: str
    unit: str
    better: Literal["higher", "lower"] | None
    format: str
    noise: Literal["examples", "runs", "none", "untested"] = "examples"


CLASSIFICATION = (
    Column("accuracy", "Accuracy", "", "higher", ".4f"),
    Column("nll", "NLL", "nats", "lower", ".4f"),
    Column("brier", "Brier score", "", "lower", ".4f"),
    Column("ece", "ECE", "", "lower", ".4f"),
    Column("balanced_accuracy", "Balanced accuracy", "", "higher", ".4f", "untested"),
    Column("auc", "AUC", "", "higher", ".4f", "untested"),
    Column("average_precision", "Average precision", "", "higher", ".4f", "untested"),
    Column("mutual_information", "Mutual information", "nats", None, ".5f"),
    Column("disagreement", "Disagreement", "", None, ".4f"),
)
REGRESSION = (
    Column("rmse", "RMSE", "", "lower", "#.4g"),
    Column("mae", "MAE", "", "lower", "#.4g"),
    Column("r2", "R²", "", "higher", ".4f"),
    Column("nll", "NLL", "nats", "lower", ".4f"),
    Column("crps", "CRPS", "", "lower", "#.4g"),
    Column("coverage", "Coverage (90%)", "", None, ".4f"),
    Column("width", "Width (90%)", "", None, "#.4g"),
    Column("aleatoric", "Aleatoric deviation", "", None, "#.4g"),
    Column("epistemic", "Epistemic deviation", "", None, "#.4g"),
)
QUALITY = {"classification": CLASSIFICATION, "regression": REGRESSION}
# Calls have no best: running all members in one call saves calls, not arithmetic.
COST = (
    Column("parameters", "Parameters", "", "lower", ",.0f", "none"),
    Column("parameters_per_member", "Own parameters per member", "", None, ",.0f", "none"),
    Column("parameter_ratio", "Ratio to one network", "", "lower", ".2f", "none"),
    Column("forward_calls", "Forward calls", "", None, ",.0f", "none"),
    Column(
        "training_multiply_adds", "Multiply-adds, training", "per example", "lower", ",.0f", "none"
    ),
    Column(
        "prediction_multiply_adds",
        "Multiply-adds, prediction",
        "per example",
        "lower",
        ",.0f",
        "none",
    ),
    Column("training_seconds", "Training time", "s", "lower", ".2f", "runs"),
    Column("milliseconds_per_1000", "Time of 1,000 predictions", "ms", "lower", ".2f", "runs"),
)


@dataclass(frozen=True)
class Cell:
    """One number of one method.

    Attributes:
        mean: mean over the seeds; NaN if a run has no finite value.
        std: sample standard deviation over the seeds; ``None`` with one seed.
        best: whether it is significantly better than every other method's.
        tied: whether it is the best or not significantly different from the best, where no method
            is ``best``.
        text: the mean, with `` ± `` and the deviation where the seeds differ.
    """

    mean: float
    std: float | None
    best: bool
    tied: bool
    text: str


@dataclass(frozen=True)
class Row:
    """The numbers of one method.

    Attributes:
        method: its name in :data:`batchensemble.ensembles.METHODS`.
        name: its title, such as ``"Deep ensemble"``.
        cells: its numbers, by the keys of the columns of :func:`quality` and :data:`COST`.
    """

    method: str
    name: str
    cells: dict[str, Cell]


def summarise(comparison: Comparison, differences: Differences | None = None) -> list[Row]:
    """Return one row for each method, in the order asked for; no rows without a finished run.

    Args:
        comparison: a comparison, from :func:`batchensemble.comparison.compare.compare`.
        differences: its differences, from :func:`compare_methods`; computed here by default, which
            takes a second or two.

    Example:
        >>> from batchensemble.comparison.compare import Settings, compare
        >>> from batchensemble.data.datasets import load_dataset
        >>> quick = Settings(methods=("single", "deep"), epochs=1)
        >>> row = summarise(compare(load_dataset("breast_cancer"), quick))[1]
        >>> row.name, row.cells["parameter_ratio"].text
        ('Deep ensemble', '3.00')
    """
    methods, columns = comparison.methods, (*quality(comparison), *COST)
    differences = differences or compare_methods(comparison)
    cells = [
        _cells(
            column,
            {method: [value(run, column) for run in comparison.of(method)] for method in methods},
            differences,
        )
        for column in columns
    ]
    return [
        Row(
            method,
            method_title(method),
            {column.key: own[i] for column, own in zip(columns, cells, strict=True)},
        )
        for i, method in enumerate(methods)
    ]


def quality(comparison: Comparison) -> tuple[Column, ...]:
    """Return the columns of scores of a comparison: those of its task that all its runs have."""
    return tuple(
        column
        for column in QUALITY[comparison.data.task]
        if all(column.key in run.scores for run in comparison.runs)
    )


def headline(comparison: Comparison) -> Column:
    """Return the score that ranks methods: the NLL, or the CRPS without a density."""
    found = {column.key: column for column in quality(comparison)}
    return found.get("nll") or found["crps"]


def compare_methods(comparison: Comparison) -> Differences:
    """Return the differences between methods in every column with a best value."""
    columns = (*quality(comparison), *COST)
    compared = [column for column in columns if column.better is not None]
    return Differences(
        comparison,
        scores=[column.key for column in compared if column.noise == "examples"],
        costs=[column.key for column in compared if column.noise == "runs"],
    )


def value(run: Run, column: Column) -> float:
    """Return the number of one run in a column."""
    if column.key in run.scores:
        return float(run.scores[column.key])
    return float(getattr(run.cost, column.key))


def format_number(number: float, column: Column) -> str:
    """Return a number in the format of a column; a dash for NaN and infinities.

    Example:
        >>> format_number(17154.0, COST[0]), format_number(float("nan"), COST[0])
        ('17,154', '-')
        >>> format_number(50.9, REGRESSION[0]), format_number(13519.6, REGRESSION[0])
        ('50.90', '13,520')
    """
    return formatted(number, column.format) if math.isfinite(number) else "-"


def format_deviation(deviation: float, mean: float, column: Column) -> str:
    """Return a standard deviation with as many decimals as the mean has in the column.

    Example:
        >>> format_deviation(0.03965, 51.11, REGRESSION[0])
        '0.04'
    """
    text = format_number(mean, column)
    if "e" in text or not math.isfinite(deviation):
        return format_number(deviation, column)
    return f"{deviation:,.{len(text.partition('.')[2])}f}"


def _cells(column: Column, values: dict[str, list[float]], differences: Differences) -> list[Cell]:
    """Return the cells of one column from the values of each method's runs."""
    spreads = {method: spread(own) for method, own in values.items()}
    best = _best(column, {method: mean for method, (mean, _) in spreads.items()}, differences)
    cells = []
    for method, (mean, std) in spreads.items():
        text = format_number(mean, column)
        if std is not None and std > 0:
            text += f" ± {format_deviation(std, mean, column)}"
        marked = method in best
        cells.append(Cell(mean, std, marked and len(best) == 1, marked and len(best) > 1, text))
    return cells


def _best(column: Column, means: dict[str, float], differences: Differences) -> set[str]:
    """Return the best method and those not significantly different from it.

    Counts are equal if they print the same. Empty where all methods print the same, or where the
    differences have no interval.
    """
    finite = {method: mean for method, mean in means.items() if math.isfinite(mean)}
    texts = {method: format_number(mean, column) for method, mean in means.items()}
    if column.better is None or column.noise == "untested":
        return set()
    if not finite or len(set(texts.values())) == 1:
        return set()
    winner = (max if column.better == "higher" else min)(finite, key=lambda each: finite[each])
    if column.noise == "none":
        return {method for method, text in texts.items() if text == texts[winner]}
    to_winner = {
        method: differences.between(column.key, method, winner)
        for method in finite
        if method != winner
    }
    if None in to_winner.values():
        return set()
    tied = {method for method, each in to_winner.items() if each and not each.significant}
    return {winner, *tied}
