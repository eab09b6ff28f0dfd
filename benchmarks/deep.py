"""What a training step of a deep ensemble costs: copies, stacked by vmap, stacked twins.

    python benchmarks/deep.py            # some minutes, two threads
    python benchmarks/deep.py --write    # puts the table into docs/performance.md

Over one plain network that gets every example once for each member, so all do the same
multiply-adds. A step is the forward pass, the loss of each member, the backward pass and Adam.
Ratios of medians of interleaved repetitions.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor, nn

import batchensemble as be
from batchensemble.convert import draw_copies
from batchensemble.ensembles import Ensemble
from batchensemble.layers import Independent, Vmapped
from interleaved import Work, ratios
from layers import PAGE, ROOT, as_markdown, as_rich, between
from networks import step

sys.path.insert(0, str(ROOT / "tests" / "zoo"))
import torchvision_operators  # noqa: F401  # before torchvision
from torchvision.models import resnet18

MARKS = ("<!-- deep: python benchmarks/deep.py --write -->", "<!-- end of deep -->")
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


def transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(64, 4, 256, dropout=0.0, batch_first=True)
    return nn.Sequential(nn.TransformerEncoder(layer, 2), Mean(), nn.Linear(64, 10))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "MLP 64 → 128 → 128 → 10, B 128": (mlp, lambda: torch.randn(128, 64)),
    "ConvNet 16, 32 channels, 16x16, B 32": (convnet, lambda: torch.randn(32, 3, 16, 16)),
    "ResNet-18, 32x32, B 16": (
        lambda: resnet18(num_classes=10),
        lambda: torch.randn(16, 3, 32, 32),
    ),
    "Transformer, 2 layers of 64, 16 tokens, B 32": (transformer, lambda: torch.randn(32, 16, 64)),
}


def main() -> None:
    """Print the table, and put it into the page if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--members", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--seconds", type=float, default=4.0, help="for each way to run a network")
    parser.add_argument("--write", action="store_true", help="put the table into the page")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    console = Console(width=140)
    lines = [["network", "members", *WAYS]]
    for name, (make, inputs) in NETWORKS.items():
        for members in arguments.members:
            if members > 4 and "ResNet" in name:
                continue  # a step takes seconds
            found = measure(make(), inputs(), members, arguments.seconds)
            lines.append([name, str(members), *found])
    console.print(as_rich(lines))
    if arguments.write:
        page = between(PAGE.read_text(encoding="utf-8"), *MARKS, as_markdown(lines))
        PAGE.write_text(page, encoding="utf-8")
        console.print(f"wrote {Path(PAGE).relative_to(ROOT)}")


def measure(network: nn.Module, x: Tensor, members: int, seconds: float) -> list[str]:
    """Return the ratio of each way to run the members."""
    rows = x.repeat(members, *[1] * (x.dim() - 1))
    targets = torch.zeros(len(rows), dtype=torch.long)
    plain = copy.deepcopy(network)
    works: dict[str, Work] = {"plain": step(plain, lambda: plain(rows), targets)}
    for way, model in ensembles(network, members).items():
        works[way] = step(model, lambda model=model: model.rows(x), targets)
    found = ratios(works, seconds=seconds)
    return [f"{found[way]:.2f}" if way in found else "-" for way in WAYS]


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


if __name__ == "__main__":
    main()
