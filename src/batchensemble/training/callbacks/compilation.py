"""``fit(compile=True)``: training steps through ``torch.compile``, and the measured speed-up."""

from __future__ import annotations

import statistics
import time

import torch
from torch import Tensor

from batchensemble.core.inputs import Inputs
from batchensemble.training.callbacks.base import Callback, TrainingState
from batchensemble.training.history import Compilation
from batchensemble.training.objective import Losses

EAGER_STEPS = 6  # timed before compiling; the first allocates and is not counted


class CompiledLosses(Callback):
    """Losses that are compiled after a few eager steps, by which the speed-up is measured.

    Args:
        losses: the losses of an objective.
        mode: the mode of ``torch.compile``; ``True`` is its default one.
        device: the device to wait for before the clock is read.
    """

    every_process = True

    def __init__(self, losses: Losses, mode: bool | str, device: torch.device) -> None:
        self.losses, self.device = losses, device
        name = mode if isinstance(mode, str) else "default"
        self.compiled: Losses = torch.compile(losses, mode=name)
        self.seconds: list[float] = []
        self.last = 0.0

    def __call__(self, inputs: Inputs, targets: Tensor) -> Tensor:
        """Return the losses of a batch.

        Raises:
            RuntimeError: the network cannot be compiled here.
        """
        if not torch.is_grad_enabled() or len(self.seconds) < EAGER_STEPS:
            return self.losses(inputs, targets)
        try:
            return self.compiled(inputs, targets)
        except (torch._dynamo.exc.TorchDynamoException, torch._inductor.exc.InductorError) as error:
            raise RuntimeError(
                f"torch.compile cannot compile this network here: {str(error).splitlines()[0]}; "
                "leave compile= out"
            ) from error

    def on_start(self, run: TrainingState) -> None:
        """Start the clock."""
        self.last = self._now()

    def on_step(self, run: TrainingState) -> None:
        """Record the duration of a step."""
        before, self.last = self.last, self._now()
        self.seconds.append(self.last - before)

    def on_epoch(self, run: TrainingState) -> None:
        """Report the speed-up once, as soon as there are compiled steps."""
        if run.history.compilation is None and len(self.seconds) >= EAGER_STEPS + 2:
            run.history.compilation = Compilation(
                statistics.median(self.seconds[1:EAGER_STEPS]),
                statistics.median(self.seconds[EAGER_STEPS + 1 :]),
                self.seconds[EAGER_STEPS],
            )
            run.say(str(run.history.compilation))
        self.last = self._now()

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()
