"""What a training step of a whole network costs beside the plain network on the same rows.

    python benchmarks/performance/networks.py            # about a minute
    python benchmarks/performance/networks.py --write    # puts the table into docs/performance.md

The plain network gets every example once for each member, so both do the same multiply-adds. A
step is the forward pass, the loss of each member, the backward pass and Adam. Ratios of medians of
interleaved repetitions.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor, nn

import batchensemble as be

if not __package__:  # run as a file: imports start at the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.operators import declare_operators
from benchmarks.pages import Lines
from benchmarks.performance.interleaved import Work, ratios
from benchmarks.performance.parts import Numbers, Part, cell

MEMBERS = 4
TO_REACH = 1.12


@dataclass(frozen=True)
class Pair:
    """An ensemble and the plain network on the rows of all members.

    Attributes:
        model: the ensemble.
        plain: the plain network.
        of_members: runs the ensemble; logits ``[members * batch, classes]``.
        of_rows: runs the plain network; the same shape.
    """

    model: nn.Module
    plain: nn.Module
    of_members: Callable[[], Tensor]
    of_rows: Callable[[], Tensor]

    def steps(self) -> dict[str, Work]:
        """Return what makes one training step of each."""
        return {
            "plain": training_step(self.plain, self.of_rows),
            "ours": training_step(self.model, self.of_members),
        }


def pair(
    net: nn.Module,
    x: Tensor,
    members: int = MEMBERS,
    logits: Callable[[nn.Module, Tensor], Tensor] = lambda model, x: model(x),
) -> Pair:
    """Return an ensemble of ``net`` and the plain network, in training mode.

    Args:
        net: the network.
        x: a batch; the plain network gets it once for each member.
        members: how many.
        logits: calls a network.
    """
    model, plain = be.BatchEnsemble(net, members=members).train(), copy.deepcopy(net).train()
    rows = x.repeat(members, *[1] * (x.dim() - 1))
    return Pair(
        model,
        plain,
        lambda: logits(model, x).transpose(0, 1).flatten(0, 1),
        lambda: logits(plain, rows),
    )


def training_step(model: nn.Module, run: Callable[[], Tensor]) -> Work:
    """Return what makes one training step."""
    optimiser = torch.optim.Adam(model.parameters())

    def work() -> None:
        optimiser.zero_grad()
        logits = run()
        targets = torch.zeros(len(logits), dtype=torch.long)
        F.cross_entropy(logits, targets).backward()
        optimiser.step()

    return work


def resnet() -> Pair:
    """Return ResNet-18 for images of 32 x 32."""
    declare_operators()
    from torchvision.models import resnet18

    return pair(resnet18(num_classes=10), torch.randn(64, 3, 32, 32))


def bert() -> Pair:
    """Return a small BERT for sentences of 64 tokens."""
    declare_operators()  # transformers imports torchvision
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=1000,
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=1024,
    )
    words = torch.randint(1000, (16, 64))
    net = BertForSequenceClassification(config)
    return pair(net, words, logits=lambda model, x: model(input_ids=x).logits)


NETWORKS = {
    "ResNet-18, 32x32, B 64, M 4": resnet,
    "BERT-mini, 64 tokens, B 16, M 4": bert,
}


def measure(seconds: float) -> Numbers:
    """Time a step of each network."""
    return [
        {"network": name, **ratios(make().steps(), seconds=20 * seconds)}
        for name, make in track(NETWORKS.items(), "networks")
    ]


def lines(numbers: Numbers) -> Lines:
    """Return the table."""
    rows = [[each["network"], cell(each, "ours", TO_REACH)] for each in numbers]
    return [["network", "training step (to reach)"], *rows]


PART = Part("networks", __doc__, measure, {"networks": lines})

if __name__ == "__main__":
    PART.main()
