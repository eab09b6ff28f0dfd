"""One example through all members, over one plain network or layer.

    python benchmarks/performance/latency.py            # under a minute
    python benchmarks/performance/latency.py --write    # puts the table into docs/performance.md

In evaluation mode, without gradients; ratios of medians of interleaved repetitions.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from rich.progress import track
from torch import nn

import batchensemble as be

if not __package__:  # run as a file: imports start at the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.pages import Lines
from benchmarks.performance.contenders import Loop, without_gradients
from benchmarks.performance.interleaved import medians
from benchmarks.performance.parts import Numbers, Part, cell

MEMBERS = (4, 16)
TO_REACH = {4: 1.8, 16: 2.8}  # of the network


def measure(seconds: float) -> Numbers:
    """Time the network and its widest layer."""
    cases = [(name, members) for name in NETWORKS for members in MEMBERS]
    return [measure_case(*case, seconds) for case in track(cases, "latency")]


def measure_case(name: str, members: int, seconds: float) -> dict[str, object]:
    """Time one network with so many members."""
    net = NETWORKS[name]()
    x = torch.randn(1, next(net.parameters()).shape[1])
    models = {
        "plain": net,
        "ours": be.BatchEnsemble(net, members=members),
        "stacked": be.DeepEnsemble(net, members=members),
    }
    works = {key: without_gradients(model.eval(), x) for key, model in models.items()}
    works["loop"] = without_gradients(Loop(net, members).eval(), x.expand(members, -1, -1))
    times = medians(works, seconds=seconds)
    over = {key: time / times["plain"] for key, time in times.items()}
    return {"network": name, "members": members, "milliseconds": 1e3 * times["plain"], **over}


def mlp() -> nn.Module:
    """Return the network."""
    return nn.Sequential(
        nn.Linear(1024, 4096),
        nn.ReLU(),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Linear(4096, 10),
    )


def layer() -> nn.Module:
    """Return its widest layer."""
    return nn.Linear(4096, 4096)


NETWORKS = {"1024 → 4096 → 4096 → 10": mlp, "one layer 4096 → 4096": layer}


def lines(numbers: Numbers) -> Lines:
    """Return the table."""
    table = [
        [
            "network",
            "members",
            "BatchEnsemble (to reach)",
            "deep ensemble, stacked",
            "deep ensemble, in a loop",
            "plain, ms",
        ]
    ]
    for each in numbers:
        whole = each["network"] == next(iter(NETWORKS))
        bar = TO_REACH[each["members"]] if whole else None
        row = [cell(each, "ours", bar), cell(each, "stacked"), cell(each, "loop")]
        ms = f"{each['milliseconds']:.2f}"
        table.append([each["network"], str(each["members"]), *row, ms])
    return table


PART = Part("latency", __doc__, measure, {"latency": lines})

if __name__ == "__main__":
    PART.main()
