"""Training from a Parquet file that is larger than the memory it may take, over arrays in memory.

    python benchmarks/performance/streaming.py                     # about two minutes
    python benchmarks/performance/streaming.py --rows 1000000      # a smaller file
    python benchmarks/performance/streaming.py --write             # and into docs/performance.md

An epoch of 4 members of 20 → 64 → 64 → 2 in batches of 4,096: once from the file, as 10 million
rows of 20 numbers in float64, once from the same rows in memory as float32. Each has a process of
its own. Memory: the most that the process ever held, beyond what it held after its imports and a
first small training.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch
from rich.progress import track
from torch import Tensor, nn

import batchensemble as be
from batchensemble.data.sources import MEMORY_LIMIT

if not __package__:  # run as a file: imports start at the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.pages import THREADS, Lines
from benchmarks.performance.data_growth import peak_bytes
from benchmarks.performance.parts import Numbers, Part, arguments_of

ROWS = 10_000_000
DRY_ROWS = 100_000
FEATURES = 20
BATCH = 4096
GROUP_ROWS = 250_000
MEGABYTES_TO_REACH = 800
RATE_TO_REACH = 0.7


def measure(seconds: float, rows: int = ROWS) -> Numbers:
    """Write the file, and train from it and from memory."""
    rows = rows if seconds else DRY_ROWS
    fresh = multiprocessing.get_context("spawn")
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.parquet"
        write(path, rows)
        for name in track(("memory", "file"), "an epoch from"):
            with fresh.Pool(1) as pool:
                found[name] = pool.apply(an_epoch, (str(path), rows, name == "memory"))
        size = path.stat().st_size
    return [{"rows": rows, "file": size, "streamed": found["file"], "in memory": found["memory"]}]


def write(path: Path, rows: int) -> None:
    """Write noise, and whether its first number is positive, one row group after the other."""
    writer = None
    for features, targets in parts(rows):
        columns = {f"x{number}": column for number, column in enumerate(features.T)}
        table = pa.table({**columns, "y": targets})
        if writer is None:
            writer = pyarrow.parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def parts(rows: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the rows of the file, as many as a row group holds."""
    generator = np.random.default_rng(0)
    for start in range(0, rows, GROUP_ROWS):
        features = generator.normal(size=(min(GROUP_ROWS, rows - start), FEATURES))
        yield features, (features[:, 0] > 0).astype(np.int64)


def an_epoch(path: str, rows: int, in_memory: bool) -> dict[str, float]:
    """Train for an epoch; return rows a second, and bytes beyond those after the imports."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    layers = [nn.Linear(FEATURES, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2)]
    model = be.BatchEnsemble(nn.Sequential(*layers), members=4)
    be.fit(model, rows_in_memory(4 * BATCH), epochs=1, batch_size=BATCH)  # loads what it needs
    before = peak_bytes()
    data = rows_in_memory(rows) if in_memory else path
    # A smaller file than the default's limit is streamed all the same.
    limit = MEMORY_LIMIT if 4 * FEATURES * rows > MEMORY_LIMIT else 2 * FEATURES * rows
    options = {} if in_memory else {"target": "y", "memory_limit": limit}
    history = be.fit(model, data, epochs=1, batch_size=BATCH, **options)
    return {
        "rate": history.examples_per_second,
        "loss": history.losses[0],
        "beyond": peak_bytes() - before,
    }


def rows_in_memory(rows: int) -> tuple[Tensor, Tensor]:
    """Return the rows of the file as tensors."""
    X, y = torch.empty(rows, FEATURES), torch.empty(rows, dtype=torch.int64)
    start = 0
    for features, targets in parts(rows):
        X[start : start + len(features)] = torch.from_numpy(features)
        y[start : start + len(features)] = torch.from_numpy(targets)
        start += len(features)
    return X, y


def lines(numbers: Numbers) -> Lines:
    """Return the table."""
    [found] = numbers
    streamed, in_memory = found["streamed"], found["in memory"]
    rate = streamed["rate"] / in_memory["rate"]
    megabytes = streamed["beyond"] / 1e6
    return [
        ["from", "rows a second", "over in memory", "beyond the imports, MB", "loss of the epoch"],
        [
            f"arrays of {found['rows']:,} rows",
            f"{in_memory['rate']:,.0f}",
            "1.00",
            f"{in_memory['beyond'] / 1e6:.0f}",
            f"{in_memory['loss']:.4f}",
        ],
        [
            f"a Parquet file of {found['file'] / 1e9:.2f} GB",
            f"{streamed['rate']:,.0f}",
            f"{rate:.2f} ({RATE_TO_REACH:.2f})",
            f"{megabytes:.0f} ({MEGABYTES_TO_REACH})",
            f"{streamed['loss']:.4f}",
        ],
    ]


PART = Part("streaming", __doc__, measure, {"streaming": lines})


def main() -> None:
    """Do what the command line says."""
    parser: argparse.ArgumentParser = arguments_of(__doc__)
    parser.add_argument("--rows", type=int, default=ROWS, help=f"of the file (default {ROWS:,})")
    arguments = parser.parse_args()
    part = Part("streaming", __doc__, lambda seconds: measure(seconds, arguments.rows), PART.tables)
    part.run(arguments.seconds, write=arguments.write)


if __name__ == "__main__":
    main()
