"""Ratios of medians of interleaved repetitions: what every timed benchmark here prints."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

Work = Callable[[], object]
Clock = Callable[[Work], float]


def seconds_of(function: Work) -> float:
    """Return how long a call takes, in seconds."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def ratios(
    functions: Mapping[str, Work], *, seconds: float = 1.0, clock: Clock = seconds_of
) -> dict[str, float]:
    """Return each function's median time over that of the one called ``"plain"``.

    Args:
        functions: by name; ``"plain"`` is one of them.
        seconds: about how long each function may run in total; at least seven times, or twice
            where it is 0.
        clock: measures one call.
    """
    times = medians(functions, seconds=seconds, clock=clock)
    return {name: time / times["plain"] for name, time in times.items()}


def medians(
    functions: Mapping[str, Work], *, seconds: float = 1.0, clock: Clock = seconds_of
) -> dict[str, float]:
    """Return each function's median time in seconds.

    The functions take turns, so that a machine that slows down slows all of them.

    Args:
        functions: by name.
        seconds: about how long each function may run in total; at least seven times, or twice
            where it is 0.
        clock: measures one call.
    """
    for function in functions.values():
        function()  # the first call allocates
    times = {name: [clock(function)] for name, function in functions.items()}
    a_turn = sum(first for (first,) in times.values())
    fewest = 7 if seconds else 1
    repetitions = max(fewest, min(200, int(seconds * len(functions) / (a_turn + 1e-9))))
    for _ in range(repetitions):
        for name, function in functions.items():
            times[name].append(clock(function))
    return {name: statistics.median(each) for name, each in times.items()}
