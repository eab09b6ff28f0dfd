"""A training as it stands: what was done so far, and who is told."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from batchensemble.core.inputs import Inputs, Nested
from batchensemble.core.random_state import DataStream, random_states, set_random_states
from batchensemble.data.batches import Batches, LoaderBatches, Pair, checksum
from batchensemble.data.position import DataState
from batchensemble.ensembles import Ensemble
from batchensemble.losses.targets import Targets
from batchensemble.training.callbacks.base import HOOKS, Callback, Hook, TrainingState, overrides
from batchensemble.training.callbacks.first_process import FirstProcessCallbacks
from batchensemble.training.callbacks.progress import TrainingBar
from batchensemble.training.distributed.processes import Processes
from batchensemble.training.history import History
from batchensemble.training.objective import Objective
from batchensemble.training.optim.optimizers import Updater

# Reading a loss makes the processor wait for an accelerator, so that is done now and then there.
CHECK_EVERY = 16


class TrainingRun(TrainingState):
    """A training that goes on, step by step.

    Args:
        model: the ensemble.
        objective: what a step minimises.
        updater: the optimiser.
        batches: of the training.
        stream: the random state that they are drawn from.
        epochs: to go through them.
        history: of the epochs that are over.
        callbacks: in the order in which their hooks are called.
        settings: what has to be the same to resume from a checkpoint, by name.
        processes: those that share the training; by default this one alone.
    """

    def __init__(
        self,
        model: Ensemble,
        objective: Objective,
        updater: Updater,
        batches: Batches,
        stream: DataStream,
        epochs: int,
        history: History,
        callbacks: Sequence[Callback] = (),
        settings: dict[str, Any] | None = None,
        processes: Processes | None = None,
    ) -> None:
        self.model, self.scored = model, model
        self.objective, self.updater = objective, updater
        self.batches, self.stream, self.epochs = batches, stream, epochs
        self.history, self.callbacks = history, callbacks
        self.settings = settings or {}
        self.epoch = self.step = self.step_of_epoch = 0
        self.epoch_losses = self.losses = torch.empty(0, 0)
        self.epoch_rows = self.epoch_calls = 0
        self.epoch_weight: float | Tensor = 0.0
        self.last_loss = torch.zeros(())
        self.last_inputs: Inputs | None = None
        self.last_targets: Targets | None = None
        self.seconds = 0.0
        self._weight: Tensor | None = None
        self.bar: TrainingBar | None = None
        self.admit: Callable[[Inputs, Targets], None] | None = None
        self.begun = False
        self._started = 0.0
        self.data_state: DataState | None = None
        self.resumed = False
        self.restored_random: tuple[dict[str, Tensor], dict[str, Any]] | None = None
        self.processes = processes or Processes()
        self._hooks = {name: self._hooks_here(name) for name in HOOKS}

    def say(self, text: str) -> None:
        """Show a line above the progress bar, where there is one."""
        if self.bar is not None:
            self.bar.say(text)

    def call(self, hook: str) -> None:
        """Call a hook of all callbacks that run in this process."""
        for function in self._hooks[hook]:
            function(self)

    def _hooks_here(self, name: str) -> list[Hook]:
        """Return what to call in this process for a hook."""
        callbacks = [
            each for each in self.callbacks if overrides(each, name) and self.runs_here(each)
        ]
        shared = [each for each in self.callbacks if isinstance(each, FirstProcessCallbacks)]
        hooks: list[Hook] = []
        for each in callbacks:
            hook: Hook = getattr(each, name)
            alone = shared and not each.every_process  # the other processes do not run it
            hooks.append(shared[0].holding_errors(hook) if alone else hook)
        return hooks

    def begin(self) -> None:
        """Tell that there is a training; what was refused before that has left nothing."""
        self.begun, before = True, time.perf_counter()
        self.call("on_start")
        self._started += time.perf_counter() - before

    def begin_epoch(self) -> None:
        """Go to the start of the data."""
        self.stream.begin(self.epoch)
        self.model.train()
        self._started = time.perf_counter()

    def remaining(self) -> Iterator[Pair]:
        """Yield the batches of this epoch that are left."""
        skip = self.step_of_epoch
        if self.data_state is not None:
            skip = 0 if self.data_state.goes_on else skip
            self.data_state.begin()
        if isinstance(self.batches, LoaderBatches) and self.step_of_epoch:
            # What is random in loading what was done comes before what was random in doing it.
            batches = self.batches.starting_at(skip, self._caught_up)
        else:
            self._caught_up()
            batches = self.batches.starting_at(skip)
        for number, (inputs, targets) in enumerate(batches):
            if not number and isinstance(self.batches, LoaderBatches):
                self._check_same(inputs)
            if self.admit is not None:
                device = next(self.model.parameters()).device
                before = random_states(device)
                self.admit(inputs, targets)
                if not self.begun:
                    self.begin()
                if self.resumed:  # the first time it did so before the states that were restored
                    set_random_states(*before, device)
                self.admit = None
            yield inputs, targets

    def _check_same(self, inputs: Inputs) -> None:
        """Raise ``ValueError`` where the loaders of several processes yield different batches."""
        sharing = self.objective.sharing
        if sharing is None or sharing.each_its_own:  # members may have orders of their own
            return
        tensors = inputs.tensors() if isinstance(inputs, Nested) else [inputs]
        sums = sharing.processes.all([checksum(each) for each in tensors])
        for rank, other in enumerate(sums):
            if other != sums[0]:
                raise ValueError(
                    "all processes must have the same batches, and each takes its share of them; "
                    f"in epoch {self.epoch + 1} the first one of process {rank} is another than "
                    "that of process 0: give samplers the same seed and set_epoch in each (in a "
                    "callback with every_process = True), and no DistributedSampler that shares "
                    "the data out"
                )

    def _caught_up(self) -> None:
        """Go on with what was random when the checkpoint was written."""
        if self.restored_random is not None:
            set_random_states(*self.restored_random, next(self.model.parameters()).device)
            self.restored_random = None
        if self.data_state is not None:
            self.data_state.caught_up()

    def check(self, losses: Tensor, weight: Tensor | None, inputs: Inputs) -> None:
        """Raise ``FloatingPointError`` where a loss is not finite, before it reaches the weights.

        On an accelerator that is looked at every 16 steps.

        Args:
            losses: of the batch, ``[batch, members]``.
            weight: their mean weight; ``None`` where all count the same.
            inputs: of the batch.
        """
        self.losses, self._sums, self._weight = losses, losses.sum(0), weight
        now = losses.device.type == "cpu" or self.step % CHECK_EVERY == 0
        if now and not math.isfinite(sum(self._sums.tolist())):
            self._diverged(losses, inputs)

    def step_done(self, inputs: Inputs, targets: Targets) -> None:
        """Count a step that was checked, and tell."""
        if self._weight is None:
            sums = self._sums
            self.epoch_weight += len(self.losses)
        else:
            sums = self._sums * self._weight
            self.epoch_weight = self.epoch_weight + len(self.losses) * self._weight.double()
            if self._weight.device.type != "cpu":  # which reading it would make wait
                found = self.losses.mean()
                self.last_loss = torch.where(self._weight.any(), found, self.last_loss)
            elif self._weight.any():
                self.last_loss = self.losses
        if self.epoch_rows:
            self.epoch_losses += sums
        else:
            self.epoch_losses = sums.double()
        self.epoch_rows += len(self.losses)
        self.epoch_calls += self.objective.parts(len(self.losses)) * self.model.calls_per_forward
        self.last_inputs, self.last_targets = inputs, targets
        self.step += 1
        self.step_of_epoch += 1
        if self._hooks["on_step"]:
            now = time.perf_counter()
            self.seconds += now - self._started
            self.call("on_step")
            self._started = time.perf_counter()

    def end_epoch(self) -> None:
        """Write down the epoch, and tell.

        Raises:
            ValueError: it had no batch, or none of its targets counts.
            FloatingPointError: a loss was not finite.
        """
        self.seconds += time.perf_counter() - self._started
        if not self.epoch_rows:
            raise ValueError("data must hold at least one batch, but the data loader yields none")
        weight = torch.as_tensor(self.epoch_weight)
        if not weight.any():
            raise ValueError(
                "data must hold at least one target that counts, but in this epoch all were "
                "ignored, not known, or of weight 0"
            )
        self.history.record(
            # NaN is the loss of a member of which nothing counted.
            (self.epoch_losses / weight.to(self.epoch_losses.device)).tolist(),
            (self.losses if self._weight is None else self.last_loss).contiguous().mean().item(),
            self.seconds,
            examples=self.epoch_rows * self.objective.examples_a_row,
            calls=self.epoch_calls,
        )
        if not self.epoch_losses.isfinite().all():
            self._diverged(self.epoch_losses[None], self.last_inputs)
        self.epoch += 1
        self.step_of_epoch, self.seconds = 0, 0.0
        self.epoch_rows = self.epoch_calls = 0
        self.epoch_weight = 0.0
        self.call("on_epoch")

    def _diverged(self, losses: Tensor, inputs: Any) -> None:
        """Say which member's loss is not finite, when, and whether the inputs are to blame."""
        bad = (~losses.isfinite()).any(0).nonzero().flatten().tolist()
        members = f"member {bad[0]}" if len(bad) == 1 else f"members {', '.join(map(str, bad))}"
        value = losses[~losses.isfinite()][0].item()
        finite = not inputs.is_floating_point() or bool(inputs.isfinite().all())
        raise FloatingPointError(
            f"training diverged: the loss of {members} was {value} in epoch {self.epoch + 1}, step "
            f"{self.step_of_epoch + 1}, at a learning rate of {self.lr:.3g}; the inputs of the "
            f"batch are {'finite' if finite else 'not finite'}. The weights are those before the "
            "step; " + ("try a lower learning rate" if finite else "fill or drop those examples")
        )
