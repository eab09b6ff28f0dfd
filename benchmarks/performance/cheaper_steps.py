"""Training steps that cost less than M networks: each member its share, or one trunk for all.

    python benchmarks/performance/cheaper_steps.py            # about two minutes
    python benchmarks/performance/cheaper_steps.py --write    # and into docs/performance.md

A step of an ensemble over a step of **one** plain network on the same batch: forward pass, losses,
backward pass and Adam. Ratios of medians of interleaved repetitions.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor, nn

import batchensemble as be

if not __package__:  # run as a file: imports start at the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.operators import declare_operators
from benchmarks.pages import Lines
from benchmarks.performance.interleaved import ratios
from benchmarks.performance.networks import training_step
from benchmarks.performance.parts import Numbers, Part, cell

MEMBERS = 4
SPLIT_TO_REACH = 1.15
COLUMNS = {
    "split": "split (to reach)",
    "branched": "branched",
    "shared": "all see all",
}


def linear() -> tuple[nn.Module, Tensor, str | None]:
    return nn.Sequential(nn.Linear(512, 512)), torch.randn(512, 512), None


def mlp() -> tuple[nn.Module, Tensor, str | None]:
    layers = [nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)]
    return nn.Sequential(*layers), torch.randn(512, 512), "4"


def resnet() -> tuple[nn.Module, Tensor, str | None]:
    declare_operators()
    from torchvision.models import resnet18

    return resnet18(num_classes=10), torch.randn(64, 3, 32, 32), "layer3"


CASES = {
    "Linear 512 → 512, B 512": (linear, SPLIT_TO_REACH),
    "MLP 512 → 512 → 512 → 10, B 512": (mlp, None),
    "ResNet-18, 32x32, B 64, branched at layer3": (resnet, None),
}


def measure(seconds: float) -> Numbers:
    """Time all cases."""
    return [measure_case(name, seconds) for name in track(CASES, "cheaper steps")]


def measure_case(name: str, seconds: float) -> dict[str, object]:
    """Time each way to train one network's ensemble."""
    net, x, branch_at = CASES[name][0]()
    shares = torch.stack(x.chunk(MEMBERS), 1)
    plain = copy.deepcopy(net).train()
    works = {"plain": training_step(plain, lambda: plain(x))}

    def ensemble(**options: object) -> be.Ensemble:
        return be.BatchEnsemble(net, members=MEMBERS, **options).train()

    whole, split = ensemble(), ensemble()
    works["shared"] = training_step(whole, lambda: whole.rows(x))
    works["split"] = training_step(split, lambda: split.rows(shares, per_member=True))
    if branch_at is not None:
        branched = ensemble(branch_at=branch_at)
        works["branched"] = training_step(branched, lambda: branched.rows(x))
    return {"network": name, "to reach": CASES[name][1], **ratios(works, seconds=4 * seconds)}


def lines(numbers: Numbers) -> Lines:
    """Return the table."""
    table = [["network", *COLUMNS.values()]]
    for each in numbers:
        row = [cell(each, key, each["to reach"] if key == "split" else None) for key in COLUMNS]
        table.append([each["network"], *row])
    return table


PART = Part("cheaper_steps", __doc__, measure, {"cheaper steps": lines})

if __name__ == "__main__":
    PART.main()
