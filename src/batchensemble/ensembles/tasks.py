"""The record of the tasks that members have learnt, one after the other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class TaskRecord:
    """What is known of a task that a member has learnt; member ``t`` learnt task ``t``.

    Attributes:
        entropy: mean entropy of the member's probabilities on examples of its task, nats; ``None``
            where outputs are no logits of classes.
        deviation: standard deviation of that entropy over the examples, nats; ``None`` likewise.
        held_out: whether these examples were held out, not trained on.
        confused_with: earlier tasks that the members' uncertainty does not tell from this one, as
            where tasks share their inputs; see :meth:`~batchensemble.Ensemble.infer_task`.

    Example:
        >>> TaskRecord.from_json(TaskRecord(0.2, 0.1, True, (0,)).as_json())
        TaskRecord(entropy=0.2, deviation=0.1, held_out=True, confused_with=(0,))
    """

    entropy: float | None = None
    deviation: float | None = None
    held_out: bool = False
    confused_with: tuple[int, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {
            "entropy": self.entropy,
            "deviation": self.deviation,
            "held_out": self.held_out,
            "confused_with": list(self.confused_with),
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> TaskRecord:
        """Return the record from what :meth:`as_json` returned.

        Raises:
            ValueError: it is another thing.
        """
        if not isinstance(found, dict) or set(found) != set(cls().as_json()):
            raise ValueError("a task must have an entropy, a deviation, held_out and confused_with")
        entropy, deviation = found["entropy"], found["deviation"]
        numbers = all(
            isinstance(each, (int, float)) and math.isfinite(each) and each >= 0
            for each in (entropy, deviation)
        )
        earlier = found["confused_with"]
        whole = isinstance(earlier, list) and all(type(each) is int for each in earlier)
        if not (numbers or entropy is deviation is None) or not whole:
            raise ValueError("a task must have numbers from 0, or null, and numbers of tasks")
        return cls(entropy, deviation, found["held_out"] is True, tuple(earlier))


def kept_tasks(tasks: Sequence[TaskRecord], indices: Sequence[int]) -> tuple[TaskRecord, ...]:
    """Return the records of the members that remain of an ensemble, in their new order.

    Args:
        tasks: those that the members have learnt, the first of them by member 0.
        indices: the members that remain; if one of them has not learnt a task, and others after it
            have, no record is kept.

    Example:
        >>> learnt = TaskRecord(), TaskRecord(), TaskRecord(confused_with=(0, 1))
        >>> [each.confused_with for each in kept_tasks(learnt, [2, 1])]
        [(), (0,)]
    """
    learnt = [index for index in indices if index < len(tasks)]
    if learnt != list(indices[: len(learnt)]) or len(set(learnt)) < len(learnt):
        return ()
    pairs = {frozenset((task, one)) for task in learnt for one in tasks[task].confused_with}
    return tuple(
        replace(
            tasks[index],
            confused_with=tuple(
                new for new, old in enumerate(learnt[:position]) if {old, index} in pairs
            ),
        )
        for position, index in enumerate(learnt)
    )
