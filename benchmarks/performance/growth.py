"""How the cost of a training step grows with the members and with the batch: tables and plot.

    python benchmarks/performance/growth.py            # about three minutes
    python benchmarks/performance/growth.py --write    # and into docs/performance.md, plot too

The network is width → width → width → 10; a step is that of ``networks.py``, over the plain network
with ``members * batch`` rows. Ratios of medians of interleaved repetitions.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from rich.progress import track
from torch import nn

if not __package__:  # run as a file: imports start at the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.pages import ROOT, Lines
from benchmarks.performance.interleaved import ratios
from benchmarks.performance.networks import pair
from benchmarks.performance.parts import Numbers, Part

PLOT = ROOT / "docs" / "images" / "cost.png"
WIDTHS = (128, 256, 512)
MEMBERS = (1, 2, 4, 8, 16, 32, 64)
BATCHES = (16, 64, 256, 1024, 4096)
BATCH = 128  # where the members vary
FEW = 4  # members where the batch varies
AXES = {
    "members": f"members, B = {BATCH}",
    "rows": f"rows of a member, M = {FEW}",
}


def measure(seconds: float) -> Numbers:
    """Time the steps."""
    cases = [("members", width, members, BATCH) for width in WIDTHS for members in MEMBERS]
    cases += [("rows", width, FEW, batch) for width in WIDTHS for batch in BATCHES]
    return [
        {
            "axis": axis,
            "width": width,
            "at": members if axis == "members" else batch,
            "cost": cost(width, members, batch, seconds),
        }
        for axis, width, members, batch in track(cases, "growth")
    ]


def cost(width: int, members: int, batch: int, seconds: float) -> float:
    """Return the time of a step over that of the plain network on the same rows."""
    net = nn.Sequential(
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, 10),
    )
    return ratios(pair(net, torch.randn(batch, width), members).steps(), seconds=seconds)["ours"]


def costs(numbers: Numbers, axis: str) -> dict[int, dict[int, float]]:
    """Return the costs along an axis of the plot, by width and place."""
    found: dict[int, dict[int, float]] = {}
    for each in numbers:
        if each["axis"] == axis:
            found.setdefault(each["width"], {})[each["at"]] = each["cost"]
    return found


def member_lines(numbers: Numbers) -> Lines:
    """Return the table against the members."""
    return _lines(costs(numbers, "members"), "M")


def row_lines(numbers: Numbers) -> Lines:
    """Return the table against the rows of a member."""
    return _lines(costs(numbers, "rows"), "B")


def _lines(found: dict[int, dict[int, float]], symbol: str) -> Lines:
    places = next(iter(found.values()))
    lines = [["width", *(f"{symbol} {place}" for place in places), "largest / smallest"]]
    for width, by_place in found.items():
        values = by_place.values()
        spread = f"{max(values) / min(values):.2f}"
        lines.append([str(width), *(f"{value:.2f}" for value in values), spread])
    return lines


def draw(numbers: Numbers) -> None:
    """Draw both."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
    for axis, (name, label) in zip(axes, AXES.items(), strict=True):
        for width, by_place in costs(numbers, name).items():
            axis.plot(*zip(*by_place.items(), strict=True), marker="o", label=f"width {width}")
        axis.axhline(1, color="0.6", linewidth=1, zorder=0)
        axis.set_xscale("log", base=2)
        axis.set_xticks(list(by_place), [str(each) for each in by_place])
        axis.set_xlabel(label)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("time over a plain network")
    axes[0].set_ylim(bottom=0)
    axes[1].legend(frameon=False)
    figure.savefig(PLOT, dpi=160)
    plt.close(figure)


PART = Part("growth", __doc__, measure, {"growth": member_lines, "rows": row_lines}, draw)

if __name__ == "__main__":
    PART.main()
