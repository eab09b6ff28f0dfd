"""Checkpoints while a training runs, and the signals that end it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from batchensemble.training.callbacks.base import Callback, TrainingState
from batchensemble.training.checkpoints.callback_states import keyed
from batchensemble.training.checkpoints.snapshot import (
    check_same,
    gathered,
    go_on,
    names_of_states,
    part_of,
    snapshot,
)
from batchensemble.training.checkpoints.store import Checkpoint, CheckpointError, Checkpoints
from batchensemble.training.distributed.strategy import Strategy

ENDING = {signal.SIGTERM: 143, signal.SIGINT: 130}


class CheckpointCallback(Callback):
    """Writes checkpoints, and reads the last one of a training that was interrupted.

    SIGTERM and SIGINT let the step end; then a checkpoint is written and ``SystemExit`` raised with
    143 or 130.

    Args:
        folder: of the checkpoints.
        every: steps between two; by default they are written at the end of each epoch.
        keep: how many of the last stay.
        resume: go on from the newest; without one the training starts afresh.
        sharing: among processes, of which the first one reads and writes.
    """

    every_process = True

    def __init__(
        self,
        folder: str | Path,
        *,
        every: int | None = None,
        keep: int = 2,
        resume: bool = False,
        sharing: Strategy,
    ) -> None:
        self.folder, self.every = Path(folder), every
        self.resume, self.sharing, self.processes = resume, sharing, sharing.processes
        self.checkpoints: Checkpoints | None = None
        self.processes.on_first(lambda: self._open(keep))

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take note of signals for a while, then give them back; wait for what is being written."""
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
        """Write a checkpoint every so many steps, or when the training is to end."""
        if self.sharing.agreed:
            self.save(run, wait=True)
            raise SystemExit(ENDING[signal.Signals(self.sharing.agreed)])
        if self.every is not None and run.step % self.every == 0:
            self.save(run)

    def on_epoch(self, run: TrainingState) -> None:
        """Write a checkpoint at the end of an epoch."""
        if self.every is None or run.over:
            self.save(run)

    def save(self, run: TrainingState, *, wait: bool = False) -> None:
        """Write a checkpoint of the run as it stands."""
        name, of_all = f"step-{run.step:09d}", gathered(*snapshot(run), self.sharing)
        checkpoints = self.checkpoints
        if checkpoints is not None:
            checkpoints.save(name, *of_all)
        if wait:
            self.processes.on_first(self._wait)

    def restore(self, run: TrainingState) -> None:
        """Go on from the newest checkpoint, if there is one, before any callback is told.

        Raises:
            CheckpointError: it is of another network, number of members, data or setting; or there
                is one, and this training is not to go on with it.
            ValueError: the key of a callback is no name.
        """
        keyed(run.callbacks)
        if not self.resume:
            self.processes.on_first(self._refuse)
            return
        found = self.processes.from_first(self._latest)
        if found is not None:
            own = self._same_on_all(run, found)
            names = self.processes.from_first(lambda: names_of_states(run, own))
            go_on(run, own, names)
            if own.state["random"] is None:  # of no process that wrote it
                run.restored_random = None
                self.sharing.own_randomness(run.settings["seed"], run.step)

    def _same_on_all(self, run: TrainingState, found: Checkpoint) -> Checkpoint:
        """Return what this process goes on from; where one cannot, none does."""
        error = None
        try:
            found = part_of(found, self.sharing)
            check_same(run, found)
        except CheckpointError as refused:
            error = refused
        for each in self.processes.all(error):
            if each is not None:
                raise each
        return found

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.sharing.note(number)

    def _open(self, keep: int) -> None:
        self.checkpoints = Checkpoints(self.folder, keep)

    def _wait(self) -> None:
        if self.checkpoints is not None:
            self.checkpoints.wait()

    def _latest(self) -> Checkpoint | None:
        return None if self.checkpoints is None else self.checkpoints.latest()

    def _refuse(self) -> None:
        if self.checkpoints is not None and self.checkpoints.folders():
            raise CheckpointError(
                f"{self.folder} holds checkpoints of a training already; give resume=True to go on "
                "with it, or another folder"
            )
