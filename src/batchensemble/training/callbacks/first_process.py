"""Callbacks that run in one process of a training, and how their end or error reaches all."""

from __future__ import annotations

import pickle
from collections.abc import Sequence

import torch

from batchensemble.training.callbacks.base import HOOKS, Callback, Hook, TrainingState, overrides
from batchensemble.training.distributed.processes import Processes

# On an accelerator reading the sum waits for the step, so that is done now and then.
SYNC_EVERY = 16


class FirstProcessCallbacks(Callback):
    """Shares the end or the error of callbacks that run in the first process alone with all.

    Its own hooks run after theirs. Where a callback of the user's has a hook for each step, that
    costs a sum of one number from each process a step; on an accelerator every 16 steps.

    Args:
        processes: the processes of the training.
        callbacks: all callbacks of the training.
    """

    every_process = True

    def __init__(self, processes: Processes, callbacks: Sequence[Callback]) -> None:
        self.processes = processes
        self.error: Exception | None = None
        self.shared_hooks = processes.from_first(lambda: _shared_hooks(callbacks))
        self.steps = 0

    def holding_errors(self, hook: Hook) -> Hook:
        """Return a hook whose error is held until all processes can raise it."""

        def held(run: TrainingState) -> None:
            if self.error is None:
                try:
                    hook(run)
                except Exception as error:
                    self.error = error

        return held

    def on_start(self, run: TrainingState) -> None:
        """Share an error."""
        self._share(run, "on_start")

    def on_step(self, run: TrainingState) -> None:
        """Share an end or an error."""
        self.steps += 1
        if self.processes.device.type == "cpu" or self.steps % SYNC_EVERY == 0:
            self._share(run, "on_step")

    def on_evaluation(self, run: TrainingState) -> None:
        """Share an end or an error."""
        self._share(run, "on_evaluation")

    def on_epoch(self, run: TrainingState) -> None:
        """Share an end or an error."""
        self._share(run, "on_epoch")

    def on_end(self, run: TrainingState) -> None:
        """Share an error."""
        self._share(run, "on_end")

    def _share(self, run: TrainingState, hook: str) -> None:
        if hook not in self.shared_hooks:
            return
        error = self.error
        ends = self.processes.writes and (error is not None or bool(run.history.stopped))
        if not self.processes.sum(torch.tensor([float(ends)], device=self.processes.device)):
            return
        received, reason = self.processes.from_first(
            lambda: (_sendable(error), run.history.stopped)
        )
        if error is not None:
            raise error
        if received is not None:
            raise received
        run.stop(reason)


def _shared_hooks(callbacks: Sequence[Callback]) -> set[str]:
    """Return the hooks after which an end or an error has to be shared.

    The package's own callbacks end no training, and an error in writing is shared at the latest
    when the epoch ends.
    """
    alone = [each for each in callbacks if not each.every_process]
    of_users = [each for each in alone if not type(each).__module__.startswith("batchensemble.")]
    return {
        hook
        for hook in HOOKS
        if any(overrides(each, hook) for each in (of_users if hook == "on_step" else alone))
    }


def _sendable(error: Exception | None) -> Exception | None:
    """Return an error as other processes can have it."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"a callback of process 0 raised {type(error).__name__}: {error}")
    return error
