"""Training steps with frozen shared weights, as in fine-tuning, over steps that train them.

    python benchmarks/performance/frozen_steps.py            # a minute or two
    python benchmarks/performance/frozen_steps.py --write    # and into docs/performance.md

A step is a forward pass, losses, a backward pass and Adam on what is trained. Ratios of medians of
interleaved repetitions of CPU time; additive ones of rank 8.
"""

from __future__ import annotations

import copy
import sys
import time
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor, nn

import batchensemble as be

if not __package__:  # run as a file: imports start at the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.pages import Lines
from benchmarks.performance.interleaved import Work, ratios
from benchmarks.performance.networks import training_step
from benchmarks.performance.parts import Numbers, Part, cell

MEMBERS = 4
TO_REACH = 0.75
METHODS = {
    "multiplicative": {"init": "normal", "std": 0.1},
    "additive": {"mode": "additive", "rank": 8, "init": "zeros"},
}


class Block(nn.Module):
    """A transformer block and a head, as in a small sentence encoder."""

    def __init__(self, width: int = 384) -> None:
        super().__init__()
        self.block = nn.TransformerEncoderLayer(
            width, 12, 4 * width, batch_first=True, activation="gelu"
        )
        self.head = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Classify by the mean of the tokens."""
        return self.head(self.block(x).mean(1))


def linear() -> tuple[nn.Module, Tensor]:
    return nn.Sequential(nn.Linear(512, 512)), torch.randn(256, 512)


def block(examples: int) -> tuple[nn.Module, Tensor]:
    return Block(), torch.randn(examples, 32, 384)


def convnet() -> tuple[nn.Module, Tensor]:
    layers = [nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1)]
    pooled = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    return nn.Sequential(*layers, *pooled), torch.randn(16, 64, 8, 8)


CASES = {
    "Linear 512 → 512, B 256": linear,
    "transformer block, width 384, B 16 x 32 tokens": lambda: block(16),
    "transformer block, width 384, B 64 x 32 tokens": lambda: block(64),
    "ConvNet, 64 channels, 8x8, B 16": convnet,
}


def measure(seconds: float) -> Numbers:
    """Time all cases."""
    return [measure_case(name, seconds) for name in track(CASES, "frozen steps")]


def measure_case(name: str, seconds: float) -> dict[str, object]:
    """Time steps of one network's ensembles, with and without their shared weights."""
    net, x = CASES[name]()
    found: dict[str, object] = {"network": name}
    for method, options in METHODS.items():
        ensemble = be.BatchEnsemble(net, MEMBERS, **options).train()
        works = {"plain": step(ensemble, x), "frozen": step(frozen(ensemble), x)}
        found[method] = ratios(works, seconds=seconds, clock=cpu_seconds)["frozen"]
    return found


def step(model: be.Ensemble, x: Tensor) -> Work:
    """Return what makes one training step."""
    return training_step(model, lambda: model.rows(x))


def frozen(model: be.Ensemble) -> be.Ensemble:
    """Return a copy that trains all but the weights of layers that the members share."""
    model = copy.deepcopy(model)
    for group in model.parameter_groups(lr=1.0):
        for parameter in group["params"]:
            parameter.requires_grad_(group["name"] != "shared")
    return model


def cpu_seconds(function: Work) -> float:
    """Return the processor time of a call, in seconds."""
    start = time.process_time()
    function()
    return time.process_time() - start


def lines(numbers: Numbers) -> Lines:
    """Return the table."""
    table = [["network", *(f"{method} (to reach)" for method in METHODS)]]
    for each in numbers:
        row = [cell({"it": each[method]}, "it", TO_REACH) for method in METHODS]
        table.append([each["network"], *row])
    return table


PART = Part("frozen_steps", __doc__, measure, {"frozen steps": lines})

if __name__ == "__main__":
    PART.main()
