"""Intervals and doubt on the cubic toy: do intervals cover, does the epistemic part grow outside?

    python benchmarks/claims/cubic.py              # the table of docs/uncertainty.md, five seeds
    python benchmarks/claims/cubic.py --seeds 20   # what it says of twenty

Members of 1 → 64 → 64 → 2 are trained on 1,600 points of x³ with noise, x from -4 to -1 and from 1
to 4, by the Gaussian NLL of standardised targets. Coverage is of 90% intervals on 20,000 fresh
points inside the data. Outside, the epistemic deviation is looked at from the edge, 4, to 6, on
both sides, in steps of 0.1: how often it grows from one step to the next; how far from the edge on
it grows in every step, on the worse side of each seed, 0 where it does at once; and from the edge
to the end, on the worse side. In the gap it is that of x = 0 over the mean inside the data.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import nn

import batchensemble as be
from batchensemble.data.datasets import Data, load_dataset
from batchensemble.ensembles import METHODS

if not __package__:  # run as a file: imports start at the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.pages import as_rich

POINTS = 20_000
EDGE, END, STEP = 4.0, 6.0, 0.1
HEADINGS = [
    "method, members",
    "coverage (0.88 to 0.92)",
    "steps that grow",
    "seeds in which all do",
    "from the edge on grows after, by seed",
    "end over edge",
    "in the gap",
]


@dataclass(frozen=True)
class Found:
    """What one ensemble shows.

    Attributes:
        coverage: of 90% intervals.
        grows: the share of steps in which the epistemic deviation grows.
        after: how far from the edge on it grows in every step, on the worse side.
        ratio: its end over its start, on the worse side.
        gap: at 0, over the mean inside.
    """

    coverage: float
    grows: float = float("nan")
    after: float = float("nan")
    ratio: float = float("nan")
    gap: float = float("nan")


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--members", type=int, nargs="+", default=[4, 8, 16])
    arguments = parser.parse_args()
    # A second thread only waits for the first with networks so small.
    torch.set_num_threads(1)
    data = load_dataset("cubic")
    lines = [HEADINGS]
    ensembles = [(method, members) for members in arguments.members for method in ("deep", "batch")]
    for method, members in (("single", 1), *ensembles):
        seeds = track(range(arguments.seeds), f"{method}, {members}")
        found = [measure(method, members, data, seed, arguments.epochs) for seed in seeds]
        lines.append([f"{method}, {members}", *row(found)])
    Console(width=160).print(as_rich("cubic", lines))


def row(found: list[Found]) -> list[str]:
    """Return what the seeds of one ensemble show, as a line of the table."""

    def ends(name: str, digits: int) -> str:
        values = sorted(getattr(each, name) for each in found)
        return f"{values[0]:.{digits}f} to {values[-1]:.{digits}f}"

    if np.isnan(found[0].grows):
        return [ends("coverage", 3), *["-"] * (len(HEADINGS) - 2)]
    every = sum(each.after == 0 for each in found)
    return [
        ends("coverage", 3),
        f"{np.mean([each.grows for each in found]):.1%}",
        f"{every} of {len(found)}",
        ", ".join(f"{each.after:.1f}" for each in found),
        ends("ratio", 0),
        ends("gap", 1),
    ]


def measure(method: str, members: int, data: Data, seed: int, epochs: int) -> Found:
    """Train one ensemble; return coverage, and how the epistemic part goes."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Linear(1, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2)
    )
    model = METHODS[method].build(network, members)
    options = {"loss": "gaussian_nll", "standardise_targets": True}
    be.fit(model, data.train, epochs=epochs, lr=3e-3, seed=seed, progress=False, **options)
    generator = np.random.default_rng(seed)
    x = generator.uniform(1, EDGE, POINTS) * generator.choice([-1, 1], POINTS)
    low, high = at(model, data, x).interval(0.9)
    y = x**3 + generator.normal(0, 3, POINTS)
    coverage = float(((low <= y) & (y <= high)).mean())
    if method == "single":
        return Found(coverage)
    outside = np.arange(EDGE, END + STEP / 2, STEP)
    sides = [np.sqrt(at(model, data, sign * outside).epistemic) for sign in (-1, 1)]
    inside = np.sqrt(at(model, data, x).epistemic.mean())
    return Found(
        coverage,
        float(np.mean([np.diff(side) > 0 for side in sides])),
        max(grows_after(side) for side in sides),
        min(float(side[-1] / side[0]) for side in sides),
        float(np.sqrt(at(model, data, np.zeros(1)).epistemic[0]) / inside),
    )


def grows_after(deviations: np.ndarray) -> float:
    """Return how far from the edge on every step grows.

    Args:
        deviations: at steps from the edge on.

    Example:
        >>> grows_after(np.array([1.0, 2.0, 3.0])), grows_after(np.array([1.0, 0.5, 3.0]))
        (0.0, 0.1)
    """
    falls = np.flatnonzero(np.diff(deviations) <= 0)
    return float(STEP * (falls[-1] + 1)) if len(falls) else 0.0


def at(model: be.Ensemble, data: Data, x: np.ndarray) -> be.RegressionPrediction:
    """Return the prediction for numbers in the feature's own unit."""
    inputs = ((x - data.mean[0]) / data.scale[0]).astype(np.float32)[:, None]
    prediction = be.predict(model, inputs)
    assert isinstance(prediction, be.RegressionPrediction)
    return prediction


if __name__ == "__main__":
    main()
