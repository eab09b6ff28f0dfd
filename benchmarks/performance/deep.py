"""What a training step of a deep ensemble costs: copies, stacked by vmap, stacked twins.

    python benchmarks/performance/deep.py            # about two minutes
    python benchmarks/performance/deep.py --write    # puts the table into docs/performance.md

Over one plain network that gets every example once for each member, so all do the same
multiply-adds. A step is the forward pass, the loss of each member, the backward pass and Adam.
Ratios of medians of interleaved repetitions.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor, nn

import batchensemble as be
from batchensemble.ensembles import Ensemble
from batchensemble.ensembles.conversion.convert import draw_copies
from batchensemble.layers import Independent, Vmapped

if not __package__:  # run as a file: imports start at the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.operators import declare_operators
from benchmarks.pages import Lines
from benchmarks.performance.interleaved import Work, ratios
from benchmarks.performance.networks import training_step
from benchmarks.performance.parts import Numbers, Part, cell

MEMBERS = (4, 16)
WAYS = ("copies", "vmap", "stacked twins")


class Mean(nn.Module):
    """The mean over the tokens of a sequence."""

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[batch, tokens, features]`` to ``[batch, features]``."""
        return x.mean(1)


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    )


def convnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


def resnet() -> nn.Module:
    declare_operators()
    from torchvision.models import resnet18

    return resnet18(num_classes=10)


def transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(64, 4, 256, dropout=0.0, batch_first=True)
    return nn.Sequential(nn.TransformerEncoder(layer, 2), Mean(), nn.Linear(64, 10))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "MLP 64 → 128 → 128 → 10, B 128": (mlp, lambda: torch.randn(128, 64)),
    "ConvNet 16, 32 channels, 16x16, B 32": (convnet, lambda: torch.randn(32, 3, 16, 16)),
    "ResNet-18, 32x32, B 16": (
        resnet,
        lambda: torch.randn(16, 3, 32, 32),
    ),
    "Transformer, 2 layers of 64, 16 tokens, B 32": (transformer, lambda: torch.randn(32, 16, 64)),
}


def measure(seconds: float) -> Numbers:
    """Time the networks, but for a ResNet of 16 members, whose step takes seconds."""
    cases = [
        (name, members)
        for name in NETWORKS
        for members in MEMBERS
        if members == MEMBERS[0] or "ResNet" not in name
    ]
    return [measure_case(*case, seconds) for case in track(cases, "deep ensembles")]


def measure_case(name: str, members: int, seconds: float) -> dict[str, object]:
    """Time each way to run the members of a network."""
    make, inputs = NETWORKS[name]
    network, x = make(), inputs()
    rows = x.repeat(members, *[1] * (x.dim() - 1))
    plain = copy.deepcopy(network)
    works: dict[str, Work] = {"plain": training_step(plain, lambda: plain(rows))}
    for way, model in ensembles(network, members).items():
        works[way] = training_step(model, lambda model=model: model.rows(x))
    return {"network": name, "members": members, **ratios(works, seconds=2 * seconds)}


def lines(numbers: Numbers) -> Lines:
    """Return the table."""
    rows = [
        [each["network"], str(each["members"]), *(cell(each, way) for way in WAYS)]
        for each in numbers
    ]
    return [["network", "members", *WAYS], *rows]


def ensembles(network: nn.Module, members: int) -> dict[str, Ensemble]:
    """Return the same networks in each way there is."""
    networks = draw_copies(network, members)
    parameters = sum(each.numel() for each in network.parameters())
    found = {
        "copies": Ensemble(Independent(copy.deepcopy(networks)), members, parameters),
        "vmap": Ensemble(Vmapped(networks), members, parameters),
    }
    twins = be.DeepEnsemble.from_members(networks, stacked=True)
    if not isinstance(twins.network, Vmapped):
        found["stacked twins"] = twins
    return found


PART = Part("deep", __doc__, measure, {"deep": lines})

if __name__ == "__main__":
    PART.main()
