"""One training on two processes against one: what two cores gain, and where the rest goes.

    python benchmarks/performance/processes.py --write

The same network, weights and global batches, trained by one process with one thread, by one with
two threads, and by two that talk through gloo, with a thread each. The sum that two make in each
step is timed alone, on a buffer of the same size.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import nn

import batchensemble as be

if not __package__:  # run as a file: imports start at the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.pages import Lines
from benchmarks.performance.parts import Numbers, Part

MEMBERS, BATCH, WIDTH, DEPTH = 4, 256, 1024, 3
WAYS = {"one process, 1 thread": (1, 1), "one process, 2 threads": (1, 2), "two, 1 thread": (2, 1)}
STEPS = 4  # an epoch


def measure(seconds: float) -> Numbers:
    """Time all ways in turns, each in fresh processes."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
    for _ in range(3 if seconds else 1):
        for name, (processes, threads) in WAYS.items():
            found[name].append(launch(processes, threads, epochs=max(2, round(4 * seconds))))
    best = {name: min(each, key=lambda one: one["step"]) for name, each in found.items()}
    return [{"what": name, **numbers} for name, numbers in best.items()]


def launch(processes: int, threads: int, epochs: int) -> dict[str, float]:
    """Train in fresh processes; return seconds of a step and of its sum."""
    command = [sys.executable, __file__, "--train", str(epochs)]
    if processes > 1:
        start = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
        command = [sys.executable, *start, str(processes), *command[1:]]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def train(epochs: int) -> None:
    """Train in this process, and print the seconds of the fastest epoch's steps."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.manual_seed(0)
    layers = [layer for _ in range(DEPTH) for layer in (nn.Linear(WIDTH, WIDTH), nn.ReLU())]
    model = be.BatchEnsemble(nn.Sequential(*layers, nn.Linear(WIDTH, 10)), members=MEMBERS)
    X, y = torch.randn(STEPS * BATCH, WIDTH), torch.randint(10, (STEPS * BATCH,))
    history = be.fit(model, (X, y), epochs=epochs, batch_size=BATCH, progress=False)
    found = {"step": min(history.seconds) / STEPS, "sum": 0.0}
    if torch.distributed.is_initialized():
        flat = torch.zeros(sum(each.numel() for each in model.parameters()))
        times = []
        for _ in range(10):
            torch.distributed.barrier()
            start = time.perf_counter()
            torch.distributed.all_reduce(flat)
            times.append(time.perf_counter() - start)
        found["sum"] = sorted(times)[len(times) // 2]
    if os.environ.get("RANK", "0") == "0":
        print(json.dumps(found))


def lines(numbers: Numbers) -> Lines:
    """Return the table; the efficiency is that of two cores' work, against one process's."""
    one = numbers[0]["step"]
    rows = [["way", "ms a step", "times as fast", "efficiency", "the sum, share of a step"]]
    for each, (processes, threads) in zip(numbers, WAYS.values(), strict=True):
        gain = one / each["step"]
        share = f"{each['sum'] / each['step']:.0%}" if processes > 1 else "-"
        efficiency = f"{gain / (processes * threads):.0%}"
        rows.append([each["what"], f"{1000 * each['step']:.0f}", f"{gain:.2f}", efficiency, share])
    return rows


PART = Part("processes", __doc__, measure, {"processes": lines})

if __name__ == "__main__":
    if sys.argv[1:2] == ["--train"]:
        train(int(sys.argv[2]))
    else:
        PART.main()
