"""Intervals and doubt on the cubic toy: do intervals cover, does the epistemic part grow outside?

    python benchmarks/cubic.py             # about two minutes
    python benchmarks/cubic.py --seeds 1

4 members of 1 → 64 → 64 → 2 are trained on 1,600 points of x³ with noise, x from -4 to -1 and from
1 to 4, by the Gaussian NLL of standardised targets. Coverage is of 90% intervals on 20,000 fresh
points inside the data. Outside, the epistemic deviation is looked at from the edge, 4, to 6, on
both sides, in steps of 0.1: how often it grows from one step to the next, and from the edge to the
end. In the gap it is that of x = 0 over the mean inside the data.
"""

from __future__ import annotations

import argparse
import statistics

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import nn

import batchensemble as be
from batchensemble.data import Data, load
from batchensemble.ensembles import METHODS
from page import THREADS, as_rich

POINTS = 20_000
COVERAGE = (0.88, 0.92)
STEP = 0.1


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=60)
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    data = load("cubic")
    lines = [
        ["method", "coverage (0.88 to 0.92)", "steps that grow", "end over edge", "in the gap"]
    ]
    for method in ("single", "deep", "batch"):
        found = [
            measure(method, data, seed, arguments.epochs)
            for seed in track(range(arguments.seeds), method)
        ]
        lines.append([method, *(", ".join(each) for each in zip(*found, strict=True))])
    Console(width=160).print(as_rich("cubic", lines))


def measure(method: str, data: Data, seed: int, epochs: int) -> list[str]:
    """Train one ensemble; return coverage, and how the epistemic part goes."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Linear(1, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2)
    )
    model = METHODS[method](network, *([] if method == "single" else [4]))
    options = {"loss": "gaussian_nll", "standardise_targets": True}
    be.fit(model, data.train, epochs=epochs, lr=3e-3, seed=seed, **options)
    generator = np.random.default_rng(seed)
    x = generator.uniform(1, 4, POINTS) * generator.choice([-1, 1], POINTS)
    low, high = at(model, data, x).interval(0.9)
    y = x**3 + generator.normal(0, 3, POINTS)
    coverage = float(((low <= y) & (y <= high)).mean())
    if method == "single":
        return [f"{coverage:.3f}", "-", "-", "-"]
    outside = np.arange(4, 6 + STEP / 2, STEP)
    sides = [np.sqrt(at(model, data, sign * outside).epistemic) for sign in (-1, 1)]
    grows = statistics.mean(float((np.diff(side) > 0).mean()) for side in sides)
    ratio = min(float(side[-1] / side[0]) for side in sides)
    inside = np.sqrt(at(model, data, x).epistemic.mean())
    gap = float(np.sqrt(at(model, data, np.zeros(1)).epistemic[0]) / inside)
    return [f"{coverage:.3f}", f"{grows:.0%}", f"{ratio:.1f}", f"{gap:.1f}"]


def at(model: be.Ensemble, data: Data, x: np.ndarray) -> be.RegressionPrediction:
    """Return the prediction for numbers in the feature's own unit."""
    inputs = ((x - data.mean[0]) / data.scale[0]).astype(np.float32)[:, None]
    prediction = be.predict(model, inputs)
    assert isinstance(prediction, be.RegressionPrediction)
    return prediction


if __name__ == "__main__":
    main()
