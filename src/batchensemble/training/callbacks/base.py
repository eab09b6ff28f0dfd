"""Callbacks: what is done while a training runs. The loop itself needs none of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from batchensemble.core.inputs import Inputs
from batchensemble.data.batches import Batches
from batchensemble.data.position import DataState
from batchensemble.ensembles import Ensemble
from batchensemble.losses.targets import Targets
from batchensemble.training.distributed.processes import Processes
from batchensemble.training.history import History
from batchensemble.training.objective import Objective
from batchensemble.training.optim.optimizers import Updater


class TrainingState:
    """One training as it stands, which callbacks see.

    Attributes:
        model: the ensemble.
        scored: what is scored on held-out data: the model, or its moving average.
        objective: what a step minimises.
        updater: the optimiser.
        batches: of the training.
        epochs: to go through them.
        history: of the epochs that are over.
        callbacks: in the order in which their hooks are called.
        processes: those that share the training, of which one writes.
        settings: what has to be the same for a checkpoint to be gone on from, by name.
        epoch: epochs done.
        step: steps done, in all epochs.
        step_of_epoch: steps done in this one.
        epoch_losses: the sum of this one's losses, ``[members]``, or ``[1]`` of all together. Even
            a small tensor kept of each step would hold the memory around it: gigabytes after some
            thousand steps.
        epoch_rows: rows of its batches.
        epoch_weight: how much these count in the mean of its losses: as much as there are rows, or
            where examples do not count the same ``[1 or members]``.
        epoch_calls: forward calls of one network.
        losses: of the last batch, ``[batch, members]``.
        last_loss: of the last batch in which something counts, or its mean, where not all count
            the same.
        seconds: that they took, callbacks not counted.
        data_state: where the data are, which checkpoints keep.
        resumed: whether it goes on from a checkpoint.
        restored_random: random states of a checkpoint, until the data are where they were then.
        last_inputs, last_targets: of the last batch.
    """

    model: Ensemble
    scored: Ensemble
    objective: Objective
    updater: Updater
    batches: Batches
    epochs: int
    history: History
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
        """Whether there is nothing left to do."""
        return bool(self.history.stopped) or self.epoch >= self.epochs

    def stop(self, reason: str) -> None:
        """End the training after this step."""
        self.history.stopped = reason

    def say(self, text: str) -> None:
        """Show a line above the progress bar, where there is one."""

    def runs_here(self, callback: Callback) -> bool:
        """Return whether a callback runs in this process."""
        return callback.every_process or self.processes.writes

    def call(self, hook: str) -> None:
        """Call a hook of all callbacks that run in this process."""
        raise NotImplementedError


class Callback:
    """Five hooks, each called with the run.

    It has ``run.model``, ``run.step`` and ``run.epoch`` (how many are done), ``run.losses`` of the
    last batch, ``[batch, members]``, ``run.lr`` and ``run.history``; ``run.stop(reason)`` ends the
    training after the step. Override the hooks you need; an error in one ends the training.

    Example:
        >>> class GoodEnough(Callback):
        ...     def on_step(self, run):
        ...         if run.losses.mean() < 0.01:
        ...             run.stop("the loss is below 0.01")

    Attributes:
        every_process: whether it runs in every process of a training, not in the first one alone.
            In the first one it may print, write files and end the training, which all then do. A
            callback that runs the network under ``strategy="fsdp"``, or changes the data or the
            model, has to run in every process, and to do the same there.
        key: the name of its state in checkpoints, by default that of its class. Give one to a class
            that may be renamed, and to each of several of one class.
        earlier_keys: names that its state had before.
        optional_state: whether a training may go on without its state, as if it were new.
    """

    every_process: bool = False
    key: str = ""
    earlier_keys: tuple[str, ...] = ()
    optional_state: bool = False

    def on_start(self, run: TrainingState) -> None:
        """Before the first step, after a checkpoint was read and the first batch was admitted."""

    def on_step(self, run: TrainingState) -> None:
        """After each step of the optimiser."""

    def on_evaluation(self, run: TrainingState) -> None:
        """After the held-out data were scored, which are ``run.history.evaluations[-1]``."""

    def on_epoch(self, run: TrainingState) -> None:
        """After an epoch is written down in the history."""

    def on_end(self, run: TrainingState) -> None:
        """After the last step, not after an error."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of the callback: numbers, text and tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""


Hook = Callable[[TrainingState], None]
HOOKS = ("on_start", "on_step", "on_evaluation", "on_epoch", "on_end")


def overrides(callback: Callback, name: str) -> bool:
    """Return whether a callback does something at a hook, or has a state."""
    return getattr(type(callback), name) is not getattr(Callback, name)
