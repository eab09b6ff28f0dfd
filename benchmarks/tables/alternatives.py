"""Other choices of the recipe beside its defaults, on the tables that it may be chosen on.

    python -m benchmarks.tables.alternatives --seeds 2
    python -m benchmarks.tables.alternatives --choices refit "16 members" --tables segment ring

Score by score the difference from the defaults, paired by table and seed: the mean over tables, its
standard error over tables, and on how many tables it is better. CRPS and RMSE are compared by their
ratio, since tables differ in unit. What ran is kept and not run again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np
import torch
from rich.console import Console

if not __package__:  # run as a file: imports start at the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.pages import ROOT, Lines, as_rich
from benchmarks.tables.methods import ALTERNATIVES, OURS
from benchmarks.tables.registry import DEVELOPMENT
from benchmarks.tables.runs import MOST, read, run_all
from benchmarks.tables.summary import LOWER, Results

KEPT = ROOT / "runs" / "tables" / "alternatives.jsonl"
SCORES = ("nll", "accuracy", "crps", "rmse")
OF_A_UNIT = {"crps", "rmse"}


def effects(results: Results, choice: str, score: str) -> np.ndarray:
    """Return by table what a choice adds to a score of the defaults, or to 1 times it."""
    found = []
    for table in results.tables(score, (OURS, choice)):
        seeds = results.seeds(table, score, (OURS, choice))
        own, other = (results.values(table, each, score, seeds) for each in (OURS, choice))
        found.append(float((other / own - 1 if score in OF_A_UNIT else other - own).mean()))
    return np.array(found)


def cost(results: Results, choice: str) -> float:
    """Return the median over runs of the CPU seconds of a fit over those of the defaults."""
    return median(
        line["fit_seconds"] / results.lines[table, OURS, seed]["fit_seconds"]
        for (table, method, seed), line in results.lines.items()
        if method == choice and (table, OURS, seed) in results.lines
    )


def lines(results: Results, choices: Sequence[str]) -> Lines:
    """Return the table of choices."""
    found = [
        ["choice", *(f"{score}{' by' if score in OF_A_UNIT else ''}" for score in SCORES), "CPU"]
    ]
    for choice in choices:
        if not results.tables("fit_seconds", (OURS, choice)):
            continue
        cells = [_cell(effects(results, choice, score), score) for score in SCORES]
        found.append([choice, *cells, f"{cost(results, choice):.2f}"])
    return found


def _cell(apart: np.ndarray, score: str) -> str:
    if not len(apart):
        return "-"
    better = (apart < 0 if score in LOWER else apart > 0).sum()
    error = apart.std(ddof=1) / len(apart) ** 0.5 if len(apart) > 1 else float("nan")
    shown = (
        f"{apart.mean():+.1%} ± {error:.1%}"
        if score in OF_A_UNIT
        else (f"{apart.mean():+.4f} ± {error:.4f}")
    )
    return f"{shown}, {better} of {len(apart)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--choices", nargs="+", default=list(ALTERNATIVES), choices=ALTERNATIVES)
    parser.add_argument("--tables", nargs="+", default=list(DEVELOPMENT), choices=DEVELOPMENT)
    parser.add_argument("--seeds", type=int, default=2, metavar="COUNT")
    parser.add_argument("--file", type=Path, default=KEPT)
    given = parser.parse_args()
    torch.set_num_threads(1)
    tables = [DEVELOPMENT[name] for name in given.tables]
    for line in run_all(tables, [OURS, *given.choices], range(given.seeds), given.file, MOST):
        print(f"{line['table']:>14} {line['method']:>24} seed {line['seed']}")
    results = Results.of(read(given.file))
    title = "Other choices less the defaults; better on so many tables"
    Console(width=160).print(as_rich(title, lines(results, given.choices)))


if __name__ == "__main__":
    main()
