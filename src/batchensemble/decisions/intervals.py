"""Intervals that hold the true number as often as promised: split conformal regression."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float

from batchensemble.checks import between
from batchensemble.decisions.quantile import conformal_quantile, least_examples

PerExample = Float[np.ndarray, "examples"]
Kind = Literal["absolute", "normalised", "quantiles"]


@dataclass(frozen=True)
class Intervals:
    """An interval for each example, both ends in it.

    Attributes:
        lower, upper: the ends, ``[examples]``, in the unit of the targets.
        confidence: the share of intervals that was to hold the target.

    Example:
        >>> found = Intervals(np.array([0.0, 1.0]), np.array([2.0, 5.0]), 0.9)
        >>> found.widths.tolist(), found.coverage([1.0, 6.0])
        ([2.0, 4.0], 0.5)
    """

    lower: PerExample
    upper: PerExample
    confidence: float

    def __len__(self) -> int:
        return len(self.lower)

    @property
    def widths(self) -> PerExample:
        """The length of each interval."""
        return self.upper - self.lower

    def contains(self, targets: Any) -> Bool[np.ndarray, "examples"]:
        """Return which intervals hold the target.

        Raises:
            ValueError: ``targets`` is not of the shape ``[examples]`` or not finite.
        """
        targets = _numbers("targets", targets, len(self))
        return (self.lower <= targets) & (targets <= self.upper)

    def coverage(self, targets: Any) -> float:
        """Return the share of intervals that hold the target.

        Raises:
            ValueError: as for :meth:`contains`, or there are no examples.
        """
        held = self.contains(targets)
        if not len(held):
            raise ValueError("there must be at least one interval to score, got none")
        return float(held.mean())


@dataclass
class ConformalIntervals:
    """Intervals that hold the target with a given probability, whatever the model.

    The promise is that of :class:`ConformalSets`. With ``q`` the conformal quantile of the scores
    of held-out examples, they are:

    ==============  ==============================  ==============================================
    what fit gets   score                           interval
    ==============  ==============================  ==============================================
    ``centre``      ``|y - centre|``                ``centre ± q``: one width; Lei et al. 2018,
                                                    arXiv 1604.04173
    and ``spread``  ``|y - centre| / spread``       ``centre ± q spread``: wider where the members
                                                    differ; section 5.2 there
    quantiles       ``max(lower - y, y - upper)``   ``[lower - q, upper + q]``: CQR, Romano et al.
                                                    2019, arXiv 1905.03222
    ==============  ==============================  ==============================================

    Args:
        confidence: the share of intervals that shall hold the target, between 0 and 1.

    Attributes:
        quantile_: ``q``, in the unit of the targets or in spreads; infinite where ``fit`` had fewer
            than ``confidence / (1 - confidence)`` examples, and so are the intervals then.
        kind_: ``"absolute"``, ``"normalised"`` or ``"quantiles"``.

    Raises:
        TypeError, ValueError: ``confidence`` is no number between 0 and 1.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.uniform(1, 5, 4000)
        >>> y = x * rng.normal(size=4000)
        >>> intervals = ConformalIntervals(0.9).fit(np.zeros(2000), y[:2000], spread=x[:2000])
        >>> found = intervals(np.zeros(2000), spread=x[2000:])
        >>> round(found.coverage(y[2000:]), 1), round(intervals.quantile_, 1)
        (0.9, 1.6)
    """

    confidence: float = 0.9
    quantile_: float = field(default=math.nan, init=False, repr=False)
    kind_: Kind | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self.confidence = between("confidence", self.confidence, 0, 1)

    def fit(self, centre: Any, targets: Any, spread: Any = None) -> ConformalIntervals:
        """Learn the width from held-out examples that the model was not trained on.

        Args:
            centre: what the ensemble says, ``[examples]``.
            targets: the truth, ``[examples]``.
            spread: how unsure the ensemble is, above 0, ``[examples]``: the deviation of its
                members, or the square root of the total variance.

        Returns:
            Itself.

        Raises:
            ValueError: shapes differ, there are no examples, or a number is not finite.
        """
        centre = _numbers("centre", centre)
        targets = _numbers("targets", targets, len(centre))
        scores = np.abs(targets - centre)
        if spread is not None:
            scores /= _spreads(spread, len(centre))
        return self._learn(scores, "absolute" if spread is None else "normalised")

    def fit_quantiles(self, lower: Any, upper: Any, targets: Any) -> ConformalIntervals:
        """Learn how far to move two estimated quantiles apart, or together, on held-out examples.

        Args:
            lower, upper: what the ensemble says, ``[examples]``; for a confidence of 0.9 the
                quantiles of 5 % and 95 %.
            targets: the truth, ``[examples]``.

        Returns:
            Itself.

        Raises:
            ValueError: shapes differ, there are no examples, or a number is not finite.
        """
        lower = _numbers("lower", lower)
        upper = _numbers("upper", upper, len(lower))
        targets = _numbers("targets", targets, len(lower))
        return self._learn(np.maximum(lower - targets, targets - upper), "quantiles")

    def __call__(self, centre: Any, spread: Any = None) -> Intervals:
        """Return an interval around each ``centre``; with ``spread`` if ``fit`` had it.

        Raises:
            RuntimeError: ``fit`` was not called.
            ValueError: shapes differ, a number is not finite, or ``spread`` is given and was not,
                or the other way round.
        """
        self._check_kind("absolute" if spread is None else "normalised")
        centre = _numbers("centre", centre)
        half = self.quantile_ * (1.0 if spread is None else _spreads(spread, len(centre)))
        return Intervals(centre - half, centre + half, self.confidence)

    def moved(self, lower: Any, upper: Any) -> Intervals:
        """Return the intervals between two quantiles, moved as ``fit_quantiles`` learnt.

        Where that would take the ends past each other, both are their middle.

        Raises:
            RuntimeError: ``fit_quantiles`` was not called.
            ValueError: shapes differ, or a number is not finite.
        """
        self._check_kind("quantiles")
        lower = _numbers("lower", lower)
        upper = _numbers("upper", upper, len(lower))
        middle = (lower + upper) / 2
        low, high = lower - self.quantile_, upper + self.quantile_
        crossed = low > high
        return Intervals(
            np.where(crossed, middle, low), np.where(crossed, middle, high), self.confidence
        )

    def _learn(self, scores: PerExample, kind: Kind) -> ConformalIntervals:
        if not len(scores):
            raise ValueError("there must be at least one held-out example, got none")
        self.quantile_, self.kind_ = conformal_quantile(scores, self.confidence), kind
        if math.isinf(self.quantile_):
            warnings.warn(
                f"a confidence of {self.confidence} takes at least "
                f"{least_examples(self.confidence)} held-out examples, got {len(scores)}: every "
                "interval is infinite",
                stacklevel=3,
            )
        return self

    def _check_kind(self, kind: Kind) -> None:
        if self.kind_ is None:
            raise RuntimeError("the width is not known yet: call fit on held-out examples")
        if self.kind_ != kind:
            way = {
                "absolute": "call it with centre alone",
                "normalised": "call it with centre and spread",
                "quantiles": "call moved(lower, upper)",
            }
            raise ValueError(f"fit learnt {self.kind_} intervals: {way[self.kind_]}")


def _numbers(name: str, values: Any, examples: int | None = None) -> PerExample:
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 1 or (examples is not None and len(found) != examples):
        expected = "examples" if examples is None else str(examples)
        raise ValueError(
            f"{name} must have the shape [{expected}], one an example, got {list(found.shape)}"
        )
    if not np.isfinite(found).all():
        wrong = len(found) - int(np.isfinite(found).sum())
        raise ValueError(f"{name} must be finite, got {wrong} of {len(found)} that are not")
    return found


def _spreads(values: Any, examples: int) -> PerExample:
    found = _numbers("spread", values, examples)
    if (found <= 0).any():
        raise ValueError(
            f"spread must be above 0, got {int((found <= 0).sum())} of {examples} that are not; "
            "where members can agree entirely, add a small constant, or leave spread out"
        )
    return found
