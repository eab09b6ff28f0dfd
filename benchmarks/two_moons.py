"""Quality and training time on two moons, beside the notebook's own loop and the Bayes limit.

    python benchmarks/two_moons.py            # about 4 minutes on 2 cores
    python benchmarks/two_moons.py --quick    # fewer repetitions

Times are ratios to the notebook's training loop (three members in turn, its DataLoader, its Adam),
interleaved with ours in one process, each repetition a full pass over the data; the figure is the
median over all repetitions of several fresh processes, since a process can be lucky.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import batchensemble as be
from batchensemble.comparison.compare import Comparison, Settings, build_ensemble, compare
from batchensemble.comparison.recipes import notebook
from batchensemble.comparison.wording import method_title
from batchensemble.data.datasets import Data, load_dataset
from batchensemble.ensembles import METHODS
from batchensemble.ensembles.networks import multilayer_perceptron

TO_REACH = {  # NLL, ECE, accuracy, time over the notebook's loop
    "single": (None, None, None, 0.14),
    "deep": (0.0785, 0.008, 0.972, 0.23),
    "batch": (0.0782, 0.008, 0.972, 0.25),
    "mimo": (0.0806, 0.010, 0.971, 0.18),
}
NOISE = 0.2
MEMBERS = 3


def main() -> None:
    """Print the two tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="2 seeds, 1 process, 3 repetitions")
    parser.add_argument("--time-one-process", type=int, metavar="N", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    data = load_dataset("moons")
    if arguments.time_one_process:
        print(json.dumps(time_ratios(data, arguments.time_one_process)))
        return
    seeds, processes, repetitions = (2, 1, 3) if arguments.quick else (5, 7, 5)
    console = Console(width=140)
    console.print(quality_table(data, seeds))
    console.print(time_table(processes, repetitions))


def quality_table(data: Data, seeds: int) -> Table:
    """Return NLL, ECE and accuracy of each method beside what is to reach and the limit."""
    comparison = compare(data, Settings(seeds=seeds))
    constant = compare(data, Settings(seeds=seeds, cooldown=0.0))
    originals = notebook().runs
    accuracy, nll = bayes_limit(*data.held_out)
    table = Table(
        title=f"Two moons, 6,000 held-out points, {seeds} seeds: mean ± deviation (to reach)"
    )
    for heading in ("", "NLL, nats", "ECE", "accuracy", "NLL at a constant rate"):
        table.add_column(heading, justify="left" if not heading else "right", no_wrap=True)
    for method in METHODS:
        cells = []
        for name, bar in zip(("nll", "ece", "accuracy"), TO_REACH[method][:3], strict=True):
            cells.append(f"{_spread(comparison, method, name)} ({'-' if bar is None else bar})")
        table.add_row(method_title(method), *cells, _spread(constant, method, "nll"))
    table.add_section()
    for run in originals:
        scores = (f"{run.scores[name]:.4f}" for name in ("nll", "ece", "accuracy"))
        table.add_row(f"the notebook's {method_title(run.method)}", *scores, "")
    table.add_row("Bayes-optimal classifier", f"{nll:.4f}", "", f"{accuracy:.4f}", "")
    return table


def _spread(comparison: Comparison, method: str, name: str) -> str:
    values = [run.scores[name] for run in comparison.of(method)]
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"


def time_table(processes: int, repetitions: int) -> Table:
    """Return the training time of each method over the notebook's loop, over fresh processes."""
    command = [sys.executable, __file__, "--time-one-process", str(repetitions)]
    ratios: dict[str, list[float]] = {}
    for _ in track(range(processes), "timing", transient=True):
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        for name, values in json.loads(done.stdout).items():
            ratios.setdefault(name, []).extend(values)
    table = Table(
        title="Training time over the notebook's loop of three members, median of "
        f"{processes * repetitions} (quartiles), {torch.get_num_threads()} threads"
    )
    for heading in ("", "ratio", "quartiles", "to reach"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, values in ratios.items():
        low, middle, high = statistics.quantiles(values, n=4)
        bar = TO_REACH[name][3] if name in TO_REACH else ""
        table.add_row(method_title(name), f"{middle:.3f}", f"{low:.3f} to {high:.3f}", f"{bar}")
    return table


def time_ratios(data: Data, repetitions: int) -> dict[str, list[float]]:
    """Return for each method the ratios of its training time to the notebook's."""

    def ours(method: str) -> float:
        model = build_ensemble(method, Settings(members=MEMBERS), data, seed=0)
        return be.fit(model, data.train, epochs=1, progress=False).total_seconds

    ratios: dict[str, list[float]] = {method: [] for method in METHODS}
    ratios["the notebook's BatchEnsemble"] = []
    for repetition in range(repetitions + 1):
        reference = MEMBERS * notebook_epoch(data, multilayer_perceptron(2, (128, 128), 2))
        times = {method: ours(method) for method in METHODS}
        times["the notebook's BatchEnsemble"] = notebook_epoch(data, NotebookBatchEnsemble())
        if repetition:  # the first is a warm-up
            for name, seconds in times.items():
                ratios[name].append(seconds / reference)
    return ratios


def notebook_epoch(data: Data, network: nn.Module) -> float:
    """Train for an epoch as the notebook does and return the seconds."""
    X, y = (torch.from_numpy(part) for part in data.train)
    loader = DataLoader(TensorDataset(X, y), batch_size=128, shuffle=True)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    start = time.perf_counter()
    for inputs, targets in loader:
        optimizer.zero_grad()
        F.cross_entropy(network(inputs), targets).backward()
        optimizer.step()
    return time.perf_counter() - start


class NotebookBatchEnsemble(nn.Module):
    """The notebook's network by its formula, to time it: mean logits of an additive layer pair."""

    def __init__(self) -> None:
        super().__init__()
        shapes = {"W1": (128, 2), "b1": (128,), "r1": (MEMBERS, 2), "s1": (MEMBERS, 128)}
        shapes |= {"W2": (2, 128), "b2": (2,), "r2": (MEMBERS, 128), "s2": (MEMBERS, 2)}
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(0.1 * torch.randn(shape)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the mean of the members' logits."""
        x = x.unsqueeze(1).expand(-1, MEMBERS, -1)
        for layer in "12":
            W, b, r, s = (getattr(self, name + layer) for name in "Wbrs")
            if layer == "2":
                x = x.relu()
            x = x @ W.T + b + (x * r).sum(-1, keepdim=True) * s
        return x.mean(1)


def bayes_limit(X: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return accuracy and NLL of the classifier that knows the densities of both half circles."""
    angles = np.linspace(0, np.pi, 2000)
    outer = np.stack([np.cos(angles), np.sin(angles)], 1)
    inner = np.stack([1 - np.cos(angles), 0.5 - np.sin(angles)], 1)
    densities = [_density(X.astype(float), curve) for curve in (outer, inner)]
    posterior = densities[1] / (densities[0] + densities[1])
    nll = -np.log(np.where(y == 1, posterior, 1 - posterior)).mean()
    return float(((posterior > 0.5) == y).mean()), float(nll)


def _density(points: np.ndarray, curve: np.ndarray) -> np.ndarray:
    """Return the density of normal noise around a curve, up to a factor that both curves share."""
    parts = np.array_split(points, 20)
    squares = (((part[:, None] - curve) ** 2).sum(-1) for part in parts)
    return np.concatenate([np.exp(-square / (2 * NOISE**2)).mean(1) for square in squares])


if __name__ == "__main__":
    main()
