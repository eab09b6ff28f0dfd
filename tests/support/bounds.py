"""Bounds on what a test may take: memory, and an alarm for what never ends."""

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SPARE = 2**28  # bytes beside what the process has, for what is not worth measuring
LONGEST = 60  # seconds, after which something hangs


@contextmanager
def most_memory(more: float) -> Iterator[None]:
    """Let no more memory be had than so many bytes beside what the process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    most = pages * resource.getpagesize() + int(more)
    resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextmanager
def bounded() -> Iterator[None]:
    """Fail what hangs, and what takes more memory than is to spare."""

    def late(*_: object) -> None:
        raise AssertionError("it hangs")

    handler = signal.signal(signal.SIGALRM, late)
    signal.alarm(LONGEST)
    try:
        with most_memory(SPARE):
            yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
