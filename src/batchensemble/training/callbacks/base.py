"""``Callback``, and the state of a training that its hooks get."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from batchensemble.core.inputs import Inputs
from batchensemble.data.batches import Batches
from batchensemble.data.position import DataState
from batchensemble.ensembles import Ensemble
from batchensemble.losses.standardised import LossUnit
from batchensemble.losses.targets import Targets
from batchensemble.training.distributed.processes import Processes
from batchensemble.training.history import History
from batchensemble.training.objective import Objective
from batchensemble.training.optim.optimizers import Updater


class TrainingState:
    """The current state of a training, which callbacks see.

    Attributes:
        model: the ensemble.
        scored: the ensemble that is scored on held-out data: the model, or its moving average.
        objective: what a step minimises.
        updater: the optimiser with its schedule.
        batches: the batches of the training data.
        epochs: number of epochs of the training.
        history: the history of the finished epochs.
        callbacks: the callbacks, in the order in which their hooks are called.
        processes: the processes that share the training, of which one writes.
        settings: what has to be the same to resume from a checkpoint, by name.
        epoch: number of finished epochs.
        step: number of finished steps, over all epochs.
        step_of_epoch: number of finished steps of the current epoch.
        epoch_losses: the sum of the losses of the current epoch, ``[members]``, or ``[1]`` for a
            loss of all members together. A sum, since even a small tensor stored for each step
            would hold the memory around it: gigabytes after some thousand steps.
        epoch_rows: number of rows in the batches of the current epoch.
        epoch_weight: the total weight of these rows in the mean of the losses: their number, or,
            if examples have weights, ``[1 or members]``.
        epoch_calls: number of forward calls of one network in the current epoch.
        losses: the losses of the last batch, ``[batch, members]``.
        last_loss: if examples have weights, the losses of the last batch with a positive weight, or
            their mean.
        seconds: duration of the steps of the current epoch, without callbacks.
        data_state: the position in the data, which checkpoints store.
        resumed: whether the training was resumed from a checkpoint.
        restored_random: the random states of a checkpoint, until the data are at its position.
        last_inputs, last_targets: the last batch, in one order: ``[batch, ...]``, or ``[batch,
            members, ...]`` if each member has its own examples.
    """

    model: Ensemble
    scored: Ensemble
    objective: Objective
    updater: Updater
    batches: Batches
    epochs: int
    history: History
    unit: LossUnit
    callbacks: Sequence[Callback]
    processes: Processes
    settings: dict[str, Any]
    epoch: int
    step: int
    step_of_epoch: int
    epoch_losses: Tensor
    epoch_rows: int
    epoch_weight: float | Tensor
    epoch_calls: int
    losses: Tensor
    last_loss: Tensor
    last_inputs: Inputs | None
    last_targets: Targets | None
    seconds: float
    data_state: DataState | None
    resumed: bool
    restored_random: tuple[dict[str, Tensor], dict[str, Any]] | None

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return self.updater.lr

    @property
    def over(self) -> bool:
        """Whether the training has ended."""
        return bool(self.history.stopped) or self.epoch >= self.epochs

    def stop(self, reason: str) -> None:
        """End the training after this step."""
        self.history.stopped = reason

    def say(self, text: str) -> None:
        """Print a line above the progress bar, if there is one."""

    def runs_here(self, callback: Callback) -> bool:
        """Return whether a callback runs in this process."""
        return callback.every_process or self.processes.writes

    def call(self, hook: str) -> None:
        """Call a hook of all callbacks that run in this process."""
        raise NotImplementedError


class Callback:
    """Five hooks, each called with the run, a :class:`TrainingState`.

    It has ``run.model``, ``run.step`` and ``run.epoch`` (the numbers of finished steps and epochs),
    ``run.losses`` of the last batch, ``[batch, members]``, ``run.lr`` and ``run.history``;
    ``run.stop(reason)`` ends the training after the step. Override the hooks you need; an error in
    one ends the training.

    Example:
        >>> class GoodEnough(Callback):
        ...     def on_step(self, run):
        ...         if run.losses.mean() < 0.01:
        ...             run.stop("the loss is below 0.01")

    Attributes:
        every_process: whether it runs in every process of a training; by default only in the
            first, where it may print, write files, and end the training for all. A callback that
            runs the network under ``strategy="fsdp"``, or changes the data or the model, has to run
            in every process and do the same in each.
        key: the name of its state in checkpoints, by default the name of its class. Set it if the
            class may be renamed, or if there are several callbacks of the class.
        earlier_keys: names under which its state was stored before.
        optional_state: whether a training may resume without its state, as if it were new.
    """

    every_process: bool = False
    key: str = ""
    earlier_keys: tuple[str, ...] = ()
    optional_state: bool = False

    def on_start(self, run: TrainingState) -> None:
        """Before the first step, after a checkpoint was read and the first batch was checked."""

    def on_step(self, run: TrainingState) -> None:
        """After each step of the optimiser."""

    def on_evaluation(self, run: TrainingState) -> None:
        """After an evaluation on held-out data, ``run.history.evaluations[-1]``."""

    def on_epoch(self, run: TrainingState) -> None:
        """After an epoch was recorded in the history."""

    def on_end(self, run: TrainingState) -> None:
        """After the last step, not after an error."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint stores for the callback: numbers, text and tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""


Hook = Callable[[TrainingState], None]
HOOKS = ("on_start", "on_step", "on_evaluation", "on_epoch", "on_end")


def overrides(callback: Callback, name: str) -> bool:
    """Return whether a callback overrides a hook, or has a state."""
    return getattr(type(callback), name) is not getattr(Callback, name)
