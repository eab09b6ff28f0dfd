"""Conformal intervals on the page: their width, and their coverage on other examples."""

from __future__ import annotations

import numpy as np
from scipy.stats import betabinom

from batchensemble.comparison.results import Comparison
from batchensemble.comparison.wording import method_title
from batchensemble.core.printed_tables import formatted
from batchensemble.decisions import ConformalIntervals
from batchensemble.decisions.conformal.quantile import least_examples, rank_of
from batchensemble.metrics.bootstrap import LEVEL
from batchensemble.predictions import RegressionPrediction, from_arrays, to_arrays
from batchensemble.report.sections.tables import Head, Table, TableEntry, TableRow

INTERVAL_LEVELS = (0.8, 0.9, 0.95)


def interval_table(comparison: Comparison, *, seed: int = 0) -> Table:
    """Return the coverage and width of conformal intervals of each method, for its first seed.

    The width is fitted on a random half of the held-out examples and the coverage measured on the
    other half. Its distribution is known: with ``k`` the rank of the quantile among ``n`` examples,
    the number of covered examples is beta-binomial with ``k`` and ``n + 1 - k`` (Vovk 2012, arXiv
    1209.2673).

    Args:
        comparison: a comparison of predicted numbers with at least one finished run.
        seed: seed of the random split into halves.
    """
    targets = comparison.data.held_out[1]
    order = np.random.default_rng(seed).permutation(len(targets))
    learn, count = order[: len(order) // 2], order[len(order) // 2 :]
    lines = []
    for level in INTERVAL_LEVELS:
        if len(learn) < least_examples(level):
            entries = [TableEntry("too few examples")] * (1 + len(comparison.methods))
        else:
            entries = []
            for method in comparison.methods:
                prediction = comparison.of(method)[0].prediction
                assert isinstance(prediction, RegressionPrediction)
                entries.append(_entry(prediction, targets, learn, count, level))
            entries.append(_by_chance(level, len(learn), len(count)))
        lines.append(TableRow(f"{level:.0%}", "", tuple(entries)))
    caption = (
        "Conformal intervals, fitted on a random half of the held-out examples: coverage on the "
        "other half, and mean width in the unit of the target. By chance: the range in which the "
        f"coverage is in {LEVEL:.0%} of the cases. First seed."
    )
    heads = (*(Head(method_title(method)) for method in comparison.methods), Head("By chance"))
    return Table("intervals", caption, "Nominal coverage", heads, tuple(lines))


def _entry(
    prediction: RegressionPrediction,
    targets: np.ndarray,
    learn: np.ndarray,
    count: np.ndarray,
    level: float,
) -> TableEntry:
    found = ConformalIntervals(confidence=level).fit(_of(prediction, learn), targets[learn])
    given = found(_of(prediction, count))
    held = given.coverage(targets[count])
    return TableEntry(f"{held:.1%}", held, "", f"width {formatted(float(given.widths.mean()))}")


def _by_chance(level: float, fitted: int, counted: int) -> TableEntry:
    rank = rank_of(fitted, level)
    low, high = betabinom(counted, rank, fitted + 1 - rank).interval(LEVEL)
    return TableEntry(f"{low / counted:.1%} to {high / counted:.1%}", float(low / counted))


def _of(prediction: RegressionPrediction, rows: np.ndarray) -> RegressionPrediction:
    """Return the prediction of some examples."""
    parts = {
        name: each if name.endswith(".levels") else each[rows]
        for name, each in to_arrays(prediction).items()
    }
    found = from_arrays(parts)
    assert isinstance(found, RegressionPrediction)
    return found
