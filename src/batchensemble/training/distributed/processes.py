"""The processes of one training, and how they communicate.

``torchrun`` or ``accelerate launch`` starts them; accelerate connects them.
"""

from __future__ import annotations

import atexit
import datetime
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

# How long a process waits for another: if one is lost, the run ends within a minute.
PROCESS_TIMEOUT = datetime.timedelta(seconds=50)


class ProcessLostError(RuntimeError):
    """Another process of the training has ended, or does not respond."""


class Processes:
    """The processes of one training, as seen by one of them.

    Args:
        rank: number of this process, from 0.
        count: number of processes.
        device: the device of this process, by default the CPU.

    Example:
        >>> alone = Processes()
        >>> alone.writes, alone.from_first(lambda: 3), alone.collect("a")
        (True, 3, ['a'])
    """

    def __init__(self, rank: int = 0, count: int = 1, device: torch.device | None = None) -> None:
        self.rank, self.count = rank, count
        self.device = device or torch.device("cpu")

    @property
    def writes(self) -> bool:
        """Whether this process writes files, prints, warns and runs the users' callbacks.

        One process does, the first. Whatever has to know asks here.
        """
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of all processes' values, in place."""
        if self.count > 1:
            with _reporting_own_errors():
                torch.distributed.all_reduce(values)
        return values

    def gather(self, values: Tensor, sizes: Sequence[int], axis: int = 0) -> Tensor:
        """Return all processes' values, concatenated.

        Args:
            values: the values of this process.
            sizes: the size of the axis in each process.
            axis: the axis along which they are concatenated.
        """
        if self.count == 1:
            return values
        values = values.movedim(axis, 0)
        padded = values.new_zeros(max(sizes), *values.shape[1:])
        padded[: len(values)] = values
        found = [torch.empty_like(padded) for _ in sizes]
        with _reporting_own_errors():
            torch.distributed.all_gather(found, padded)
        parts = [each[:size] for each, size in zip(found, sizes, strict=True)]
        return torch.cat(parts).movedim(0, axis)

    def collect(self, value: T) -> list[T]:
        """Return the values of all processes, which may be any objects, on each of them."""
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count
        with _reporting_own_errors():
            torch.distributed.all_gather_object(found, value)
        return found

    def from_first(self, make: Callable[[], T]) -> T:
        """Return what the first process makes, or raise its error, on all processes."""
        if self.count == 1:
            return make()
        found: list[Any] = [None, None]
        if self.writes:
            try:
                found[0] = make()
            except Exception as error:
                found[1] = error
        with _reporting_own_errors():
            torch.distributed.broadcast_object_list(found, 0)
        if found[1] is not None:
            raise found[1]
        return found[0]

    def on_first(self, do: Callable[[], object]) -> None:
        """Let the first process do something while the others wait; an error is raised on all."""

        def without_result() -> None:
            do()

        self.from_first(without_result)

    def broadcast(self, tensors: Iterable[Tensor], source: int = 0) -> None:
        """Copy the values of one process into the tensors of all."""
        if self.count > 1:
            with _reporting_own_errors(), torch.no_grad():
                for each in tensors:
                    # Only contiguous tensors on this process's device can be sent.
                    sent = each.detach().to(self.device).contiguous()
                    torch.distributed.broadcast(sent, source)
                    each.copy_(sent)


def from_launcher() -> Processes:
    """Return which of the processes that a launcher started this one is; alone without a launcher.

    The processes are not connected: the result is for their number and for ``writes``.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    return Processes(int(os.environ.get("RANK", "0")) if count > 1 else 0, count)


def connect(device: torch.device) -> Processes:
    """Return the processes that a launcher started, connected, or this one alone.

    Args:
        device: the device of the network. On CPU they communicate through gloo; on CUDA through
            NCCL, and each process has its own device.

    Raises:
        ImportError: there are several processes, and accelerate is not installed.
    """
    if from_launcher().count == 1:
        return Processes()
    try:
        from accelerate import PartialState
    except ImportError as error:
        raise ImportError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, and training on several processes needs "
            "accelerate; pip install 'batchensemble[distributed]'"
        ) from error
    started_before = torch.distributed.is_initialized()
    state = PartialState(cpu=device.type == "cpu", timeout=PROCESS_TIMEOUT)
    if not started_before:
        # Otherwise remaining threads of the group abort the process at its end.
        atexit.register(state.destroy_process_group)
    return Processes(state.process_index, state.num_processes, state.device)


def split_evenly(size: int, count: int) -> list[slice]:
    """Return ``count`` slices of ``size`` items whose lengths differ by at most one.

    Example:
        >>> split_evenly(5, 2)
        [slice(0, 3, None), slice(3, 5, None)]
    """
    bounds = [-(-size * index // count) for index in range(count + 1)]
    return [slice(start, stop) for start, stop in itertools.pairwise(bounds)]


def split_by_size(size: int, step: int) -> list[slice]:
    """Return slices of ``size`` items, of length ``step``; the last one may be shorter.

    Example:
        >>> split_by_size(5, 3)
        [slice(0, 3, None), slice(3, 5, None)]
    """
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]


@contextmanager
def _reporting_own_errors() -> Iterator[None]:
    """Raise ``ProcessLostError`` for an error of our own communication."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise _lost(error) from error


@contextmanager
def reporting_lost_process() -> Iterator[None]:
    """Raise ``ProcessLostError`` for an error of torch's communication, however it is wrapped."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, ProcessLostError):
            kind = isinstance(cause, torch.distributed.DistError)
            if kind or (isinstance(cause, RuntimeError) and "/gloo/" in str(cause)):
                raise _lost(cause) from error
            cause = cause.__cause__ or cause.__context__
        raise


def _lost(error: BaseException) -> ProcessLostError:
    return ProcessLostError(
        "another process of this training has ended, or has not responded for "
        f"{PROCESS_TIMEOUT.seconds} s; see its own message. The last checkpoint can be resumed "
        f"with any number of processes ({str(error).splitlines()[0]})"
    )
