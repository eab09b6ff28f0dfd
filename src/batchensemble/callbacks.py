"""Callbacks: what is done while a training runs. The loop itself needs none of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchensemble.run import Run


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

    def on_start(self, run: Run) -> None:
        """Before the first step, after a checkpoint was read and the first batch was admitted."""

    def on_step(self, run: Run) -> None:
        """After each step of the optimiser."""

    def on_evaluation(self, run: Run) -> None:
        """After the held-out data were scored, which are ``run.history.evaluations[-1]``."""

    def on_epoch(self, run: Run) -> None:
        """After an epoch is written down in the history."""

    def on_end(self, run: Run) -> None:
        """After the last step, not after an error."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of the callback: numbers, text and tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""


HOOKS = ("on_start", "on_step", "on_evaluation", "on_epoch", "on_end")


def overrides(callback: Callback, name: str) -> bool:
    """Return whether a callback does something at a hook, or has a state."""
    return getattr(type(callback), name) is not getattr(Callback, name)
