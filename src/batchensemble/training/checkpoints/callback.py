"""The callback that writes checkpoints, resumes from them, and handles SIGTERM and Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from batchensemble.training.callbacks.base import Callback, TrainingState
from batchensemble.training.checkpoints.callback_states import callbacks_by_name
from batchensemble.training.checkpoints.snapshot import (
    check_same,
    for_process,
    gather_snapshot,
    match_states,
    restore_run,
    snapshot,
)
from batchensemble.training.checkpoints.store import Checkpoint, CheckpointError, Checkpoints
from batchensemble.training.distributed.strategy import Strategy

ENDING = {signal.SIGTERM: 143, signal.SIGINT: 130}


class CheckpointCallback(Callback):
    """Writes checkpoints, and resumes a training from the newest one.

    After SIGTERM or SIGINT the step is finished, a checkpoint is written, and ``SystemExit`` is
    raised with 143 or 130.

    Args:
        folder: the folder of the checkpoints; it is made if needed.
        every: number of steps between two checkpoints; ``None`` writes one after each epoch.
        keep: number of checkpoints to keep.
        resume: whether to resume from the newest checkpoint; if there is none, the training starts
            from scratch.
        strategy: how processes share the training; one of them reads and writes.
    """

    every_process = True

    def __init__(
        self,
        folder: str | Path,
        *,
        every: int | None = None,
        keep: int = 2,
        resume: bool = False,
        strategy: Strategy,
    ) -> None:
        self.folder, self.every = Path(folder), every
        self.resume, self.strategy, self.processes = resume, strategy, strategy.processes
        self.checkpoints: Checkpoints | None = None
        self.processes.on_first(lambda: self._open(keep))

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle signals for a while, then restore the handlers; wait for the last write."""
        before = {}
        if threading.current_thread() is threading.main_thread():
            before = {number: signal.signal(number, self._note) for number in ENDING}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            if self.checkpoints is not None:
                self.checkpoints.close()

    def on_step(self, run: TrainingState) -> None:
        """Write a checkpoint every ``every`` steps, and after a signal, which ends the training."""
        if self.strategy.shared_signal:
            self.save(run, wait=True)
            raise SystemExit(ENDING[signal.Signals(self.strategy.shared_signal)])
        if self.every is not None and run.step % self.every == 0:
            self.save(run)

    def on_epoch(self, run: TrainingState) -> None:
        """Write a checkpoint at the end of an epoch."""
        if self.every is None or run.over:
            self.save(run)

    def save(self, run: TrainingState, *, wait: bool = False) -> None:
        """Write a checkpoint of the current state of the run."""
        name, of_all = f"step-{run.step:09d}", gather_snapshot(*snapshot(run), self.strategy)
        checkpoints = self.checkpoints
        if checkpoints is not None:
            checkpoints.save(name, *of_all)
        if wait:
            self.processes.on_first(self._wait)

    def restore(self, run: TrainingState) -> None:
        """Resume from the newest checkpoint, if there is one, before any hook is called.

        Raises:
            CheckpointError: it is of another network, number of members, data or setting; or there
                is one, and ``resume`` is false.
            ValueError: the key of a callback is not a valid name.
        """
        callbacks_by_name(run.callbacks)
        if not self.resume:
            self.processes.on_first(self._check_empty)
            return
        found = self.processes.from_first(self._latest)
        if found is not None:
            own = self._check_on_all(run, found)
            names = self.processes.from_first(lambda: match_states(run, own))
            restore_run(run, own, names)
            if own.state["random"] is None:  # written by fewer processes
                run.restored_random = None
                self.strategy.seed_process(run.settings["seed"], run.step)

    def _check_on_all(self, run: TrainingState, found: Checkpoint) -> Checkpoint:
        """Return what this process resumes from; if one process cannot, none does."""
        error = None
        try:
            found = for_process(found, self.strategy)
            check_same(run, found)
        except CheckpointError as refused:
            error = refused
        for each in self.processes.collect(error):
            if each is not None:
                raise each
        return found

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.strategy.note_signal(number)

    def _open(self, keep: int) -> None:
        self.checkpoints = Checkpoints(self.folder, keep)

    def _wait(self) -> None:
        if self.checkpoints is not None:
            self.checkpoints.wait()

    def _latest(self) -> Checkpoint | None:
        return None if self.checkpoints is None else self.checkpoints.latest()

    def _check_empty(self) -> None:
        if self.checkpoints is not None and self.checkpoints.folders():
            raise CheckpointError(
                f"{self.folder} already holds checkpoints of a training; give resume=True to "
                "resume it, or another folder"
            )
