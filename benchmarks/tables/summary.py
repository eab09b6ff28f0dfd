"""Print what the runs come to: ranks, wins, paired differences, calibration and seconds.

python -m benchmarks.tables.summary
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

import numpy as np
from scipy.stats import rankdata

if not __package__:  # run as a file: imports start at the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.pages import Lines, as_rich
from benchmarks.tables.methods import OURS
from benchmarks.tables.runs import KEPT, MOST, Line, read

BOOSTING = ("boosting, stopped", "boosting")
TREES = (*BOOSTING, "lightgbm", "forest")
LOWER = {"nll", "brier", "ece", "rmse", "crps"}
ENOUGH = 500  # rows of a table whose coverage is judged


@dataclass(frozen=True)
class Results:
    """The runs by what they share.

    Attributes:
        lines: the run of each table, method and seed.
    """

    lines: Mapping[tuple[str, str, int], Line]

    @classmethod
    def of(cls, lines: Iterable[Line], most: int = MOST) -> Results:
        """Return the runs with so many training rows at most."""
        kept = [line for line in lines if line["most"] == most]
        return cls({(line["table"], line["method"], line["seed"]): line for line in kept})

    @property
    def methods(self) -> list[str]:
        """The methods, in the order of the runs."""
        return list(dict.fromkeys(method for _, method, _ in self.lines))

    def tables(self, score: str, methods: Sequence[str]) -> list[str]:
        """Return the tables on which all of the methods have this score for a seed at least."""
        names = dict.fromkeys(table for table, _, _ in self.lines)
        return [name for name in names if self.seeds(name, score, methods)]

    def seeds(self, table: str, score: str, methods: Sequence[str]) -> list[int]:
        """Return the seeds that all of the methods have of a table."""
        seeds = sorted({seed for name, _, seed in self.lines if name == table})
        return [
            seed
            for seed in seeds
            if all(score in self.lines.get((table, method, seed), {}) for method in methods)
        ]

    def values(self, table: str, method: str, score: str, seeds: Sequence[int]) -> np.ndarray:
        """Return a score for each seed."""
        return np.array([float(self.lines[table, method, seed][score]) for seed in seeds])


def ranks(results: Results, score: str, methods: Sequence[str]) -> tuple[dict[str, float], int]:
    """Return the mean rank of each method, 1 being best, and the number of tables."""
    found: dict[str, list[float]] = defaultdict(list)
    tables = results.tables(score, methods)
    for table in tables:
        seeds = results.seeds(table, score, methods)
        means = [results.values(table, method, score, seeds).mean() for method in methods]
        placed = rankdata(means if score in LOWER else np.negative(means))
        for method, rank in zip(methods, placed, strict=True):
            found[method].append(float(rank))
    return {method: mean(each) for method, each in found.items()}, len(tables)


def differences(results: Results, score: str, other: str) -> dict[str, tuple[float, float]]:
    """Return ours less another's, by table: the mean over seeds and its standard error.

    Of one seed there is no standard error (NaN).
    """
    found = {}
    for table in results.tables(score, (OURS, other)):
        seeds = results.seeds(table, score, (OURS, other))
        apart = results.values(table, OURS, score, seeds) - results.values(
            table, other, score, seeds
        )
        error = apart.std(ddof=1) / len(apart) ** 0.5 if len(apart) > 1 else np.nan
        found[table] = float(apart.mean()), float(error)
    return found


def wins(results: Results, score: str, other: str) -> tuple[int, int]:
    """Return on how many tables ours is better than another, and on how many both ran."""
    apart = [value for value, _ in differences(results, score, other).values()]
    better = [value < 0 if score in LOWER else value > 0 for value in apart]
    return sum(better), len(better)


def accuracy_behind(results: Results) -> dict[str, tuple[str, float, float]]:
    """Return the best of the trees by table, ours less its accuracy, and the standard error.

    The error is that of the difference over test rows, row by row, and the seeds' splits are taken
    for independent.
    """
    rivals = [method for method in TREES if method in results.methods]
    found = {}
    for table in results.tables("correct", (OURS, *rivals)):
        seeds = results.seeds(table, "correct", (OURS, *rivals))
        best = max(rivals, key=lambda each: results.values(table, each, "accuracy", seeds).mean())
        apart = [
            _right(results.lines[table, OURS, seed]) - _right(results.lines[table, best, seed])
            for seed in seeds
        ]
        error = sum(each.var() / len(each) for each in apart) ** 0.5 / len(apart)
        found[table] = best, mean(float(each.mean()) for each in apart), float(error)
    return found


def _right(line: Line) -> np.ndarray:
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(line["correct"]), np.uint8))
    return bits[: line["test_rows"]].astype(float)


def seconds(results: Results, method: str) -> float:
    """Return the median over tables of the CPU seconds of a fit, each the median of its seeds."""
    by_table: dict[str, list[float]] = defaultdict(list)
    for (table, name, _), line in results.lines.items():
        if name == method:
            by_table[table].append(line["fit_seconds"])
    return median(median(each) for each in by_table.values()) if by_table else float("nan")


def ratio(results: Results, other: str) -> float:
    """Return the median over tables and seeds of our CPU seconds by another's, pair by pair."""
    pairs = [
        line["fit_seconds"] / max(results.lines[table, other, seed]["fit_seconds"], 1e-3)
        for (table, name, seed), line in results.lines.items()
        if name == OURS and (table, other, seed) in results.lines
    ]
    return median(pairs) if pairs else float("nan")


def rank_lines(results: Results) -> Lines:
    """Return the table of mean ranks."""
    methods = results.methods
    lines = [["mean rank", *methods]]
    for score, what in (
        ("nll", "classes"),
        ("brier", "classes"),
        ("accuracy", "classes"),
        ("auc", "classes"),
        ("ece", "classes"),
        ("crps", "numbers"),
        ("rmse", "numbers"),
    ):
        found, count = ranks(results, score, methods)
        cells = [f"{found[method]:.2f}" if count else "-" for method in methods]
        lines.append([f"{score}, {count} tables of {what}", *cells])
    cells = [f"{seconds(results, method):.2f}" for method in methods]
    return [*lines, ["CPU seconds of a fit, median", *cells]]


def goal_lines(results: Results) -> Lines:
    """Return what is to be reached, and what was."""
    lines = [["what", "to reach", "found"]]
    for score in ("nll", "crps", "brier"):
        found, count = ranks(results, score, results.methods)
        best = min(found, key=lambda each: found[each]) if found else "-"
        rank = f"{found[OURS]:.2f} on {count} tables; first is {best}" if OURS in found else "-"
        lines.append([f"mean rank on {score}", "first", rank])
    for other in BOOSTING:
        lines.append([f"wins on NLL over {other}", "15 of 17", _won(results, "nll", other)])
    lines.append(["wins on NLL over tabm", "9 of 14", _won(results, "nll", "tabm")])
    lines.append(["wins on RMSE over tabm", "6 of 10", _won(results, "rmse", "tabm")])
    behind = accuracy_behind(results)
    close = sum(apart >= -error for _, apart, error in behind.values())
    lines.append(
        [
            "accuracy within a standard error of the best of boosting and forests",
            "14 of 17",
            f"{close} of {len(behind)}",
        ]
    )
    lines.append(["mean ECE", "0.030", _mean(results, "ece")])
    lines.append(["coverage of intervals at 90 %", "within 0.03 each", _coverage(results)])
    ours, fast = seconds(results, OURS), seconds(results, "ours fast")
    stopped = ratio(results, "boosting, stopped")
    lines.append(
        [
            "CPU seconds of a fit, and by boosting's (stopped; plain)",
            "3, 15",
            f"{ours:.2f}, {stopped:.0f}; {ratio(results, 'boosting'):.0f}",
        ]
    )
    return [*lines, ["CPU seconds of a fit with fast=True", "1.5", f"{fast:.2f}"]]


def _won(results: Results, score: str, other: str) -> str:
    better, count = wins(results, score, other)
    return f"{better} of {count}"


def _mean(results: Results, score: str) -> str:
    tables = results.tables(score, (OURS,))
    each = [results.values(t, OURS, score, results.seeds(t, score, (OURS,))).mean() for t in tables]
    return f"{mean(map(float, each)):.4f} on {len(each)} tables" if each else "-"


def _coverage(results: Results) -> str:
    found = {}
    for table in results.tables("coverage", (OURS,)):
        seeds = results.seeds(table, "coverage", (OURS,))
        line = results.lines[table, OURS, seeds[0]]
        if line["rows"] + line["test_rows"] >= ENOUGH:
            found[table] = float(results.values(table, OURS, "coverage", seeds).mean())
    off = [f"{table} {value:.3f}" for table, value in found.items() if abs(value - 0.9) > 0.03]
    average = f"{mean(found.values()):.3f} on {len(found)} tables" if found else "-"
    return f"{average}; off: {', '.join(off) or 'none'}"


def difference_lines(results: Results, score: str) -> Lines:
    """Return ours less each other method's score, by table, with standard errors over seeds."""
    others = [method for method in results.methods if method != OURS]
    by_method = {other: differences(results, score, other) for other in others}
    tables = results.tables(score, (OURS,))
    lines = [[f"{score}: ours less ...", OURS, *others]]
    for table in tables:
        own = results.values(table, OURS, score, results.seeds(table, score, (OURS,))).mean()
        cells = [_signed(by_method[other].get(table)) for other in others]
        lines.append([table, f"{own:.4g}", *cells])
    return lines


def _signed(found: tuple[float, float] | None) -> str:
    if found is None:
        return "-"
    value, error = found
    return f"{value:+.3g}" + ("" if np.isnan(error) else f" ± {error:.1g}")


def size_lines(by_size: Mapping[int, Results]) -> Lines:
    """Return ours beside stopped boosting where there are more rows, by size and table."""
    rival = BOOSTING[0]
    lines = [["rows", "table", "score", OURS, rival, "CPU seconds", "its", "MB at most"]]
    for size, results in sorted(by_size.items()):
        for score in ("nll", "crps"):
            for table in results.tables(score, (OURS, rival)):
                seeds = results.seeds(table, score, (OURS, rival))
                values = (results.values(table, each, score, seeds) for each in (OURS, rival))
                cells = [f"{value.mean():.4g}" for value in values]
                for what, method, digits in (
                    ("fit_seconds", OURS, 1),
                    ("fit_seconds", rival, 1),
                    ("peak_mb", OURS, 0),
                ):
                    value = median(results.values(table, method, what, seeds))
                    cells.append(f"{value:,.{digits}f}")
                lines.append([f"{size:,}", table, score, *cells])
    return lines


def accuracy_lines(results: Results) -> Lines:
    """Return accuracy beside the best of the trees, by table."""
    lines = [["accuracy", "best of trees", "ours less it", "standard error"]]
    for table, (best, apart, error) in accuracy_behind(results).items():
        lines.append([table, best, f"{apart:+.4f}", f"{error:.4f}"])
    return lines


def main() -> None:
    from rich.console import Console

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--file", type=Path, default=KEPT)
    parser.add_argument("--most", type=int, default=MOST, help="most training rows of the runs")
    parser.add_argument("--methods", nargs="+", help="which ones to rank; by default all that ran")
    options = parser.parse_args()
    lines = read(options.file)
    if options.methods:
        lines = [line for line in lines if line["method"] in options.methods]
    results = Results.of(lines, options.most)
    console = Console(width=200)
    console.print(as_rich("Mean ranks, 1 is best", rank_lines(results)))
    console.print(as_rich("What is to be reached", goal_lines(results), text_columns=3))
    sizes = {line["most"] for line in lines if line["most"] > MOST}
    if sizes:
        by_size = {size: Results.of(lines, size) for size in sizes}
        console.print(as_rich("More rows", size_lines(by_size), text_columns=3))
    if OURS in results.methods:
        console.print(as_rich("Accuracy", accuracy_lines(results), text_columns=2))
        for score in ("nll", "brier", "ece", "crps", "rmse"):
            console.print(as_rich(score, difference_lines(results, score)))


if __name__ == "__main__":
    main()
