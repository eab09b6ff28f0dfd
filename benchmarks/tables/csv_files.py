"""Write the tables as CSV files, as pandas writes them: to try the command line on.

    python -m benchmarks.tables.csv_files DIR

Each ``DIR/NAME.csv`` has at most 2,000 rows to train on, with words, gaps and dates, and with the
number of the row in a column without a name; ``DIR/NAME-new.csv`` has others, and
``DIR/targets.csv`` says what is predicted.
(A module called ``csv`` would hide Python's own from scripts beside it.)
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd

if not __package__:  # run as a file: imports start at the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.tables.registry import TABLES, Table, split


def write(table: Table, folder: Path, seed: int = 0) -> None:
    """Write the rows to train on and the others."""
    parts = split(table, seed)
    for name, X, y in (
        (table.name, parts.train, parts.y_train),
        (f"{table.name}-new", parts.test, parts.y_test),
    ):
        X.assign(**{table.target: y}).to_csv(folder / f"{name}.csv")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--tables", nargs="+", default=list(TABLES), metavar="NAME")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    tables = [TABLES[name] for name in options.tables]
    for table in tables:
        write(table, options.folder)
        print(options.folder / f"{table.name}.csv")
    targets = pd.DataFrame(
        {
            "table": [table.name for table in tables],
            "task": [table.task for table in tables],
            "target": [table.target for table in tables],
        }
    )
    targets.to_csv(options.folder / "targets.csv", index=False)


if __name__ == "__main__":
    main()
