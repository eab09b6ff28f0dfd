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

BY_TIME = 1e4  # steps that stand for a time budget where their number is not known

# Of the one-cycle schedule (Smith and Topin 2019, arXiv 1708.07120).
RISING, FIRST, LAST = 0.3, 1 / 25, 1 / 25e4


@dataclass(frozen=True)
class Schedule:
    """The learning rate of each step, as a share of the highest.

    Attributes:
        steps: number of steps of the training; ``None`` if unknown, for a constant rate only.
        shape: ``"constant"``; ``"linear"`` and ``"cosine"`` fall to 0 over the whole training;
            ``"one_cycle"`` rises for 30 % of the steps and falls along a cosine.
        cooldown: share of the steps, at the end, in which the rate falls linearly to 0.
        warmup: number of steps, at the start, in which it rises linearly from 0.
        timed: whether the training has a time budget, of which a share is elapsed at each step.

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
    timed: bool = False

    def __post_init__(self) -> None:
        one_of("schedule", self.shape, SHAPES)
        fraction("cooldown", self.cooldown)
        whole_number("warmup", self.warmup, at_least=0)
        falls = self.shape != "constant" or self.cooldown
        if self.steps is None and falls and not self.timed:
            raise TypeError(
                "the data must know their length, since the learning rate falls towards the end of "
                "the training; give a Dataset with __len__, or schedule='constant' and cooldown=0"
            )

    def at(self, step: int, elapsed: float = 0.0) -> float:
        """Return the share of a step, counted from 0.

        Args:
            step: number of steps before it.
            elapsed: share of the time budget that is used up. Where that is more than the share of
                the steps, the rate is that of the step at this share.
        """
        share = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        steps: float = self.steps or 0
        place: float = step
        if self.timed:
            place = step if steps else 0
            steps = steps or BY_TIME
            place = min(max(place, elapsed * steps), steps)
        if not steps:
            return share
        left, length = steps - place, self.cooldown * steps
        if left < length:
            share *= left / length
        return share * self._of_shape(place, steps)

    def _of_shape(self, step: float, steps: float) -> float:
        """Return the share that the shape alone gives."""
        if self.shape == "linear":
            return 1 - step / steps
        if self.shape == "cosine":
            return _cosine(1.0, 0.0, step / steps)
        if self.shape == "one_cycle":
            peak = max(RISING * steps - 1, 0.0)
            if step <= peak:
                return _cosine(FIRST, 1.0, step / max(peak, 1.0))
            return _cosine(1.0, LAST, min(1.0, (step - peak) / max(steps - 1 - peak, 1e-9)))
        return 1.0


@dataclass(frozen=True)
class Plateau:
    """A learning rate that falls whenever the held-out score stops improving.

    Attributes:
        patience: number of evaluations without a better score before it falls, by default 3.
        factor: factor on the learning rate then, above 0 and below 1, by default 0.5.

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


def default_cooldown(
    asked: float | None, steps: int | None, *, used: bool = True, timed: bool = False
) -> float:
    """Return the share of the steps in which the learning rate falls to 0.

    Args:
        asked: the option of ``fit``; ``None`` is 0.1, or 0 if the number of steps is unknown.
        steps: number of steps of an epoch; ``None`` if unknown.
        used: whether the schedule is used at all: an optimiser of the user's has its own rates.
        timed: whether a time budget says when the training ends.

    Warns:
        UserWarning: it is 0 by default, since the data do not know their length.

    Example:
        >>> default_cooldown(None, 10), default_cooldown(0.5, 10)
        (0.1, 0.5)
    """
    if asked is not None:
        return asked
    if steps is not None or timed:
        return COOLDOWN
    if used:
        warnings.warn(
            "the data do not know their number of batches, so the learning rate does not fall at "
            f"the end as it does by default (cooldown={COOLDOWN}) but stays constant; give "
            "cooldown=0 if that is what you want, or a dataset with __len__",
            stacklevel=6,
        )
    return 0.0


def _cosine(first: float, last: float, done: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * done)) / 2
