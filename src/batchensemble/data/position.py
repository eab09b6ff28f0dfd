"""The position of a training in its data, as checkpoints store it.

To resume in the middle of an epoch, the loader is restored to the start of the epoch and iterated
over up to the remaining batches. Then its random generators are restored to their state at the
time of the checkpoint, since other code may have drawn from them in between.
"""

from __future__ import annotations

import warnings
from contextlib import nullcontext, suppress
from typing import Any

from batchensemble.core.random_state import DataStream, library_states, set_library_states
from batchensemble.data.batches import Batches, LoaderBatches
from batchensemble.data.loaders.state import LoaderState


class DataState:
    """The states of the data loaders of a training.

    Args:
        training: batches of the training data.
        held_out: batches of the held-out data.
        stream: the random state of the order.
        resume: whether the training resumes from a checkpoint.
        steering: whether held-out scores influence the training, as for early stopping.

    Raises:
        ValueError: ``resume`` is set and a loader's state cannot be stored.

    Warns:
        UserWarning: the same without ``resume``: the checkpoints will not allow to resume.
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
        refusal = None if self.training is None else self.training.why_not_stored()
        if refusal is None and self.held_out is not None and steering:
            refusal = self.held_out.why_not_stored(fixed=True)
        if refusal is not None and resume:
            raise ValueError(
                f"resume=True needs the state of the data loader, and {refusal}, or leave "
                "resume=True out"
            )
        if refusal is not None:
            warnings.warn(
                f"resume=True will not work with these checkpoints: it needs the state of the data "
                f"loader, and {refusal}",
                stacklevel=3,
            )

    @property
    def goes_on(self) -> bool:
        """Whether the loader resumes within an epoch by itself, without iterating again."""
        return self._restored is not None and self._restored["own"] is not None

    def begin(self) -> None:
        """Record the state of the loader at the start of an epoch, or restore it."""
        if self.training is None:
            return
        if self._restored is None:
            self._start = self._snapshot()
            return
        self._start = self._restored["start"]
        set_library_states(self._start["libraries"])
        self.training.restore(self._start["loader"])
        if self._restored["own"] is not None:
            self.training.restore_own(self._restored["own"])
            if self._restored["now"] is None:  # no epoch had begun
                set_library_states(self._start["libraries"])
                self.training.restore(self._start["loader"], midway=True)

    def caught_up(self) -> None:
        """Restore the generators that other code uses too, after the batches were skipped."""
        found, self._restored = self._restored, None
        if found is None or self.training is None:
            return
        if found["now"] is not None:
            self.training.restore(found["now"], midway=True)
        if found["own"] is not None and found["stream"] is not None:
            self.stream.restore(found["stream"])

    def state(self, *, midway: bool) -> dict[str, Any] | None:
        """Return the state for a checkpoint; ``None`` without loaders.

        Args:
            midway: whether an epoch has begun.
        """
        found: dict[str, Any] = {}
        if self.training is not None:
            found.update(
                start=self._start if midway else self._snapshot(),
                now=self.training.state() if midway else None,
                own=self.training.own_state(),
                stream=self.stream.state if midway else None,
                draws=self.training.sources,
            )
        if self.held_out is not None:
            found["held out"] = self.held_out.state()
        return found or None

    def load(self, found: dict[str, Any] | None) -> None:
        """Resume from a state that :meth:`state` returned.

        Raises:
            ValueError: it is the state of other loaders.

        Warns:
            UserWarning: the checkpoint was written by a version without such states.
        """
        draws = [*(self.training.sources if self.training is not None else ())]
        if found is None:
            if draws:
                warnings.warn(
                    f"the checkpoint was written by a version that kept no state of {draws[0]}, "
                    "from which the data are drawn: their order from here on is not that of an "
                    "uninterrupted training",
                    stacklevel=4,
                )
            return
        if self.training is not None and "start" in found:
            self._restored = found
            if (found["own"] is not None) != self.training.resumes_itself:
                raise ValueError("one of the loaders has a state_dict() and the other has none")
            self.training.check(found["draws"])
            self.training.restore(found["start"]["loader"])  # raises now if the loader differs
        if self.held_out is not None and "held out" in found:
            # Other held-out data are allowed, unless their scores influence the training.
            with nullcontext() if self.steering else suppress(ValueError):
                self.held_out.restore(found["held out"])

    def _snapshot(self) -> dict[str, Any] | None:
        if self.training is None:
            return None
        return {"libraries": library_states(), "loader": self.training.state()}


def _state_of(batches: Batches | None) -> LoaderState | None:
    return LoaderState(batches.loader) if isinstance(batches, LoaderBatches) else None
