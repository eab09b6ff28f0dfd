"""What an ensemble layer costs beside a plain one on the same rows: docs/performance.md.

    python benchmarks/layers.py            # about two minutes, two threads
    python benchmarks/layers.py --write    # puts the tables and the plot into the page
    pip install --no-deps tabm==0.0.3      # for the column of tabm's layer

Every number is a ratio of medians of interleaved repetitions; the plain layer is ``nn.Linear`` or
``nn.Conv2d`` on ``members * batch`` rows in the same run.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

import batchensemble as be
from batchensemble.layers.convolution import RankOneConvolution
from batchensemble.layers.linear import RankOneLinear
from interleaved import Work, ratios, saved_bytes

try:
    from tabm import LinearBatchEnsemble
except ImportError:
    LinearBatchEnsemble = None

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "performance.md"
PLOT = ROOT / "docs" / "images" / "cost.png"
MARKS = {
    name: (f"<!-- {name}: python benchmarks/layers.py --write -->", f"<!-- end of {name} -->")
    for name in ("layers", "latency")
}

# batch, members, inputs, outputs; at most in training
LINEAR = [
    (4096, 32, 64, 64, 1.00),
    (2048, 16, 128, 128, 1.05),
    (1024, 4, 512, 512, 1.10),
    (256, 4, 512, 512, 1.12),
    (128, 3, 128, 128, 1.15),
    (256, 32, 384, 384, 1.12),
    (96, 4, 768, 3072, 1.15),
]
INFERENCE_TO_REACH = 1.05
CONVOLUTION_TO_REACH = 1.10
LATENCY_TO_REACH = {4: 1.8, 16: 2.8}

Lines = list[list[str]]


@dataclass(frozen=True)
class Case:
    """One layer of an ensemble and the plain one, with inputs for each.

    Attributes:
        layer: the ensemble's.
        plain: the plain one.
        x: the ensemble's input.
        rows: the same rows for the plain layer.
    """

    layer: nn.Module
    plain: nn.Module
    x: Tensor
    rows: Tensor

    def train(self) -> dict[str, Work]:
        """Return what runs each layer forward and backward."""
        return {
            "plain": forward_backward(self.plain, self.rows),
            "ours": forward_backward(self.layer, self.x),
        }

    def infer(self) -> dict[str, Work]:
        """Return what runs each layer without gradients."""
        layer = copy.deepcopy(self.layer).eval()
        frozen = copy.deepcopy(layer)
        frozen.freeze()
        return {
            "plain": without_gradients(self.plain, self.rows),
            "ours": without_gradients(layer, self.x),
            "frozen": without_gradients(frozen, self.x),
        }

    def memory(self) -> float:
        """Return the bytes that the layer keeps for the backward over those of the plain one."""
        ours = saved_bytes(lambda: self.layer(self.x), self.layer)
        return ours / saved_bytes(lambda: self.plain(self.rows), self.plain)


def main() -> None:
    """Print the tables, and put them into the page if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="put the tables into the page")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    console = Console(width=140)
    tables = {"layers": layer_lines(), "latency": latency_lines()}
    for lines in tables.values():
        console.print(as_rich(lines))
    if arguments.write:
        page = PAGE.read_text(encoding="utf-8")
        for name, lines in tables.items():
            page = between(page, *MARKS[name], as_markdown(lines))
        PAGE.write_text(page, encoding="utf-8")
        plot()
        console.print(f"wrote {PAGE.relative_to(ROOT)} and {PLOT.relative_to(ROOT)}")


def layer_lines() -> Lines:
    """Measure the layers; the first line is the heading."""
    lines = [
        [
            "layer",
            "training (to reach)",
            "additive, training",
            "tabm's layer, training",
            "inference (to reach)",
            "frozen",
            "kept for the backward",
        ]
    ]
    for batch, members, inputs, outputs, bar in track(LINEAR, "layers"):
        case = linear(batch, members, inputs, outputs)
        additive = linear(batch, members, inputs, outputs, mode="additive")
        functions = case.train() | {"additive": additive.train()["ours"]}
        if LinearBatchEnsemble is not None:
            theirs = LinearBatchEnsemble(inputs, outputs, k=members, scaling_init="random-signs")
            functions["tabm"] = forward_backward(theirs, case.x.detach().transpose(0, 1).clone())
        training = ratios(functions)
        inference = ratios(case.infer())
        lines.append(
            [
                f"B {batch}, M {members}, {inputs} → {outputs}",
                f"{training['ours']:.2f} ({bar:.2f})",
                f"{training['additive']:.2f}",
                f"{training['tabm']:.2f}" if "tabm" in training else "-",
                f"{inference['ours']:.2f} ({INFERENCE_TO_REACH})",
                f"{inference['frozen']:.2f}",
                f"{case.memory():.2f}",
            ]
        )
    case = convolution(32, 4, 64, 32)
    additive = convolution(32, 4, 64, 32, mode="additive")
    training = ratios(case.train() | {"additive": additive.train()["ours"]}, seconds=3.0)
    inference = ratios(case.infer())
    lines.append(
        [
            "Conv2d 3x3, B 32, M 4, 64 → 64, 32x32",
            f"{training['ours']:.2f} ({CONVOLUTION_TO_REACH:.2f})",
            f"{training['additive']:.2f}",
            "-",
            f"{inference['ours']:.2f}",
            f"{inference['frozen']:.2f}",
            f"{case.memory():.2f}",
        ]
    )
    return lines


def latency_lines() -> Lines:
    """Measure one example through all members over one plain network."""
    lines = [["members", "BatchEnsemble (to reach)", "deep ensemble, stacked"]]
    for members, bar in LATENCY_TO_REACH.items():
        net = nn.Sequential(
            nn.Linear(1024, 4096),
            nn.ReLU(),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Linear(4096, 10),
        )
        x = torch.randn(1, 1024)
        models = {
            "plain": net,
            "ours": be.BatchEnsemble(net, members=members),
            "deep": be.DeepEnsemble(net, members=members),
        }
        found = ratios({name: without_gradients(each.eval(), x) for name, each in models.items()})
        lines.append([str(members), f"{found['ours']:.2f} ({bar})", f"{found['deep']:.2f}"])
    return lines


def plot() -> None:
    """Draw the cost of training against the members and against the batch."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
    counts, batches = (1, 2, 4, 8, 16, 32, 64), (16, 64, 256, 1024, 4096)
    for axis, label, values, cases in (
        (axes[0], "members, B = 256", counts, [(256, each) for each in counts]),
        (axes[1], "rows of a member, M = 4", batches, [(each, 4) for each in batches]),
    ):
        for width in (128, 256, 512):
            costs = [ratios(linear(*case, width, width).train())["ours"] for case in cases]
            axis.plot(values, costs, marker="o", label=f"{width} → {width}")
        axis.axhline(1, color="0.6", linewidth=1, zorder=0)
        axis.set_xscale("log", base=2)
        axis.set_xticks(values, [str(each) for each in values])
        axis.set_xlabel(label)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("time over a plain layer")
    axes[0].set_ylim(bottom=0)
    axes[1].legend(frameon=False)
    figure.savefig(PLOT, dpi=160)


def linear(batch: int, members: int, inputs: int, outputs: int, **options: str) -> Case:
    """Return a linear layer; rows come as ``[members, batch, inputs]``, as within a network."""
    plain = nn.Linear(inputs, outputs)
    x = torch.randn(members, batch, inputs)
    twin = RankOneLinear(copy.deepcopy(plain), members, **options)
    return Case(twin, plain, _leaf(x), _leaf(x.flatten(0, 1)))


def convolution(batch: int, members: int, channels: int, size: int, **options: str) -> Case:
    """Return a convolution of 3 x 3."""
    plain = nn.Conv2d(channels, channels, 3, padding=1)
    x = torch.randn(members * batch, channels, size, size)
    twin = RankOneConvolution(copy.deepcopy(plain), members, **options)
    return Case(twin, plain, _leaf(x), _leaf(x))


def forward_backward(layer: Callable[[Tensor], Tensor], x: Tensor) -> Work:
    """Return what computes the output and the gradients of the input and all parameters."""
    assert isinstance(layer, nn.Module)
    x = x.requires_grad_()
    leaves = [x, *layer.parameters()]
    with torch.no_grad():
        gradient = torch.randn_like(layer(x))
    return lambda: torch.autograd.grad(layer(x), leaves, gradient)


def without_gradients(layer: Callable[[Tensor], Tensor], x: Tensor) -> Work:
    """Return what computes the output alone."""

    def run() -> object:
        with torch.no_grad():
            return layer(x)

    return run


def as_rich(lines: Lines) -> Table:
    """Return a table for the terminal."""
    table = Table(title="over a plain layer or network, 2 threads")
    for number, heading in enumerate(lines[0]):
        table.add_column(heading, justify="right" if number else "left")
    for line in lines[1:]:
        table.add_row(*line)
    return table


def as_markdown(lines: Lines) -> str:
    """Return a table for the page."""
    rule = ["---", *["---:"] * (len(lines[0]) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))


def between(page: str, start: str, end: str, text: str) -> str:
    """Return the page with ``text`` between two marks.

    Raises:
        ValueError: the page lacks a mark.
    """
    if start not in page or end not in page:
        raise ValueError(f"the page must hold the lines {start!r} and {end!r}")
    return f"{page.split(start)[0]}{start}\n\n{text}\n\n{end}{page.split(end)[1]}"


def _leaf(x: Tensor) -> Tensor:
    return x.detach().clone().requires_grad_()


if __name__ == "__main__":
    main()
