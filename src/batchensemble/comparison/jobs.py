"""Many trainings at once, on joblib or Ray, each in a process whose death affects no other.

A pool of processes breaks as a whole when one of them is killed, without telling which task it ran.
So every running task has a pool of one process, which is reused for the next one.
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

from batchensemble.comparison.ray import Say, connect_to_ray, run_on_ray
from batchensemble.core.arguments import one_of, whole_number
from batchensemble.training.distributed.processes import from_launcher

BACKENDS = ("loky", "ray")


@dataclass(frozen=True)
class Failure:
    """A task that failed.

    Attributes:
        reason: why it failed, without a full stop.
    """

    reason: str


def _silent(sentence: str) -> None:
    """Say nothing."""


def prepare_backend(
    jobs: int, backend: str = "loky", address: str | None = None, say: Say = _silent
) -> int:
    """Check the number of jobs and the backend, and connect to Ray if that is the backend.

    Args:
        jobs: number of tasks at once.
        backend: ``"loky"``, processes on this machine, or ``"ray"``.
        address: address of a running Ray, ``"auto"`` for the one on this machine; by default a Ray
            is started on this machine.
        say: called with a sentence about what is waited for; by default nothing.

    Raises:
        TypeError, ValueError: an argument is not valid.
        ImportError: Ray is not installed.
        OSError: there is no Ray at the address, it does not start, or it runs nothing for 120 s.
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
        connect_to_ray(jobs, address, say)
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
    """Yield the number of each task and its result or :class:`Failure`, as they finish.

    A task that raises or whose process is killed is a failure, and the others continue. When the
    iteration ends early, by Ctrl-C for instance, the processes are stopped.

    Args:
        task: a function that other processes can import.
        arguments: the positional arguments of each call.
        jobs: number of calls at once; each process gets its share of the cores.
        backend: ``"loky"`` (the default) or ``"ray"``; :func:`prepare_backend` must have been
            called.
        begun: called with the number of each task that begins; by default nothing is called.
        say: called with a sentence when nothing has finished on Ray for 30 s; by default nothing is
            said.

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
    """Processes that run one task at a time and are reused.

    Args:
        threads: number of threads that torch may use in each process.
        begun: called with the number of each task that begins; by default nothing is called.
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
        """Return the task's number, and its result or :class:`Failure`."""
        executor = self._take()
        if executor is None:
            return number, Failure("it was not started")
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
    """Return the number of threads that each of so many jobs may use; 1 on Ray."""
    import torch

    if backend == "ray":
        return 1
    return max(1, min(torch.get_num_threads(), cpu_count() // jobs))


@functools.cache
def _workers_on_ray() -> Workers:
    """Return the workers of this process of Ray: starting one takes as long as a short training."""
    return Workers(threads_of(1, "ray"))


def _call_on_ray(
    number: int, task: Callable[..., Any], arguments: tuple[Any, ...]
) -> tuple[int, Any]:
    """Run a task in its own process on a machine of Ray, so that only that process may die."""
    return _workers_on_ray().call(number, task, arguments)


def _begin(threads: int) -> None:
    """Set up a worker: its threads, and its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends the workers
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    import torch

    torch.set_num_threads(threads)


def _end_with(parent: int) -> None:
    """Exit when the parent is gone: nobody would read the result."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


@contextmanager
def _given_out(results: Generator[Any, None, None]) -> Iterator[Generator[Any, None, None]]:
    """Stop what still runs when the iteration ends early, without joblib's warning."""
    try:
        yield results
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            results.close()


def _death(error: BrokenProcessPool) -> str:
    """Return how a process ended; loky tells it only in its message."""
    found = re.search(r"\{(.+?)\}", str(error))
    how = f" ({found.group(1)})" if found else ""
    memory = "; SIGKILL often means that memory ran out" if "SIGKILL" in how else ""
    return f"its process ended before the training did{how}{memory}"


def _sentence(error: Exception) -> str:
    """Return an error and where it was raised, unless it is about the training itself."""
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
