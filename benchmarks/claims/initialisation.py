"""Which start of the fast weights when: training from scratch, and tuning a trained network.

    python benchmarks/claims/initialisation.py             # about 6 minutes on 2 cores
    python benchmarks/claims/initialisation.py --seeds 2   # faster, and less sure

Each seed draws one plain network, which every start converts, and one order of the examples; so the
differences to one network are those of pairs. Epochs and learning rates are those that serve one
network well. NLL and mutual information in nats, all scores on held-out examples.
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn import datasets
from sklearn.model_selection import train_test_split
from torch import nn

import batchensemble as be

MEMBERS = 4
NOISE = 0.3  # of the images that the trained network is tuned to; pixels are from 0 to 1
TUNING = 300  # examples to tune it with
SCORES = ("nll", "disagreement", "mutual_information")
ONE = "one network"

Examples = tuple[np.ndarray, np.ndarray]
Parts = tuple[Examples, Examples]  # training, held out
Scores = dict[str, float]


class OwnOrder(be.BatchEnsemble):
    """A BatchEnsemble whose members go through the examples each in an order of its own."""

    own_examples = property(lambda self: True)
    draw = be.DeepEnsemble.draw


def _additive(init: str, rank: int) -> dict[str, Any]:
    return {"mode": "additive", "rank": rank, "init": init}


STARTS: dict[str, dict[str, Any]] = {
    "random_sign": {"init": "random_sign"},
    "normal, std 0.5": {"init": "normal", "std": 0.5},
    "normal, std 0.2": {"init": "normal", "std": 0.2},
    "normal, std 0.1": {"init": "normal", "std": 0.1},
    "ones": {"init": "ones"},
    "ones, own order of examples": {"init": "ones"},
    "tabm": {"init": "tabm"},
    "additive zeros, rank 1": _additive("zeros", 1),
    "additive zeros, rank 4": _additive("zeros", 4),
    "additive normal, rank 1": _additive("normal", 1),
    "additive normal, rank 4": _additive("normal", 4),
}
DEEP = {"scratch": "deep ensemble", "tuned": "a copy for each member"}


def ensembles(network: nn.Module, *, trained: bool) -> Iterable[tuple[str, be.Ensemble]]:
    """Yield one network, independent ones, and an ensemble for each start."""
    yield ONE, be.Single(network)
    if trained:
        copies = [copy.deepcopy(network) for _ in range(MEMBERS)]
        yield DEEP["tuned"], be.DeepEnsemble.from_members(copies)
    else:
        yield DEEP["scratch"], be.DeepEnsemble(network, MEMBERS)
    for name, options in STARTS.items():
        method = OwnOrder if name.endswith("own order of examples") else be.BatchEnsemble
        yield name, method(network, MEMBERS, **options)


@dataclass(frozen=True)
class Task:
    """Something to learn.

    Attributes:
        title: of its table.
        data: returns the two parts.
        network: returns a plain network with random weights.
        epochs: how long to train.
        batch_size: examples a step.
        lr: learning rate of Adam, which falls to 0 over the last third of the steps.
        trained_on: what ``network`` has learnt before, if anything.
    """

    title: str
    data: Callable[[], Parts]
    network: Callable[[], nn.Module]
    epochs: int
    batch_size: int
    lr: float
    trained_on: Task | None = None

    def train(self, model: be.Ensemble, seed: int) -> None:
        """Train ``model`` in place."""
        be.fit(
            model,
            self.data()[0],
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            cooldown=1 / 3,
            seed=seed,
            progress=False,
        )

    def scores(self, seed: int) -> dict[str, dict[str, Scores]]:
        """Return for each ensemble its scores before and after the training."""
        torch.manual_seed(seed)
        network = self.network()
        if self.trained_on:
            first = be.Single(network)
            self.trained_on.train(first, seed)
            network = first.member(0)
        torch.manual_seed(seed)
        found = {}
        for name, model in ensembles(network, trained=bool(self.trained_on)):
            before = be.evaluate(model, self.data()[1])
            self.train(model, seed)
            after = be.evaluate(model, self.data()[1])
            found[name] = {
                "before": {score: before[score] for score in SCORES},
                "after": {score: after[score] for score in SCORES},
            }
        return found


def table_of_20_classes() -> Parts:
    """Return 4,000 and 4,000 rows of 16 numbers."""
    X, y = datasets.make_classification(
        8000,
        n_features=16,
        n_informative=12,
        n_redundant=4,
        n_classes=20,
        n_clusters_per_class=1,
        class_sep=1.5,
        random_state=0,
    )
    X = (X - X[:4000].mean(0)) / X[:4000].std(0)
    return _cut(X, y, 4000)


def moons() -> Parts:
    """Return 300 and 6,000 points."""
    return _cut(*datasets.make_moons(6300, noise=0.2, random_state=0), 300)


def digits() -> Parts:
    """Return 898 and 899 images."""
    bunch = datasets.load_digits()
    images, held_out, y, held_out_y = train_test_split(
        bunch.images[:, None] / 16, bunch.target, test_size=0.5, random_state=0
    )
    return (images.astype(np.float32), y), (held_out.astype(np.float32), held_out_y)


def noisy_digits() -> Parts:
    """Return 300 and 599 images that ``digits`` holds out, with noise."""
    images, y = digits()[1]
    noise = np.random.default_rng(0).normal(scale=NOISE, size=images.shape)
    return _cut(images + noise, y, TUNING)


def _cut(X: np.ndarray, y: np.ndarray, first: int) -> Parts:
    X = X.astype(np.float32)
    return (X[:first], y[:first]), (X[first:], y[first:])


def perceptron(features: int, width: int, classes: int) -> nn.Module:
    """Return a network of two hidden layers."""
    return nn.Sequential(
        nn.Linear(features, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, classes),
    )


def table_network() -> nn.Module:
    """Return the network for 20 classes."""
    return perceptron(16, 128, 20)


def moons_network() -> nn.Module:
    """Return the network for points of the plane."""
    return perceptron(2, 64, 2)


def digits_network() -> nn.Module:
    """Return three convolutions and two linear layers."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


DIGITS = Task("Digits, small convolutional network", digits, digits_network, 24, 64, 3e-3)
TUNED = Task(
    f"Trained on digits, tuned for 10 epochs to {TUNING} digits with noise",
    noisy_digits,
    digits_network,
    10,
    32,
    1e-3,
    DIGITS,
)
TABLE = Task(
    "Table of 20 classes, two hidden layers", table_of_20_classes, table_network, 30, 128, 2e-3
)
MOONS = Task("Two moons, 300 points, two hidden layers", moons, moons_network, 60, 32, 1e-3)
TASKS = {"digits": DIGITS, "tuned": TUNED, "table": TABLE, "moons": MOONS}


def main() -> None:
    """Print a table for each task."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    arguments = parser.parse_args()
    jobs = [(name, seed) for name in TASKS for seed in range(arguments.seeds)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.workers, context) as pool:
        results = list(track(pool.map(_run, jobs), "training", len(jobs), transient=True))
    console = Console(width=155)
    for name, task in TASKS.items():
        runs = [result for job, result in zip(jobs, results, strict=True) if job[0] == name]
        console.print(summary(task, runs))


def _run(job: tuple[str, int]) -> dict[str, dict[str, Scores]]:
    torch.set_num_threads(1)
    name, seed = job
    return TASKS[name].scores(seed)


def summary(task: Task, runs: list[dict[str, dict[str, Scores]]]) -> Table:
    """Return a row for each ensemble: mean and deviation over the seeds."""
    table = Table(title=f"{task.title}: {MEMBERS} members, {len(runs)} seeds, mean ± deviation")
    before = ("NLL at the start", "disagreement there") if task.trained_on else ()
    after = ("NLL", "minus one network's", "disagreement", "mutual information")
    for heading in ("start", *before, *after):
        table.add_column(heading, justify="left" if heading == "start" else "right", no_wrap=True)
    for name in runs[0]:
        columns = [[run[name]["after"][score] for run in runs] for score in SCORES]
        gains = [run[name]["after"]["nll"] - run[ONE]["after"]["nll"] for run in runs]
        columns.insert(1, gains)
        if before:
            columns[:0] = [
                [run[name]["before"][score] for run in runs] for score in ("nll", "disagreement")
            ]
        table.add_row(name, *map(_spread, columns))
        if name in DEEP.values():
            table.add_section()
    return table


def _spread(values: list[float]) -> str:
    return f"{mean(values):.4f} ± {stdev(values):.4f}"


if __name__ == "__main__":
    main()
