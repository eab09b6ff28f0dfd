"""Callbacks that run in the first process of a training alone, and what the others hear of them."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence

import torch

from batchensemble.training.callbacks.base import HOOKS, Callback, TrainingState, overrides
from batchensemble.training.distributed.processes import Processes

# On an accelerator reading what was agreed on waits for the step, so that is done now and then.
EVERY = 16


class FirstProcessCallbacks(Callback):
    """Lets callbacks run in the first process alone, whose end or error all processes then share.

    It is told after them. Where a callback of the user's is told of each step, that is one number
    from each process a step; on an accelerator every 16 steps.

    Args:
        processes: of the training.
        callbacks: all of them.
    """

    every_process = True

    def __init__(self, processes: Processes, callbacks: Sequence[Callback]) -> None:
        self.processes = processes
        self.error: Exception | None = None
        self.asked = processes.from_first(lambda: _told_in_first(callbacks))
        self.steps = 0

    def runs(self, callback: Callback) -> bool:
        """Return whether a callback runs in this process."""
        return callback.every_process or self.processes.first

    def hook(self, callback: Callback, name: str) -> Callable[[TrainingState], None] | None:
        """Return what to call for a hook of a callback in this process, if anything."""
        function: Callable[[TrainingState], None] = getattr(callback, name)
        if callback.every_process or not self.runs(callback):
            return function if callback.every_process else None

        def held(run: TrainingState) -> None:
            """Keep an error until all processes are there to hear it."""
            if self.error is None:
                try:
                    function(run)
                except Exception as error:
                    self.error = error

        return held

    def on_start(self, run: TrainingState) -> None:
        """Share an error."""
        self._share(run, "on_start")

    def on_step(self, run: TrainingState) -> None:
        """Share an end or an error."""
        self.steps += 1
        if self.processes.device.type == "cpu" or self.steps % EVERY == 0:
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
        if hook not in self.asked:
            return
        error, first = self.error, self.processes.first
        ended = first and (error is not None or bool(run.history.stopped))
        if not self.processes.sum(torch.tensor([float(ended)], device=self.processes.device)):
            return
        told = self.processes.from_first(lambda: (_sent(error), run.history.stopped))
        if told[0] is not None:
            raise told[0] if error is None else error
        run.stop(told[1])


def _told_in_first(callbacks: Sequence[Callback]) -> set[str]:
    """Return the hooks after which the processes have something to tell each other.

    The package's own callbacks end no training, and that one cannot write is told at the latest
    when its epoch ends.
    """
    alone = [each for each in callbacks if not each.every_process]
    of_users = [each for each in alone if not type(each).__module__.startswith("batchensemble.")]
    return {
        hook
        for hook in HOOKS
        if any(overrides(each, hook) for each in (of_users if hook == "on_step" else alone))
    }


def _sent(error: Exception | None) -> Exception | None:
    """Return an error as other processes can have it."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"a callback of process 0 raised {type(error).__name__}: {error}")
    return error
