"""``Strategy``: how processes share a training; the base is a single process."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from batchensemble.core.inputs import Inputs
from batchensemble.data.batches import Batches, Draw
from batchensemble.ensembles import Ensemble
from batchensemble.training.distributed.processes import Processes, split_by_size
from batchensemble.training.history import History
from batchensemble.training.plan import TrainingPlan

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# On an accelerator reading the signals waits for the step, so it is done every 16 steps.
LISTEN_EVERY = 16


class Strategy:
    """A training in a single process; subclasses share it among several.

    Args:
        model: the whole ensemble.
        processes: the processes that train it.

    Attributes:
        whole: the whole ensemble.
        model: the ensemble that this process trains: the whole, a sharded copy, or some members.
        separate_weights: whether the processes train different weights.
        sharded: whether each process holds a piece of every weight.
    """

    separate_weights = False
    sharded = False

    def __init__(self, model: Ensemble, processes: Processes) -> None:
        self.whole = self.model = model
        self.processes = processes
        self.own_signal = self.shared_signal = 0
        self.calls = 0

    @classmethod
    def place(cls, device: torch.device) -> torch.device:
        """Return the device of the processes, for an ensemble on ``device``."""
        return device

    @property
    def shared(self) -> bool:
        """Whether there is more than one process."""
        return self.processes.count > 1

    def note_signal(self, number: int) -> None:
        """Remember a signal, on which all processes act after the same step."""
        self.own_signal = number
        if not self.shared:
            self.shared_signal = number

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Let only the process that writes warn."""
        with ExitStack() as stack:
            if not self.processes.writes:
                stack.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")
            yield

    def begin(self, batches: Batches, seed: int | None) -> None:
        """Prepare for the first step; each process gets its own random state for dropout.

        Raises:
            ValueError: the processes have different data.
        """
        if not self.shared:
            return
        found = self.processes.collect(batches.describe())
        for rank, other in enumerate(found):
            if other != found[0]:
                raise ValueError(
                    "all processes must have the same data, of which each takes its share; "
                    f"process 0 has {found[0]}, process {rank} has {other}"
                )
        self.seed_process(seed)

    @contextmanager
    def finishing(self, history: History) -> Iterator[None]:
        """Collect weights and history when a training has ended or diverged."""
        try:
            yield
        except FloatingPointError:
            self.finish(history)
            raise
        self.finish(history)

    def seed(self, seed: int | None) -> int | None:
        """Return the seed of the data, which is the same in all processes."""
        if seed is not None or not self.shared:
            return seed
        return self.processes.from_first(lambda: int(torch.randint(2**62, ()).item()))

    def seed_process(self, seed: int | None, step: int = 0) -> None:
        """Seed the dropout of each process; the first has that of a single process."""
        if seed is not None and self.processes.rank:
            torch.manual_seed((seed + 0xD1B54A32D192ED03 * self.processes.rank + step) % 2**63)

    def check(self, plan: TrainingPlan) -> None:
        """Raise ``ValueError`` for an option that the strategy does not support."""

    def draw(self, draw: Draw | None) -> Draw | None:
        """Return the function that draws the examples of this process's members."""
        return draw

    def rows(self, batch: int) -> tuple[slice, float]:
        """Return the rows of a batch that this process takes, and their weight."""
        return slice(0, batch), 1.0

    def parts(self, rows: int, batch: int, size: int) -> list[slice]:
        """Return the parts, of at most ``size`` rows, in which this process's rows are run."""
        return split_by_size(rows, size)

    def reduce(self, losses: Tensor, batch: int) -> Tensor:
        """Return the losses ``[batch, members]`` of all processes, and sum their gradients."""
        return losses

    def outputs(self, model: Ensemble, inputs: Inputs) -> Any:
        """Return the outputs of all members, for the same inputs in all processes."""
        return model(inputs)

    def finish(self, history: History) -> None:
        """Copy the weights into the whole ensemble, and the first process's history to all."""

    def _sum(self, parts: list[Tensor]) -> list[Tensor]:
        """Return the sums of all processes' tensors, in one collective with their signals."""
        signals = parts[0].new_tensor([self.own_signal == each for each in SIGNALS])
        parts = [*parts, signals]
        kind = parts[0].dtype
        for each in parts:
            kind = torch.promote_types(kind, each.dtype)
        flat = torch.cat([each.reshape(-1).to(kind) for each in parts])
        pieces = self.processes.sum(flat).split([each.numel() for each in parts])
        if flat.device.type == "cpu" or self.calls % LISTEN_EVERY == 0:
            for number, times in zip(SIGNALS, pieces[-1].tolist(), strict=True):
                self.shared_signal = number if times else self.shared_signal
        self.calls += 1
        return [each.view(part.shape) for each, part in zip(pieces, parts, strict=True)][:-1]
