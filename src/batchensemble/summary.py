"""The numbers of a comparison as one table: mean and deviation over the seeds, the best marked."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from batchensemble.compare import Comparison, Run
from batchensemble.metrics import example_losses

# The long names are for prose and figures; the short ones are what users type.
METHOD_NAMES = {
    "single": "Single network",
    "deep": "Deep ensemble",
    "batch": "BatchEnsemble",
    "mimo": "MIMO",
}


@dataclass(frozen=True)
class Column:
    """One number of a run, and how tables show it.

    Attributes:
        key: its name in :class:`batchensemble.metrics.Scores` or
            :class:`batchensemble.cost.Cost`.
        title: heading of the column.
        unit: of the numbers; empty for shares and counts.
        better: which direction is good; ``None`` where neither is.
        format: how Python formats one number, as in ``format(0.5, ".4f")``.
    """

    key: str
    title: str
    unit: str
    better: Literal["higher", "lower"] | None
    format: str


CLASSIFICATION = (
    Column("accuracy", "Accuracy", "", "higher", ".4f"),
    Column("nll", "NLL", "nats", "lower", ".4f"),
    Column("brier", "Brier score", "", "lower", ".4f"),
    Column("ece", "ECE", "", "lower", ".4f"),
    Column("mutual_information", "Mutual information", "nats", None, ".5f"),
    Column("disagreement", "Disagreement", "", None, ".4f"),
)
REGRESSION = (
    Column("rmse", "RMSE", "", "lower", ".4g"),
    Column("mae", "MAE", "", "lower", ".4g"),
    Column("r2", "R²", "", "higher", ".4f"),
    Column("nll", "NLL", "nats", "lower", ".4f"),
    Column("crps", "CRPS", "", "lower", ".4g"),
    Column("coverage", "Coverage of 90%", "", None, ".4f"),
    Column("width", "Width of 90%", "", None, ".4g"),
    Column("aleatoric", "Aleatoric deviation", "", None, ".4g"),
    Column("epistemic", "Epistemic deviation", "", None, ".4g"),
)
QUALITY = {"classification": CLASSIFICATION, "regression": REGRESSION}
# Calls have no best: running all members in one call saves calls, not arithmetic.
COST = (
    Column("parameters", "Parameters", "", "lower", ",.0f"),
    Column("parameters_per_member", "Own parameters of a member", "", None, ",.0f"),
    Column("parameter_ratio", "Ratio to one network", "", "lower", ".2f"),
    Column("forward_calls", "Forward calls", "", None, ",.0f"),
    Column("training_multiply_adds", "Multiply-adds, training", "per example", "lower", ",.0f"),
    Column("prediction_multiply_adds", "Multiply-adds, prediction", "per example", "lower", ",.0f"),
    Column("training_seconds", "Training time", "s", "lower", ".2f"),
    Column("milliseconds_per_1000", "1,000 predictions", "ms", "lower", ".2f"),
)


@dataclass(frozen=True)
class Cell:
    """One number of one method.

    Attributes:
        mean: over the seeds; NaN if a run has no finite value.
        std: sample deviation over the seeds; ``None`` with one seed.
        best: whether no other method's number, as printed, is better.
        text: the mean, with `` ± `` and the deviation where the seeds differ.
    """

    mean: float
    std: float | None
    best: bool
    text: str


@dataclass(frozen=True)
class Row:
    """The numbers of one method.

    Attributes:
        method: its name in :data:`batchensemble.ensembles.METHODS`.
        name: its long name.
        cells: one for each of the columns of :func:`quality` and :data:`COST`, by its key.
    """

    method: str
    name: str
    cells: dict[str, Cell]


def summarise(comparison: Comparison) -> list[Row]:
    """Return one row a method, in the order asked for; no rows if no run is finished.

    Args:
        comparison: from :func:`batchensemble.compare.compare`.

    Example:
        >>> from batchensemble.compare import Settings, compare
        >>> from batchensemble.data import load
        >>> quick = Settings(methods=("single", "deep"), epochs=1)
        >>> row = summarise(compare(load("breast_cancer"), quick))[1]
        >>> row.name, row.cells["parameter_ratio"].text
        ('Deep ensemble', '3.00')
    """
    methods, columns = comparison.methods, (*quality(comparison), *COST)
    cells = [
        _cells(column, [[value(run, column) for run in comparison.of(m)] for m in methods])
        for column in columns
    ]
    return [
        Row(
            method,
            METHOD_NAMES.get(method, method),
            {column.key: own[i] for column, own in zip(columns, cells, strict=True)},
        )
        for i, method in enumerate(methods)
    ]


def quality(comparison: Comparison) -> tuple[Column, ...]:
    """Return the scores that tables of a comparison show: those of its task that its runs have."""
    scores = comparison.runs[0].scores if comparison.runs else {}
    return tuple(
        column
        for column in QUALITY[comparison.data.task]
        if not comparison.runs or column.key in scores
    )


def headline(comparison: Comparison) -> Column:
    """Return the score that ranks methods: the NLL, or the CRPS of numbers without a density."""
    found = {column.key: column for column in quality(comparison)}
    return found.get("nll") or found["crps"]


def losses_of(comparison: Comparison, method: str) -> np.ndarray:
    """Return the :func:`headline` of each held-out example, averaged over the seeds."""
    targets, runs = comparison.data.held_out[1], comparison.of(method)
    each: np.ndarray = np.mean([example_losses(run.prediction, targets) for run in runs], 0)
    return each


def value(run: Run, column: Column) -> float:
    """Return a column's number of one run."""
    if column.key in run.scores:
        return float(run.scores[column.key])
    return float(getattr(run.cost, column.key))


def shown(number: float, column: Column) -> str:
    """Return a number as the column prints it; a dash where there is none.

    Example:
        >>> shown(17154.0, COST[0]), shown(float("nan"), COST[0])
        ('17,154', '-')
    """
    return format(number, column.format) if math.isfinite(number) else "-"


def _cells(column: Column, values: Sequence[Sequence[float]]) -> list[Cell]:
    """Return the cells of one column from the values of each method's runs."""
    means = [statistics.fmean(own) for own in values]
    best = _best(column, means)
    cells = []
    for own, mean, mark in zip(values, means, best, strict=True):
        text = shown(mean, column)
        std = None
        if len(own) > 1:
            std = statistics.stdev(own) if math.isfinite(mean) else math.nan
            if std > 0:
                text += f" ± {shown(std, column)}"
        cells.append(Cell(mean, std, mark, text))
    return cells


def _best(column: Column, means: Sequence[float]) -> list[bool]:
    """Mark the best as printed, so that equal texts are never told apart; none if all are equal."""
    texts = [shown(mean, column) for mean in means]
    finite = [mean for mean in means if math.isfinite(mean)]
    if column.better is None or not finite or len(set(texts)) == 1:
        return [False] * len(means)
    winner = shown(max(finite) if column.better == "higher" else min(finite), column)
    return [text == winner for text in texts]
