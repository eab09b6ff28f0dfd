"""What a training step of a whole network costs beside the plain network on the same rows.

    python benchmarks/networks.py            # about a minute, two threads
    python benchmarks/networks.py --write    # puts the table into docs/performance.md

The plain network gets every example once for each member, so both do the same multiply-adds. A
step is the forward pass, the loss of each member, the backward pass and Adam. Ratios of medians of
interleaved repetitions; the bytes kept for the backward likewise.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn

import batchensemble as be
from interleaved import Work, ratios, saved_bytes
from layers import PAGE, ROOT, as_markdown, as_rich, between

sys.path.insert(0, str(ROOT / "tests" / "zoo"))
import torchvision_operators  # noqa: F401  # before torchvision
from torchvision.models import resnet18
from transformers import BertConfig, BertForSequenceClassification

MARKS = (
    "<!-- networks: python benchmarks/networks.py --write -->",
    "<!-- end of networks -->",
)
MEMBERS = 4
TO_REACH = 1.12

Logits = Callable[[nn.Module, Tensor], Tensor]


def main() -> None:
    """Print the table, and put it into the page if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="put the table into the page")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    console = Console(width=140)
    lines = [["network", "training step (to reach)", "kept for the backward"]]
    images = torch.randn(64, 3, 32, 32)
    lines.append(line("ResNet-18, 32x32, B 64, M 4", resnet18(num_classes=10), images, _tensor))
    config = BertConfig(
        vocab_size=1000,
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=1024,
    )
    words = torch.randint(1000, (16, 64))
    bert = BertForSequenceClassification(config)
    lines.append(line("BERT-mini, 64 tokens, B 16, M 4", bert, words, _logits))
    console.print(as_rich(lines))
    if arguments.write:
        page = between(PAGE.read_text(encoding="utf-8"), *MARKS, as_markdown(lines))
        PAGE.write_text(page, encoding="utf-8")
        console.print(f"wrote {Path(PAGE).relative_to(ROOT)}")


def line(name: str, net: nn.Module, x: Tensor, logits: Logits) -> list[str]:
    """Measure one network."""
    model = be.BatchEnsemble(net, members=MEMBERS)
    plain = copy.deepcopy(net).train()
    model.train()
    rows = x.repeat(MEMBERS, *[1] * (x.dim() - 1))
    targets = torch.zeros(len(rows), dtype=torch.long)

    def of_members() -> Tensor:
        return logits(model, x).transpose(0, 1).flatten(0, 1)

    def of_rows() -> Tensor:
        return logits(plain, rows)

    found = ratios(
        {"plain": step(plain, of_rows, targets), "ours": step(model, of_members, targets)},
        seconds=8.0,
    )
    kept = saved_bytes(of_members, model) / saved_bytes(of_rows, plain)
    return [name, f"{found['ours']:.2f} ({TO_REACH})", f"{kept:.2f}"]


def step(model: nn.Module, run: Callable[[], Tensor], targets: Tensor) -> Work:
    """Return what makes one training step."""
    optimiser = torch.optim.Adam(model.parameters())

    def work() -> None:
        optimiser.zero_grad()
        F.cross_entropy(run(), targets).backward()
        optimiser.step()

    return work


def _tensor(model: nn.Module, x: Tensor) -> Tensor:
    return model(x)


def _logits(model: nn.Module, x: Tensor) -> Tensor:
    return model(input_ids=x).logits


if __name__ == "__main__":
    main()
