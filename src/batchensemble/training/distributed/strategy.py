"""What a training asks of a strategy, and the strategy of one process alone."""

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
from batchensemble.training.distributed.processes import Processes, in_steps
from batchensemble.training.history import History
from batchensemble.training.plan import TrainingPlan

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# On an accelerator reading what was agreed on waits for the step, so that is done now and then.
LISTEN_EVERY = 16


class Strategy:
    """A training in one process alone; subclasses share it out among several.

    Args:
        model: the whole ensemble.
        processes: that train it.

    Attributes:
        model: what this process trains.
        each_its_own: whether the processes train different weights.
        in_pieces: whether each process holds a piece of every weight.
    """

    each_its_own = False
    in_pieces = False

    def __init__(self, model: Ensemble, processes: Processes) -> None:
        self.whole = self.model = model
        self.processes = processes
        self.noted = self.agreed = 0
        self.calls = 0

    @classmethod
    def place(cls, device: torch.device) -> torch.device:
        """Return where the processes compute, for an ensemble on ``device``."""
        return device

    @property
    def shared(self) -> bool:
        """Whether there is more than one process."""
        return self.processes.count > 1

    def note(self, number: int) -> None:
        """Take note of a signal, which all act on after the same step."""
        self.noted = number
        if not self.shared:
            self.agreed = number

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Let only the process that writes warn."""
        with ExitStack() as stack:
            if not self.processes.writes:
                stack.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")
            yield

    def begin(self, batches: Batches, seed: int | None) -> None:
        """Get ready for the first step, each process with dropout of its own.

        Raises:
            ValueError: the processes have different data.
        """
        if not self.shared:
            return
        found = self.processes.all(batches.describe())
        for rank, other in enumerate(found):
            if other != found[0]:
                raise ValueError(
                    "all processes must have the same data, and each takes its share of it; "
                    f"process 0 has {found[0]}, process {rank} has {other}"
                )
        self.own_randomness(seed)

    @contextmanager
    def joining(self, history: History) -> Iterator[None]:
        """Bring weights and history together when a training is over or has diverged."""
        try:
            yield
        except FloatingPointError:
            self.finish(history)
            raise
        self.finish(history)

    def seed(self, seed: int | None) -> int | None:
        """Return the seed of the data, which all must have in common."""
        if seed is not None or not self.shared:
            return seed
        return self.processes.from_first(lambda: int(torch.randint(2**62, ()).item()))

    def own_randomness(self, seed: int | None, step: int = 0) -> None:
        """Give each process dropout of its own; the first one's is that of a process alone."""
        if seed is not None and self.processes.rank:
            torch.manual_seed((seed + 0xD1B54A32D192ED03 * self.processes.rank + step) % 2**63)

    def check(self, plan: TrainingPlan) -> None:
        """Raise ``ValueError`` for an option that does not go with the strategy."""

    def draw(self, draw: Draw | None) -> Draw | None:
        """Return what draws the examples of this process's members."""
        return draw

    def rows(self, batch: int) -> tuple[slice, float]:
        """Return which rows of a batch this process takes, and how much they count."""
        return slice(0, batch), 1.0

    def parts(self, rows: int, batch: int, size: int) -> list[slice]:
        """Return the parts, of ``size`` rows at most, in which this process's rows are run."""
        return in_steps(rows, size)

    def reduce(self, losses: Tensor, batch: int) -> Tensor:
        """Return the losses ``[batch, members]`` of all, and make the gradients those of all."""
        return losses

    def outputs(self, model: Ensemble, inputs: Inputs) -> Any:
        """Return the outputs of all members for inputs that all processes have."""
        return model(inputs)

    def finish(self, history: History) -> None:
        """Bring the weights into the whole ensemble, and the first one's history to all."""

    def _sum(self, parts: list[Tensor]) -> list[Tensor]:
        """Return the sums of all processes' tensors, in one collective; listen for signals."""
        heard = parts[0].new_tensor([self.noted == each for each in SIGNALS])
        parts = [*parts, heard]
        kind = parts[0].dtype
        for each in parts:
            kind = torch.promote_types(kind, each.dtype)
        flat = torch.cat([each.reshape(-1).to(kind) for each in parts])
        pieces = self.processes.sum(flat).split([each.numel() for each in parts])
        if flat.device.type == "cpu" or self.calls % LISTEN_EVERY == 0:
            for number, times in zip(SIGNALS, pieces[-1].tolist(), strict=True):
                self.agreed = number if times else self.agreed
        self.calls += 1
        return [each.view(part.shape) for each, part in zip(pieces, parts, strict=True)][:-1]
