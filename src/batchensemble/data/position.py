"""Where the data of a training are, for checkpoints: at the start of the epoch, and now.

A loader that goes on in the middle of an epoch is brought to where it was at the epoch's start, and
gone through again up to the batches that are left. Then what else drew from the same sources has
its say: they are put where they were when the checkpoint was written.
"""

from __future__ import annotations

import warnings
from contextlib import nullcontext, suppress
from typing import Any

from batchensemble.core.random_state import DataStream, of_libraries, set_of_libraries
from batchensemble.data.batches import Batches, LoaderBatches
from batchensemble.data.loaders.state import LoaderState


class DataState:
    """The states of the loaders of a training.

    Args:
        training: its batches.
        held_out: those that are scored.
        stream: what the order is drawn from.
        resume: whether the training may go on from a checkpoint.
        steering: whether it goes by the scores.

    Raises:
        ValueError: ``resume``, and a loader's state cannot be had.

    Warns:
        UserWarning: the same without ``resume``: the checkpoints are then not to be gone on from.
    """

    def __init__(
        self,
        training: Batches,
        held_out: Batches | None,
        stream: DataStream,
        *,
        resume: bool,
        steering: bool,
    ) -> None:
        self.stream, self.steering = stream, steering
        self.training = _state_of(training)
        self.held_out = _state_of(held_out)
        self._start: dict[str, Any] | None = None
        self._restored: dict[str, Any] | None = None
        refusal = None if self.training is None else self.training.refusal()
        if refusal is None and self.held_out is not None and steering:
            refusal = self.held_out.refusal(fixed=True)
        if refusal is not None and resume:
            raise ValueError(
                f"resume=True needs the state of the data loader, and {refusal}, or leave "
                "resume=True out"
            )
        if refusal is not None:
            warnings.warn(
                f"resume=True will not go on from these checkpoints, since it needs the state of "
                f"the data loader, and {refusal}",
                stacklevel=3,
            )

    @property
    def goes_on(self) -> bool:
        """Whether the loader goes on within an epoch by itself: nothing is gone through again."""
        return self._restored is not None and self._restored["own"] is not None

    def begin(self) -> None:
        """Note where the loader is at the start of an epoch, or bring it there."""
        if self.training is None:
            return
        if self._restored is None:
            self._start = self._snapshot()
            return
        self._start = self._restored["start"]
        set_of_libraries(self._start["libraries"])
        self.training.put(self._start["loader"])
        if self._restored["own"] is not None:
            self.training.put_own(self._restored["own"])
            if self._restored["now"] is None:  # no epoch had begun
                set_of_libraries(self._start["libraries"])
                self.training.put(self._start["loader"], midway=True)

    def caught_up(self) -> None:
        """Bring to where it was what else draws from the same sources, before a batch is drawn."""
        found, self._restored = self._restored, None
        if found is None or self.training is None:
            return
        if found["now"] is not None:
            self.training.put(found["now"], midway=True)
        if found["own"] is not None and found["stream"] is not None:
            self.stream.restore(found["stream"])

    def state(self, *, midway: bool) -> dict[str, Any] | None:
        """Return what a checkpoint keeps; ``None`` without loaders.

        Args:
            midway: whether an epoch has begun.
        """
        found: dict[str, Any] = {}
        if self.training is not None:
            found.update(
                start=self._start if midway else self._snapshot(),
                now=self.training.now() if midway else None,
                own=self.training.own(),
                stream=self.stream.state if midway else None,
                draws=self.training.draws,
            )
        if self.held_out is not None:
            found["held out"] = self.held_out.now()
        return found or None

    def load(self, found: dict[str, Any] | None) -> None:
        """Go on from there.

        Raises:
            ValueError: it is of other loaders.

        Warns:
            UserWarning: the checkpoint was written by a version that kept no such states.
        """
        draws = [*(self.training.draws if self.training is not None else ())]
        if found is None:
            if draws:
                warnings.warn(
                    f"the checkpoint was written by a version that kept no state of {draws[0]}, "
                    "from which the data are drawn: their order from here on is not that of the "
                    "unbroken training",
                    stacklevel=4,
                )
            return
        if self.training is not None and "start" in found:
            self._restored = found
            if (found["own"] is not None) != self.training.goes_on:
                raise ValueError("one of the loaders has a state_dict() and the other has none")
            self.training.check(found["draws"])
            self.training.put(found["start"]["loader"])  # what differs is said now
        if self.held_out is not None and "held out" in found:
            # Other data may be scored, unless the training goes by it.
            with nullcontext() if self.steering else suppress(ValueError):
                self.held_out.put(found["held out"])

    def _snapshot(self) -> dict[str, Any] | None:
        if self.training is None:
            return None
        return {"libraries": of_libraries(), "loader": self.training.now()}


def _state_of(batches: Batches | None) -> LoaderState | None:
    return LoaderState(batches.loader) if isinstance(batches, LoaderBatches) else None
