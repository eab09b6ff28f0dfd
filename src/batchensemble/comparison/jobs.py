"""Many trainings at once: joblib or Ray gives them out, and each has a process that may die alone.

A pool of processes breaks as a whole when one of them is killed, and nobody knows then which task
it was. So there is a pool of one process for each task that runs, used again for the next one.
"""

from __future__ import annotations

import functools
import os
import re
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from joblib import Parallel, cpu_count, delayed
from joblib.externals.loky import BrokenProcessPool, ProcessPoolExecutor

from batchensemble.comparison.ray import Say, connect, run_on_ray
from batchensemble.core.arguments import one_of, whole_number
from batchensemble.training.distributed.processes import from_launcher

BACKENDS = ("loky", "ray")


@dataclass(frozen=True)
class Failure:
    """What a task gave in place of a result.

    Attributes:
        reason: why, without a full stop.
    """

    reason: str


def _silent(sentence: str) -> None:
    """Say nothing."""


def prepare(
    jobs: int, backend: str = "loky", address: str | None = None, say: Say = _silent
) -> int:
    """Check how many tasks are to run at once, and where; connect to Ray if it is there.

    Args:
        jobs: tasks at once.
        backend: ``"loky"``, processes of this machine, or ``"ray"``.
        address: of a running Ray, ``"auto"`` for the one of this machine; without it a Ray of this
            machine is started.
        say: told what is waited for, as a sentence.

    Raises:
        TypeError, ValueError: an argument is wrong.
        ImportError: Ray is not installed.
        OSError: there is no Ray at the address, it does not start, or runs nothing for 120 s.
    """
    jobs = whole_number("jobs", jobs)
    launched = from_launcher().count
    if jobs > 1 and launched > 1:
        raise ValueError(
            f"jobs are processes of their own, got {jobs} in one of {launched} processes that "
            "torchrun started for one training; start it without torchrun"
        )
    one_of("backend", backend, BACKENDS)
    if backend == "ray":
        if jobs == 1:
            raise ValueError("backend='ray' needs jobs of at least 2, got 1")
        connect(jobs, address, say)
    elif address is not None:
        raise ValueError(f"address is for backend='ray', got {address!r} with {backend!r}")
    return jobs


def run_many(
    task: Callable[..., Any],
    arguments: Sequence[tuple[Any, ...]],
    *,
    jobs: int,
    backend: str = "loky",
    begun: Callable[[int], None] | None = None,
    say: Say = _silent,
) -> Iterator[tuple[int, Any]]:
    """Yield the number of each task and its result, or :class:`Failure`, in the order they end.

    A task that raises or whose process is killed is a failure, and the others go on. Where the
    iteration is left, by Ctrl-C for instance, the processes end.

    Args:
        task: a function that other processes can import.
        arguments: of each call.
        jobs: calls at once; each process gets its share of the cores.
        backend: see :func:`prepare`, which has been called.
        begun: told the number of each task that begins.
        say: told what Ray runs where nothing ends for 30 s.

    Example:
        >>> sorted(run_many(divmod, [(7, 2), (9, 2)], jobs=2))
        [(0, (3, 1)), (1, (4, 1))]
    """
    begun = begun or (lambda number: None)
    if backend == "ray":
        left = dict(enumerate(arguments))
        for number, outcome in run_on_ray(_call_on_ray, task, left, jobs, begun, say):
            yield number, Failure(outcome) if isinstance(outcome, str) else outcome
        return
    # A thread here waits for each process; the work is done there.
    parallel = Parallel(jobs, "threading", return_as="generator_unordered", batch_size=1)
    with Workers(threads_of(jobs), begun) as workers:
        calls = [delayed(workers.call)(number, task, each) for number, each in enumerate(arguments)]
        with _given_out(parallel(calls)) as results:
            for number, outcome in results:  # "yield from" would close it first, with a warning
                yield number, outcome


class Workers:
    """Processes that run a task each, and are used again.

    Args:
        threads: that torch may use in a process.
        begun: told the number of each task that begins.
    """

    def __init__(self, threads: int, begun: Callable[[int], None] | None = None) -> None:
        self.threads, self.begun = threads, begun
        self._lock = threading.Lock()
        self._idle: list[ProcessPoolExecutor] = []
        self._all: list[ProcessPoolExecutor] = []
        self._ended = False

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._ended = True
        for executor in self._all:
            executor.shutdown(kill_workers=True)

    def call(
        self, number: int, task: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> tuple[int, Any]:
        """Return the number, and the task's result or :class:`Failure`."""
        executor = self._take()
        if executor is None:
            return number, Failure("it was not begun")
        if self.begun is not None:
            self.begun(number)
        try:
            outcome = executor.submit(task, *arguments).result()
        except BrokenProcessPool as error:
            return number, Failure(_death(error))
        except Exception as error:
            outcome = Failure(_sentence(error))
        with self._lock:
            self._idle.append(executor)
        return number, outcome

    def _take(self) -> ProcessPoolExecutor | None:
        with self._lock:
            if self._ended:
                return None
            if not self._idle:
                new = ProcessPoolExecutor(
                    1,
                    initializer=_begin,
                    initargs=(self.threads,),
                    env={"OMP_NUM_THREADS": str(self.threads)},
                )
                self._all.append(new)
                return new
            return self._idle.pop()


def threads_of(jobs: int, backend: str = "loky") -> int:
    """Return how many threads each of so many jobs may use; a job on Ray has one core."""
    import torch

    if backend == "ray":
        return 1
    return max(1, min(torch.get_num_threads(), cpu_count() // jobs))


@functools.cache
def _workers_on_ray() -> Workers:
    """Return the workers of a process of Ray's: starting one takes as long as many a training."""
    return Workers(threads_of(1, "ray"))


def _call_on_ray(
    number: int, task: Callable[..., Any], arguments: tuple[Any, ...]
) -> tuple[int, Any]:
    """Run a task in a process of its own on a machine of Ray's, so that only that may die."""
    return _workers_on_ray().call(number, task, arguments)


def _begin(threads: int) -> None:
    """Set a worker up: its threads, and when it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends the workers
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    import torch

    torch.set_num_threads(threads)


def _end_with(parent: int) -> None:
    """Leave when the parent is gone: nobody would read the result."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


@contextmanager
def _given_out(results: Generator[Any, None, None]) -> Iterator[Generator[Any, None, None]]:
    """End what still runs when the results are left, which joblib would warn of."""
    try:
        yield results
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            results.close()


def _death(error: BrokenProcessPool) -> str:
    """Say how a process ended; loky knows it in words only."""
    found = re.search(r"\{(.+?)\}", str(error))
    how = f" ({found.group(1)})" if found else ""
    memory = "; SIGKILL often means that memory ran out" if "SIGKILL" in how else ""
    return f"its process ended before the training did{how}{memory}"


def _sentence(error: Exception) -> str:
    """Return what was raised, and where unless it is said of the training itself."""
    if isinstance(error, FloatingPointError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    place = ""
    if error.__cause__ is not None:  # loky's: the traceback of the other process, as text
        lines = re.findall(r'File "(.+)", line (\d+)', str(error.__cause__))
        place = f" ({Path(lines[-1][0]).name}, line {lines[-1][1]})" if lines else ""
    elif frames:
        place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})"
    return f"{type(error).__name__}: {error}{place}"
