"""Learning rates over the steps of a training."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Literal

from batchensemble.core.arguments import fraction, one_of, positive_number, whole_number

Shape = Literal["constant", "linear", "cosine", "one_cycle"]
SHAPES = ("constant", "linear", "cosine", "one_cycle")

COOLDOWN = 0.1  # share of the steps, where the data know how many there are

# Of the one-cycle schedule (Smith and Topin 2019, arXiv 1708.07120).
RISING, FIRST, LAST = 0.3, 1 / 25, 1 / 25e4


@dataclass(frozen=True)
class Schedule:
    """The learning rate of each step, as a share of the highest.

    Attributes:
        steps: of the whole training; ``None`` where nobody knows, which suits a constant rate.
        shape: ``"constant"``; ``"linear"`` and ``"cosine"`` fall to 0 over the whole training;
            ``"one_cycle"`` rises for 30 % of the steps and falls along a cosine.
        cooldown: share of the steps, at the end, in which the rate falls to 0 in a straight line.
        warmup: steps, at the start, in which it rises from 0 in a straight line.

    Example:
        >>> schedule = Schedule(steps=10, cooldown=0.4)
        >>> [schedule.at(step) for step in (0, 6, 7, 9)]
        [1.0, 1.0, 0.75, 0.25]
        >>> [round(Schedule(steps=4, shape="cosine").at(step), 2) for step in range(4)]
        [1.0, 0.85, 0.5, 0.15]
    """

    steps: int | None
    shape: Shape = "constant"
    cooldown: float = 0.0
    warmup: int = 0

    def __post_init__(self) -> None:
        one_of("schedule", self.shape, SHAPES)
        fraction("cooldown", self.cooldown)
        whole_number("warmup", self.warmup, at_least=0)
        if self.steps is None and (self.shape != "constant" or self.cooldown):
            raise TypeError(
                "the data must know their length, since the learning rate falls towards the end of "
                "the training; give a Dataset with __len__, or schedule='constant' and cooldown=0"
            )

    def at(self, step: int) -> float:
        """Return the share of a step, counted from 0."""
        share = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        if not self.steps:
            return share
        left, length = self.steps - step, self.cooldown * self.steps
        if left < length:
            share *= left / length
        return share * self._of_shape(step, self.steps)

    def _of_shape(self, step: int, steps: int) -> float:
        """Return the share that the shape alone gives."""
        if self.shape == "linear":
            return 1 - step / steps
        if self.shape == "cosine":
            return _cosine(1.0, 0.0, step / steps)
        if self.shape == "one_cycle":
            peak = max(RISING * steps - 1, 0.0)
            if step <= peak:
                return _cosine(FIRST, 1.0, step / max(peak, 1.0))
            return _cosine(1.0, LAST, min(1.0, (step - peak) / (steps - 1 - peak)))
        return 1.0


@dataclass(frozen=True)
class Plateau:
    """A learning rate that falls whenever held-out scores stop getting better.

    Attributes:
        patience: evaluations without a better score before it falls.
        factor: what it is multiplied by then.

    Example:
        >>> Plateau(patience=5, factor=0.1)
        Plateau(patience=5, factor=0.1)
    """

    patience: int = 3
    factor: float = 0.5

    def __post_init__(self) -> None:
        whole_number("patience", self.patience)
        if positive_number("factor", self.factor) >= 1:
            raise ValueError(f"factor must be below 1, got {self.factor}")


def usual_cooldown(asked: float | None, steps: int | None, *, used: bool = True) -> float:
    """Return the share of the steps in which the learning rate falls to 0.

    Args:
        asked: as ``fit`` was given it; by default a tenth, or none where nobody knows the end.
        steps: of the training; ``None`` where the data do not know them.
        used: whether the learning rates are ours to choose.

    Warns:
        UserWarning: it is none, since the data do not know their length.

    Example:
        >>> usual_cooldown(None, 10), usual_cooldown(0.5, 10)
        (0.1, 0.5)
    """
    if asked is not None:
        return asked
    if steps is not None:
        return COOLDOWN
    if used:
        warnings.warn(
            "the data do not say how many batches they have, so the learning rate does not fall "
            f"towards the end as it usually does (cooldown={COOLDOWN}): it stays as it is "
            "(cooldown=0); give cooldown=0 if that is what you want, or a dataset with __len__",
            stacklevel=6,
        )
    return 0.0


def _cosine(first: float, last: float, done: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * done)) / 2
