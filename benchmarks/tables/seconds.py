"""CPU seconds of a fit and of a prediction, those of threads and of child processes among them."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Stopwatch:
    """Adds up what a run takes.

    Attributes:
        fit: CPU seconds.
        predict: CPU seconds.
    """

    fit: float = 0.0
    predict: float = 0.0

    @contextmanager
    def fitting(self) -> Iterator[None]:
        """Count what happens within as fitting."""
        before = cpu_seconds()
        yield
        self.fit += cpu_seconds() - before

    @contextmanager
    def predicting(self) -> Iterator[None]:
        """Count what happens within as predicting."""
        before = cpu_seconds()
        yield
        self.predict += cpu_seconds() - before


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
