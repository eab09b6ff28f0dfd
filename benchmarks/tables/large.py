"""A large table, streamed from Parquet, through train and predict: rows a second, and memory.

    python -m benchmarks.tables.large                     # a million rows of 100 columns
    python -m benchmarks.tables.large --rows 200000
    python -m benchmarks.tables.large --batch-size 4096 --members 4

The columns are numbers, half of them with gaps, words of few and of thousands of levels, truth
values and times; a file is made for a quarter of the rows, and one for all, and what they take is
printed side by side. Each command is a process of its own, whose largest memory the system tells;
what a process takes that imports the library and does nothing stands beside it. The rate of an
epoch is that of the history which train keeps.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

if not __package__:  # run as a file: imports start at the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.pages import Lines, as_rich

ROWS = 1_000_000
GROUP = 50_000
NUMBERS, WORDS, MANY, TRUTHS, TIMES = 70, 15, 5, 5, 5
LEVELS = 5_000


@dataclass(frozen=True)
class Taken:
    """What a command took.

    Attributes:
        seconds: by the clock.
        megabytes: the most that it held.
        output: what it printed.
    """

    seconds: float
    megabytes: float
    output: str


def write(path: Path, rows: int, seed: int = 0) -> None:
    """Write a table of 100 columns and a target, one row group after the other."""
    writer = None
    for start in range(0, rows, GROUP):
        table = pa.table(group(min(GROUP, rows - start), np.random.default_rng([seed, start])))
        if writer is None:
            writer = pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def group(rows: int, draw: np.random.Generator) -> dict[str, pa.Array]:
    """Return the columns of a row group; three of them tell something of the target."""
    numbers = draw.standard_normal((rows, NUMBERS)).astype(np.float32)
    found: dict[str, pa.Array] = {}
    for index, values in enumerate(numbers.T):
        gaps = draw.random(rows) < 0.1 if index % 2 else None
        found[f"number {index}"] = pa.array(values, mask=gaps)
    few = draw.integers(8, size=(rows, WORDS))
    many = draw.zipf(1.3, size=(rows, MANY)).clip(1, LEVELS)
    for index in range(WORDS):
        found[f"word {index}"] = pa.array(np.array(list("abcdefgh"))[few[:, index]])
    for index in range(MANY):
        found[f"place {index}"] = pa.array([f"p{value}" for value in many[:, index]])
    for index in range(TRUTHS):
        found[f"truth {index}"] = pa.array(draw.random(rows) < 0.3)
    start = np.datetime64("2020-01-01T00:00:00", "s")
    for index in range(TIMES):
        found[f"time {index}"] = pa.array(start + draw.integers(3 * 10**7, size=rows))
    chance = numbers[:, 0] * numbers[:, 2] + (few[:, 0] > 5) + draw.logistic(size=rows)
    found["target"] = pa.array(np.where(chance > 0, "yes", "no"))
    return found


def taken(*command: str) -> Taken:
    """Run a command of Python to its end.

    Raises:
        RuntimeError: it failed.
    """
    start = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [sys.executable, *command], stdout=output, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        output.seek(0)
        text = output.read().decode()
    if status:
        raise RuntimeError(f"{' '.join(command)} failed:\n{text}")
    return Taken(seconds, usage.ru_maxrss / 1024, text)


def measure(rows: int, options: list[str], show: bool = False) -> dict[str, float]:
    """Return what a file of so many rows takes, in seconds, rows a second and megabytes."""
    with tempfile.TemporaryDirectory() as place:
        path, model, out = (Path(place) / name for name in ("big.parquet", "model", "out.parquet"))
        write(path, rows)
        trained = taken(
            *("-m", "batchensemble", "train", "--data", str(path), "--target", "target"),
            *("--epochs", "1", "--out", str(model), "--memory-limit", "50MB", *options),
        )
        predicted = taken(
            "-m", "batchensemble", "predict", str(model), "--data", str(path), "--out", str(out)
        )
        if show:
            print(trained.output, predicted.output)
        return {
            "rows": rows,
            "file": path.stat().st_size / 2**20,
            "train seconds": trained.seconds,
            "epoch rate": epoch_rate(model),
            "train megabytes": trained.megabytes,
            "predict seconds": predicted.seconds,
            "predict rate": rows / predicted.seconds,
            "predict megabytes": predicted.megabytes,
        }


def epoch_rate(model: Path) -> float:
    """Return the rows a second of the epochs, which the folder of a model keeps."""
    history = json.loads((model / "history.json").read_text())
    return float(sum(history["examples"]) / sum(history["seconds"]))


def lines(small: dict[str, float], large: dict[str, float], idle: float) -> Lines:
    """Return the table."""
    shown = [["what", f"{small['rows']:,} rows", f"{large['rows']:,} rows"]]
    for name, unit in (
        ("file", "MiB"),
        ("train seconds", "one epoch with all that comes before and after it"),
        ("epoch rate", "rows a second within the epoch"),
        ("train megabytes", f"MiB at most, of which {idle:.0f} are the imports"),
        ("predict seconds", "with the start"),
        ("predict rate", "rows a second"),
        ("predict megabytes", "MiB at most"),
    ):
        values = [f"{each[name]:,.0f}" for each in (small, large)]
        shown.append([f"{name}, {unit}", *values])
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--members", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--show", action="store_true", help="print what the commands print")
    given = parser.parse_args()
    options = []
    if given.members:
        options += ["--members", str(given.members)]
    if given.batch_size:
        options += ["--batch-size", str(given.batch_size)]
    idle = taken("-c", "import batchensemble as be; be.fit, be.BatchEnsembleClassifier").megabytes
    sizes = (given.rows // 4, given.rows)
    small, large = (measure(rows, options, given.show) for rows in sizes)
    Console().print(as_rich("A large table, streamed", lines(small, large, idle)))


if __name__ == "__main__":
    main()
