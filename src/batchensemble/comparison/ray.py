"""Tasks on the machines of Ray, each in its own process."""

from __future__ import annotations

import importlib.util
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

Say = Callable[[str], None]

START_LIMIT = 120.0  # seconds in which Ray has to run a first, empty task
SILENT = 30.0  # seconds without a finished task after which the state is reported
ROUNDS = 3  # how often a task is tried whose machine was lost


def connect_to_ray(jobs: int, address: str | None, say: Say) -> None:
    """Connect to Ray, or start it here, and check that it runs a task.

    Args:
        jobs: number of tasks at once, each on one of Ray's CPUs.
        address: address of a running Ray; ``None`` starts one on this machine.
        say: called with a sentence about what is waited for.

    Raises:
        ImportError: Ray is not installed.
        OSError: there is no Ray at the address, it does not start, or it runs nothing for 120 s.
        ValueError: Ray has fewer CPUs than jobs.
    """
    if importlib.util.find_spec("ray") is None:
        raise ImportError(
            "backend='ray' needs Ray, which is not installed; pip install 'batchensemble[ray]'"
        )
    import ray

    started = time.monotonic()
    if not ray.is_initialized():
        where = "on this machine" if address is None else f"at {address}"
        say(f"Ray: {'starting' if address is None else 'connecting'} {where}")
        _init(ray, address)
        say(f"Ray: there after {time.monotonic() - started:.0f} s")
    cores = int(ray.cluster_resources().get("CPU", 0))
    if jobs > cores:
        raise ValueError(f"jobs must be at most {cores}, the cores that Ray has, got {jobs}")
    probe = ray.remote(num_cpus=1, max_retries=0)(_nothing).remote()
    try:
        ray.get(probe, timeout=START_LIMIT)
    except ray.exceptions.GetTimeoutError as error:
        ray.cancel(probe, force=True)
        free = ray.available_resources().get("CPU", 0)
        raise OSError(
            f"Ray has run nothing in {START_LIMIT:.0f} s: {free:g} of its {cores} CPUs are free; "
            "wait until others are done (`ray status` says what runs), or leave backend='ray' out"
        ) from error
    except ray.exceptions.RayError as error:
        raise OSError(
            f"Ray cannot run anything here: {_first_line(error)}; is batchensemble installed on "
            "all of its machines, in this version?"
        ) from error


def run_on_ray(
    call: Callable[..., tuple[int, Any]],
    task: Callable[..., Any],
    left: dict[int, tuple[Any, ...]],
    jobs: int,
    begun: Callable[[int], None],
    say: Say,
) -> Iterator[tuple[int, Any]]:
    """Yield the number of each task and its result, or the reason for its failure, as text.

    Args:
        call: function that runs a numbered task in its own process on the machine where it is
            called.
        task: the function to run.
        left: the positional arguments of each task, by its number.
        jobs: number of tasks at once.
        begun: called with the number of each task that is submitted.
        say: called with a sentence when nothing has finished for 30 s.
    """
    import ray

    remote = ray.remote(num_cpus=1, max_retries=0)(call)
    waiting = deque((number, each, 1) for number, each in left.items())
    running: dict[Any, tuple[int, tuple[Any, ...], int]] = {}
    started = last = time.monotonic()
    done = 0
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                number, arguments, times = waiting.popleft()
                running[remote.remote(number, task, arguments)] = number, arguments, times
                begun(number)
            ended, _ = ray.wait(list(running), timeout=1.0)
            for reference in ended:
                number, arguments, times = running.pop(reference)
                try:
                    outcome = ray.get(reference)
                except ray.exceptions.RayError as error:
                    if times < ROUNDS:
                        waiting.append((number, arguments, times + 1))
                        continue
                    outcome = number, _lost(error)
                done, last = done + 1, time.monotonic()
                yield outcome
            if time.monotonic() - last > SILENT:
                last = time.monotonic()
                if ray.cluster_resources().get("CPU", 0) < 1:
                    waiting.extend(running.values())
                    running.clear()
                    for number, _, _ in waiting:
                        yield number, "no machine of Ray is left"
                    return
                say(
                    f"Ray: {len(running)} running, {len(waiting)} waiting, {done} done after "
                    f"{last - started:.0f} s"
                )
    finally:
        for reference in running:
            ray.cancel(reference, force=True)


def _init(ray: Any, address: str | None) -> None:
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError as error:
        raise OSError(
            f"there is no Ray at the address {address!r}; start one with `ray start --head`, "
            "or leave the address out"
        ) from error
    except Exception as error:  # Ray gives up after 30 s with a bare one
        raise OSError(
            f"Ray did not start: {_first_line(error)} On a busy machine start it before, with "
            "`ray start --head`, and give the address 'auto', or leave backend='ray' out"
        ) from error


def _lost(error: Exception) -> str:
    return f"its machine was lost ({type(error).__name__}: {_first_line(error)})"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _nothing() -> None:
    """Run on Ray, where it needs this package."""
