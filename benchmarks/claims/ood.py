"""Do the members tell digits that they have never seen from those they were trained on?

    python benchmarks/claims/ood.py             # about a minute on 2 cores
    python benchmarks/claims/ood.py --seeds 8   # longer, and surer

Trained on the digits 0 to 6; the held-out ones of these are inside, all digits 7 to 9 are outside.
A seed draws the split, the plain network that every method starts from, and the order of the
examples, so differences are those of pairs. All train alike: two hidden layers of 128, Adam at
1e-3, batches of 64, the rate falling to 0 over the last third; 100 epochs, since the held-out NLL
of the deep ensemble falls until there. The intervals of 95 % are Student's, over the seeds.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy import stats
from sklearn import datasets
from sklearn.model_selection import train_test_split
from torch import nn

import batchensemble as be
from batchensemble.ensembles.networks import multilayer_perceptron

MEMBERS = 4
KNOWN = 7  # the digits below it
BAR = -0.005  # how far the epistemic AUROC may be behind the deep ensemble's
MEASURES = ("epistemic", "total", "aleatoric", "nll", "accuracy")
DEEP = "deep ensemble"

METHODS: dict[str, Callable[[nn.Module], be.Ensemble]] = {
    "one network": be.Single,
    DEEP: lambda network: be.DeepEnsemble(network, MEMBERS),
    "BatchEnsemble, random signs": lambda network: be.BatchEnsemble(network, MEMBERS),
    "BatchEnsemble, normal(1, 0.5)": lambda network: be.BatchEnsemble(
        network, MEMBERS, init="normal", std=0.5
    ),
}


def measure(seed: int, epochs: int) -> dict[str, list[float]]:
    """Return the measures of each method."""
    torch.set_num_threads(1)
    digits = datasets.load_digits()
    X, y = (digits.data / 16).astype(np.float32), digits.target
    known = y < KNOWN
    train_X, held_X, train_y, held_y = train_test_split(
        X[known], y[known], test_size=0.4, random_state=seed, stratify=y[known]
    )
    torch.manual_seed(seed)
    network = multilayer_perceptron(64, (128, 128), KNOWN)
    found = {}
    for name, make in METHODS.items():
        torch.manual_seed(seed)
        model = make(network)
        be.fit(
            model,
            (train_X, train_y),
            epochs=epochs,
            batch_size=64,
            lr=1e-3,
            cooldown=1 / 3,
            seed=seed,
            progress=False,
        )
        detected = be.detect_shift(be.predict(model, held_X), be.predict(model, X[~known]))
        scores = be.evaluate(model, (held_X, held_y))
        found[name] = [
            scores[each] if each in scores else detected[each].auroc for each in MEASURES
        ]
    return found


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean and the ends of its interval."""
    mean = float(np.mean(values))
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return mean, mean - half, mean + half


def table(runs: list[dict[str, list[float]]]) -> Table:
    """Return a row for each method."""
    made = Table(title=f"{MEMBERS} members, mean of {len(runs)} seeds; AUROC of 7 to 9 by")
    headings = ("epistemic", f"minus the {DEEP}'s", "total", "aleatoric", "NLL on 0 to 6")
    made.add_column("method")
    for heading in (*headings, "accuracy"):
        made.add_column(heading, justify="right", no_wrap=True)
    for name in METHODS:
        epistemic, *others = np.mean([run[name] for run in runs], 0)
        made.add_row(name, f"{epistemic:.4f}", behind(runs, name), *(f"{x:.4f}" for x in others))
    return made


def behind(runs: list[dict[str, list[float]]], name: str) -> str:
    """Return the difference to the deep ensemble's epistemic AUROC, with its interval."""
    if name == DEEP:
        return ""
    mean, low, high = interval([run[name][0] - run[DEEP][0] for run in runs])
    return f"{mean:+.4f} ({low:+.4f} to {high:+.4f})"


def main() -> None:
    """Print the table, and whether the bar is held."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    seeds = range(arguments.seeds)
    with ProcessPoolExecutor(arguments.workers, context) as pool:
        jobs = pool.map(measure, seeds, [arguments.epochs] * len(seeds))
        runs = list(track(jobs, "training", len(seeds), transient=True))
    console = Console(width=150)
    console.print(table(runs))
    for name in METHODS:
        if name.startswith("BatchEnsemble"):
            mean = interval([run[name][0] - run[DEEP][0] for run in runs])[0]
            kept = "held" if mean >= BAR else "missed"
            console.print(f"{name}: {mean:+.4f}, the bar of {BAR} is {kept}")


if __name__ == "__main__":
    main()
