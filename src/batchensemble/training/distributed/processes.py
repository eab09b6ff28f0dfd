"""The processes of one training: who they are, and what they tell each other.

``torchrun`` or ``accelerate launch`` starts them; accelerate makes the group that they talk in.
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

# How long a process waits for another, so that one that is lost ends the run within a minute.
PATIENCE = datetime.timedelta(seconds=50)


class ProcessLostError(RuntimeError):
    """Another process of the training has ended, or does not answer."""


class Processes:
    """The processes of one training, as one of them sees them.

    Args:
        rank: its number, from 0.
        count: how many there are.
        device: where it computes.

    Example:
        >>> alone = Processes()
        >>> alone.writes, alone.from_first(lambda: 3), alone.all("a")
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
        """Return the sum of what all have, in place."""
        if self.count > 1:
            with _heard():
                torch.distributed.all_reduce(values)
        return values

    def gather(self, values: Tensor, sizes: Sequence[int], axis: int = 0) -> Tensor:
        """Return what all have, one behind the other.

        Args:
            values: of this process.
            sizes: of the axis, of each process.
            axis: along which they are joined.
        """
        if self.count == 1:
            return values
        values = values.movedim(axis, 0)
        padded = values.new_zeros(max(sizes), *values.shape[1:])
        padded[: len(values)] = values
        found = [torch.empty_like(padded) for _ in sizes]
        with _heard():
            torch.distributed.all_gather(found, padded)
        parts = [each[:size] for each, size in zip(found, sizes, strict=True)]
        return torch.cat(parts).movedim(0, axis)

    def all(self, value: T) -> list[T]:
        """Return the values of all, of any kind, on all."""
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count
        with _heard():
            torch.distributed.all_gather_object(found, value)
        return found

    def from_first(self, make: Callable[[], T]) -> T:
        """Return what the first process makes, or raise its error, on all."""
        if self.count == 1:
            return make()
        found: list[Any] = [None, None]
        if self.writes:
            try:
                found[0] = make()
            except Exception as error:
                found[1] = error
        with _heard():
            torch.distributed.broadcast_object_list(found, 0)
        if found[1] is not None:
            raise found[1]
        return found[0]

    def on_first(self, do: Callable[[], object]) -> None:
        """Let the first process do something while the others wait; its error is raised on all."""

        def without_result() -> None:
            do()

        self.from_first(without_result)

    def same(self, tensors: Iterable[Tensor], source: int = 0) -> None:
        """Bring one process's values into the tensors of all, by default the first one's."""
        if self.count > 1:
            with _heard(), torch.no_grad():
                for each in tensors:
                    # Contiguous, and where this process computes: that is what is sent.
                    sent = each.detach().to(self.device).contiguous()
                    torch.distributed.broadcast(sent, source)
                    each.copy_(sent)


def from_launcher() -> Processes:
    """Return which of the processes that a launcher started this one is; alone without a launcher.

    They are not connected: what comes back says who writes, and how many there are.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    return Processes(int(os.environ.get("RANK", "0")) if count > 1 else 0, count)


def connect(device: torch.device) -> Processes:
    """Return the processes that a launcher started, connected, or this one alone.

    Args:
        device: of the network. On CPU they talk through gloo, on CUDA through NCCL, each process
            then with a device of its own.

    Raises:
        ImportError: there are several, and accelerate is not installed.
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
    state = PartialState(cpu=device.type == "cpu", timeout=PATIENCE)
    if not started_before:
        # Threads of the group that are left at the end of the process abort it.
        atexit.register(state.destroy_process_group)
    return Processes(state.process_index, state.num_processes, state.device)


def cut(size: int, count: int) -> list[slice]:
    """Return ``count`` pieces of ``size`` things that differ in length by at most one.

    Example:
        >>> cut(5, 2)
        [slice(0, 3, None), slice(3, 5, None)]
    """
    bounds = [-(-size * index // count) for index in range(count + 1)]
    return [slice(start, stop) for start, stop in itertools.pairwise(bounds)]


def in_steps(size: int, step: int) -> list[slice]:
    """Return pieces of ``size`` things, of ``step`` each and maybe a shorter last one.

    Example:
        >>> in_steps(5, 3)
        [slice(0, 3, None), slice(3, 5, None)]
    """
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]


@contextmanager
def _heard() -> Iterator[None]:
    """Say in a sentence that another process does not answer."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise _lost(error) from error


@contextmanager
def overheard() -> Iterator[None]:
    """Say the same of what torch's own modules tell each other, whatever was made of the error."""
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
        "another process of this training has ended, or has not answered for "
        f"{PATIENCE.seconds} s; its own message says why. The last checkpoint goes on with "
        f"any number of processes ({str(error).splitlines()[0]})"
    )
