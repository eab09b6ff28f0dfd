"""``TrainingRun``: the state of a training, which goes from step to step and calls the hooks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from batchensemble.core.inputs import Inputs, Nested
from batchensemble.core.random_state import DataStream, random_states, set_random_states
from batchensemble.data.batches import Batches, LoaderBatches, Pair, tensor_checksum
from batchensemble.data.position import DataState
from batchensemble.ensembles import Ensemble
from batchensemble.losses.standardised import LossUnit, unit_of
from batchensemble.losses.targets import Targets
from batchensemble.training.callbacks.base import HOOKS, Callback, Hook, TrainingState, overrides
from batchensemble.training.callbacks.first_process import FirstProcessCallbacks
from batchensemble.training.callbacks.progress import TrainingBar
from batchensemble.training.distributed.processes import Processes
from batchensemble.training.history import History
from batchensemble.training.objective import Objective
from batchensemble.training.optim.optimizers import Updater

# Reading a loss makes the processor wait for an accelerator, so there it is done every 16 steps.
CHECK_EVERY = 16


class TrainingRun(TrainingState):
    """The state of a training with its loop's steps.

    Args:
        model: the ensemble.
        objective: what a step minimises.
        updater: the optimiser with its schedule.
        batches: the batches of the training data.
        stream: the random state that the batches are drawn from.
        epochs: number of epochs.
        history: an empty history, which is filled epoch by epoch.
        callbacks: the callbacks, in the order in which their hooks are called.
        settings: what has to be the same to resume from a checkpoint, by name.
        processes: the processes that share the training; by default this one alone.
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
        self.unit = unit_of(objective.loss) or LossUnit()
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
        self.check_first_batch: Callable[[Inputs, Targets], None] | None = None
        self.started = False
        self._clock = 0.0
        self.data_state: DataState | None = None
        self.resumed = False
        self.restored_random: tuple[dict[str, Tensor], dict[str, Any]] | None = None
        self.processes = processes or Processes()
        self._hooks = {name: self._hooks_here(name) for name in HOOKS}

    def say(self, text: str) -> None:
        """Print a line above the progress bar, if there is one."""
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
        """Call the hooks of the start; an error before this leaves no files."""
        self.started, before = True, time.perf_counter()
        self.call("on_start")
        self._clock += time.perf_counter() - before

    def begin_epoch(self) -> None:
        """Start an epoch."""
        self.stream.begin(self.epoch)
        self.model.train()
        self._clock = time.perf_counter()

    def remaining(self) -> Iterator[Pair]:
        """Yield the remaining batches of this epoch."""
        skip = self.step_of_epoch
        if self.data_state is not None:
            skip = 0 if self.data_state.goes_on else skip
            self.data_state.begin()
        if isinstance(self.batches, LoaderBatches) and self.step_of_epoch:
            # The skipped batches are loaded with the random state of the epoch's start.
            batches = self.batches.starting_at(skip, self._restore_random)
        else:
            self._restore_random()
            batches = self.batches.starting_at(skip)
        for number, (inputs, targets) in enumerate(batches):
            if not number and isinstance(self.batches, LoaderBatches):
                self._check_same(inputs)
            if self.check_first_batch is not None:
                device = next(self.model.parameters()).device
                before = random_states(device)
                self.check_first_batch(inputs, targets)
                if not self.started:
                    self.begin()
                if self.resumed:  # in the first run the check came before these states
                    set_random_states(*before, device)
                self.check_first_batch = None
            yield inputs, targets

    def _check_same(self, inputs: Inputs) -> None:
        """Raise ``ValueError`` if the loaders of several processes yield different batches."""
        strategy = self.objective.strategy
        if strategy is None or strategy.separate_weights:  # members may have orders of their own
            return
        tensors = inputs.tensors() if isinstance(inputs, Nested) else [inputs]
        sums = strategy.processes.collect([tensor_checksum(each) for each in tensors])
        for rank, other in enumerate(sums):
            if other != sums[0]:
                raise ValueError(
                    "all processes must have the same batches, of which each takes its share; "
                    f"in epoch {self.epoch + 1} the first batch of process {rank} differs from "
                    "that of process 0: give samplers the same seed and set_epoch in each (in a "
                    "callback with every_process = True), and no DistributedSampler that divides "
                    "the data"
                )

    def _restore_random(self) -> None:
        """Restore the random states of the checkpoint."""
        if self.restored_random is not None:
            set_random_states(*self.restored_random, next(self.model.parameters()).device)
            self.restored_random = None
        if self.data_state is not None:
            self.data_state.caught_up()

    def check(self, losses: Tensor, weight: Tensor | None, inputs: Inputs) -> None:
        """Raise ``FloatingPointError`` if a loss is not finite, before the weights are updated.

        On an accelerator this is checked every 16 steps.

        Args:
            losses: the losses of the batch, ``[batch, members]``.
            weight: the mean weight of its examples; ``None`` if all have the same.
            inputs: the inputs of the batch.
        """
        self.losses, self._sums, self._weight = losses, losses.sum(0), weight
        now = losses.device.type == "cpu" or self.step % CHECK_EVERY == 0
        if now and not math.isfinite(sum(self._sums.tolist())):
            self._diverged(losses, inputs)

    def step_done(self, inputs: Inputs, targets: Targets) -> None:
        """Record a finished step, and call the hooks."""
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
            self.seconds += now - self._clock
            self.call("on_step")
            self._clock = time.perf_counter()

    def end_epoch(self) -> None:
        """Record a finished epoch, and call the hooks.

        Raises:
            ValueError: it had no batch, or all its targets are ignored, unknown or of weight 0.
            FloatingPointError: a loss was not finite.
        """
        self.seconds += time.perf_counter() - self._clock
        if not self.epoch_rows:
            raise ValueError("data must hold at least one batch, but the data loader yields none")
        weight = torch.as_tensor(self.epoch_weight)
        if not weight.any():
            raise ValueError(
                "data must hold at least one target that counts, but in this epoch all were "
                "ignored, not known, or of weight 0"
            )
        self.history.record(
            # NaN for a member whose targets all have weight 0.
            [
                self.unit(each)
                for each in (self.epoch_losses / weight.to(self.epoch_losses.device)).tolist()
            ],
            self.unit(
                (self.losses if self._weight is None else self.last_loss).contiguous().mean().item()
            ),
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
        """Raise an error with the member, the step, the rate, and whether the inputs are finite."""
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
