"""Ratios of medians of interleaved repetitions: what every timed benchmark here prints."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

Work = Callable[[], object]


def ratios(functions: Mapping[str, Work], *, seconds: float = 1.0) -> dict[str, float]:
    """Return each function's median time over that of the one called ``"plain"``.

    The functions take turns, so that a machine that slows down slows all of them.

    Args:
        functions: by name; ``"plain"`` is one of them.
        seconds: about how long each function may run in total; at least seven times.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    for name, function in functions.items():
        function()  # the first call allocates
        times[name].append(_time(function))
    repetitions = max(7, min(200, int(seconds / (times["plain"][0] + 1e-9))))
    for _ in range(repetitions):
        for name, function in functions.items():
            times[name].append(_time(function))
    plain = statistics.median(times["plain"])
    return {name: statistics.median(each) / plain for name, each in times.items()}


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


def _time(function: Work) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
