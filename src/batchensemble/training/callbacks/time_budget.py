"""A training that ends when its time is used up."""

from __future__ import annotations

import time
from typing import Any

from batchensemble.training.callbacks.base import Callback, TrainingState
from batchensemble.training.distributed.processes import Processes

USED_UP = "the time budget of"


class TimeBudget(Callback):
    """Ends the training after the step in which its time is used up.

    Evaluations and callbacks count too, and so does the time before a checkpoint. The learning rate
    follows the time where that runs out before the epochs do.

    Args:
        seconds: wall-clock time of the training, from its first step.
        processes: the processes of the training; the clock of the first one decides.
    """

    every_process = optional_state = True
    key = "time budget"

    def __init__(self, seconds: float, processes: Processes) -> None:
        self.seconds, self.processes = seconds, processes
        self.before = 0.0  # seconds used up to the last checkpoint
        self.started: float | None = None

    @property
    def used(self) -> float:
        """Seconds used so far."""
        return self.before + (0.0 if self.started is None else time.perf_counter() - self.started)

    def on_start(self, run: TrainingState) -> None:
        """Start the clock; a training that ended for lack of time goes on with more of it."""
        self.started = time.perf_counter()
        if run.history.stopped.startswith(USED_UP) and self.before < self.seconds:
            run.history.stopped = ""
        run.updater.elapsed = self.before / self.seconds

    def on_step(self, run: TrainingState) -> None:
        """Tell the schedule the time, and end the training."""
        used = self.processes.from_first(lambda: self.used)
        run.updater.elapsed = used / self.seconds
        if used >= self.seconds and not run.history.stopped:
            run.stop(
                f"{USED_UP} {self.seconds:g} s was used up at step {run.step}, in epoch "
                f"{run.epoch + 1} of {run.epochs}"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the seconds used so far."""
        return {"used": self.used}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        self.before = state["used"]
