"""What a training step holds in memory, over a plain layer or network on the same rows.

    python benchmarks/performance/memory.py            # half a minute
    python benchmarks/performance/memory.py --write    # puts the table into docs/performance.md

Kept for the backward: what the forward pass leaves behind for it, besides parameters. Peak: the
most that a step holds at once beyond what was there before it (weights, inputs, Adam's state), as
torch's allocator tells the profiler: the same number every time, but what oneDNN takes for itself
is not in it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

if not __package__:  # run as a file: imports start at the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.pages import Lines
from benchmarks.performance.contenders import Layer
from benchmarks.performance.interleaved import Work
from benchmarks.performance.layers import CASES
from benchmarks.performance.networks import NETWORKS
from benchmarks.performance.parts import Numbers, Part, cell

TO_REACH = 1.15


def measure(seconds: float) -> Numbers:
    """Measure all layers and networks; nothing is timed."""
    numbers = []
    for case in track(CASES, "memory of layers"):
        found = case.make(peers=False)
        sides = {
            name: held(layer.module, lambda layer=layer: layer.module(layer.x), layer.train())
            for name, layer in found.items()
            if isinstance(layer, Layer)
        }
        numbers.append({"what": case.name, **sides})
    for name, make in track(NETWORKS.items(), "memory of networks"):
        pair = make()
        steps = pair.steps()
        sides = {
            "plain": held(pair.plain, pair.of_rows, steps["plain"]),
            "ours": held(pair.model, pair.of_members, steps["ours"]),
        }
        numbers.append({"what": name, **sides})
    return numbers


def held(model: nn.Module, run: Callable[[], Tensor], step: Work) -> dict[str, int]:
    """Return the bytes that a forward pass keeps, and the most that a step holds."""
    return {"kept": saved_bytes(run, model), "peak": peak_bytes(step, model)}


def saved_bytes(function: Callable[[], Tensor], *outside: nn.Module) -> int:
    """Return how many bytes a forward pass keeps for the backward, besides parameters."""
    parameters = {each.data_ptr() for module in outside for each in module.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = function()
    del output
    return sum(kept.values())


def peak_bytes(step: Work, model: nn.Module) -> int:
    """Return the most bytes that a step holds at once beyond what was there before it."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # else each start and stop is told on stderr
    step()  # the optimiser makes its state
    model.zero_grad()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        step()
    assert profiled.profiler is not None
    assert profiled.profiler.kineto_results is not None
    events = [
        event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"
    ]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def lines(numbers: Numbers) -> Lines:
    """Return the table."""
    table = [
        [
            "layer or network",
            "kept for the backward (to reach)",
            "additive, kept",
            "peak of a step (to reach)",
            "additive, peak",
            "plain, MB kept",
            "plain, MB at the peak",
        ]
    ]
    for each in numbers:
        cells = []
        for key in ("kept", "peak"):
            over = {
                name: each[name][key] / each["plain"][key]
                for name in ("ours", "additive")
                if name in each
            }
            cells += [cell(over, "ours", TO_REACH), cell(over, "additive")]
        megabytes = [f"{each['plain'][key] / 1e6:.1f}" for key in ("kept", "peak")]
        table.append([each["what"], *cells, *megabytes])
    return table


PART = Part("memory", __doc__, measure, {"memory": lines})

if __name__ == "__main__":
    PART.main()
