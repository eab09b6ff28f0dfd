"""How an epoch of ``fit`` grows with the data: time for each row, and memory beyond the data.

    python benchmarks/performance/data_growth.py            # about a minute and a half
    python benchmarks/performance/data_growth.py --write    # and into docs/performance.md

4 members of 20 → 128 → 128 → 2, batches of 1,024. Each size has processes of its own, so that the
largest amount of memory that a process ever held is that of one ``fit``.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import sys
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor, nn

import batchensemble as be

if not __package__:  # run as a file: imports start at the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.pages import THREADS, Lines
from benchmarks.performance.parts import Numbers, Part

ROWS = (10**4, 10**5, 10**6)
FEATURES = 20
BATCH = 1024
ROUNDS = 3  # the sizes take turns


def measure(seconds: float) -> Numbers:
    """Run each size in fresh processes."""
    turns = [rows for _ in range(ROUNDS if seconds else 1) for rows in ROWS]
    fresh = multiprocessing.get_context("spawn")
    found: dict[int, list[dict[str, float]]] = {rows: [] for rows in ROWS}
    for rows in track(turns, "data"):
        with fresh.Pool(1) as pool:
            found[rows].append(pool.apply(an_epoch, (rows,)))
    return [
        {"rows": rows}
        | {key: statistics.median(each[key] for each in several) for key in several[0]}
        for rows, several in found.items()
    ]


def an_epoch(rows: int) -> dict[str, float]:
    """Train for an epoch; return seconds for each row and bytes, of the data and beyond them.

    Small data are trained on again until an epoch has been timed on as many rows as a middling one.
    """
    torch.set_num_threads(THREADS)
    model = be.BatchEnsemble(
        nn.Sequential(
            nn.Linear(FEATURES, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 2)
        ),
        members=4,
    )
    be.fit(model, data(4 * BATCH), epochs=1, batch_size=BATCH)  # loads what it needs
    X, y = data(rows)
    before = peak_bytes()
    seconds = be.fit(model, (X, y), epochs=1, batch_size=BATCH).seconds
    beyond = peak_bytes() - before
    for _ in range(ROWS[1] // rows - 1):
        seconds += be.fit(model, (X, y), epochs=1, batch_size=BATCH).seconds
    return {
        "seconds": statistics.median(seconds) / rows,
        "data": X.nbytes + y.nbytes,
        "beyond": beyond,
    }


def data(rows: int) -> tuple[Tensor, Tensor]:
    """Return noise and whether its first number is positive."""
    X = torch.randn(rows, FEATURES)
    return X, (X[:, 0] > 0).long()


def peak_bytes() -> int:
    """Return the most memory that this process has held so far.

    ``getrusage`` starts from what the parent held, on Linux, so the kernel's own note goes first.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def lines(numbers: Numbers) -> Lines:
    """Return the table."""
    table = [
        ["rows", "µs a row", "over the first (0.90 to 1.10)", "the data, MB", "beyond the data, MB"]
    ]
    for each in numbers:
        over = each["seconds"] / numbers[0]["seconds"]
        megabytes = [f"{each[key] / 1e6:.1f}" for key in ("data", "beyond")]
        time = f"{1e6 * each['seconds']:.2f}"
        table.append([f"{each['rows']:,}", time, f"{over:.2f}", *megabytes])
    return table


PART = Part("data_growth", __doc__, measure, {"data": lines})

if __name__ == "__main__":
    PART.main()
