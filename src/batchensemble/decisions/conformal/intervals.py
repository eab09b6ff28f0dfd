"""Prediction intervals with a coverage guarantee: split conformal regression."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool

from batchensemble.core.arguments import between, one_of
from batchensemble.decisions.conformal.quantile import conformal_quantile, least_examples
from batchensemble.decisions.uncertainty_score import ExampleScores, finite_numbers, one_number_each
from batchensemble.predictions import Normals, Quantiles, RegressionPrediction

IntervalMethod = Literal["absolute", "normalised", "quantiles"]
INTERVAL_METHODS = ("absolute", "normalised", "quantiles")


@dataclass(frozen=True)
class Intervals:
    """An interval for each example, both ends in it.

    Attributes:
        lower, upper: ends of the intervals, ``[examples]``, in the unit of the targets.
        confidence: nominal coverage, 0 to 1.

    Example:
        >>> found = Intervals(np.array([0.0, 1.0]), np.array([2.0, 5.0]), 0.9)
        >>> found.widths.tolist(), found.coverage([1.0, 6.0])
        ([2.0, 4.0], 0.5)
    """

    lower: ExampleScores
    upper: ExampleScores
    confidence: float

    def __len__(self) -> int:
        return len(self.lower)

    @property
    def widths(self) -> ExampleScores:
        """The length of each interval."""
        return self.upper - self.lower

    def contains(self, targets: Any) -> Bool[np.ndarray, "examples"]:
        """Return which intervals contain the target, boolean ``[examples]``.

        Raises:
            ValueError: ``targets`` does not have the shape ``[examples]`` or is not finite.
        """
        targets = finite_numbers("targets", targets, len(self))
        return (self.lower <= targets) & (targets <= self.upper)

    def coverage(self, targets: Any) -> float:
        """Return the share of intervals that contain the target.

        Raises:
            ValueError: as for :meth:`contains`, or there are no examples.
        """
        held = self.contains(targets)
        if not len(held):
            raise ValueError("there must be at least one interval to score, got none")
        return float(held.mean())


@dataclass
class ConformalIntervals:
    """Intervals that contain the target with a given probability, whatever the model.

    The guarantee is that of :class:`ConformalSets`. With ``q`` the conformal quantile of the scores
    of held-out examples, ``m`` the ensemble's mean, ``d`` its standard deviation and ``[l, u]`` its
    own interval of this confidence, they are:

    ==============  ======================  ======================================================
    method          score                   interval
    ==============  ======================  ======================================================
    ``absolute``    ``|y - m|``             ``m ± q``: one width; Lei et al. 2018, arXiv 1604.04173
    ``normalised``  ``|y - m| / d``         ``m ± q d``: wider where the ensemble is more
                                            uncertain; section 5.2 there
    ``quantiles``   ``max(l - y, y - u)``   ``[l - q, u + q]``: CQR, Romano et al. 2019, arXiv
                                            1905.03222
    ==============  ======================  ======================================================

    Predictions of another library work too: ``Points(mean[:, None])``,
    ``Normals(mean[:, None], deviation[:, None])`` and ``Quantiles(bounds[:, None], levels)`` of
    :mod:`batchensemble.predictions`.

    Args:
        method: ``"absolute"``, ``"normalised"`` or ``"quantiles"``; by default by the kind of
            prediction: ``"normalised"`` for normal distributions, ``"quantiles"`` for quantiles,
            ``"absolute"`` for points, whose members may agree entirely.
        confidence: nominal coverage, between 0 and 1, 0.9 by default. Quantiles that do not reach
            that far start from their widest interval.

    Attributes:
        method_: the method that ``fit`` used.
        quantile_: ``q``, in the unit of the targets or in deviations; infinite where ``fit`` had
            fewer than ``confidence / (1 - confidence)`` examples, and so are the intervals then.

    Raises:
        TypeError, ValueError: an argument has the wrong type or is out of range.

    Example:
        >>> from batchensemble.predictions import Normals
        >>> rng = np.random.default_rng(0)
        >>> x = rng.uniform(1, 5, (4000, 1))
        >>> y = x[:, 0] * rng.normal(size=4000)
        >>> held_out, new = Normals(0 * x[:2000], x[:2000]), Normals(0 * x[2000:], x[2000:])
        >>> intervals = ConformalIntervals(confidence=0.9).fit(held_out, y[:2000])
        >>> intervals.method_, round(intervals.quantile_, 1)
        ('normalised', 1.6)
        >>> round(intervals(new).coverage(y[2000:]), 1)
        0.9
    """

    method: IntervalMethod | None = None
    confidence: float = 0.9
    method_: IntervalMethod | None = field(default=None, init=False, repr=False)
    quantile_: float = field(default=math.nan, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.method is not None:
            one_of("method", self.method, INTERVAL_METHODS)
        self.confidence = between("confidence", self.confidence, 0, 1)

    def fit(self, prediction: RegressionPrediction, targets: Any) -> ConformalIntervals:
        """Fit the width on held-out examples that the model was not trained on.

        Args:
            prediction: prediction on the held-out examples, one number for each.
            targets: their true numbers, ``[examples]``.

        Returns:
            The object itself.

        Raises:
            TypeError: the prediction is not of numbers.
            ValueError: the shapes differ, there are no examples, a number is not finite, or a
                standard deviation that ``"normalised"`` divides by is 0.
        """
        centre = _centre(prediction)
        targets = finite_numbers("targets", targets, len(centre))
        if not len(targets):
            raise ValueError("there must be at least one held-out example, got none")
        self.method_ = _usual(prediction) if self.method is None else self.method
        if self.method_ == "quantiles":
            lower, upper = self._own(prediction)
            scores = np.maximum(lower - targets, targets - upper)
        else:
            scores = np.abs(targets - centre) / self._spread(prediction)
        self.quantile_ = conformal_quantile(scores, self.confidence)
        if math.isinf(self.quantile_):
            warnings.warn(
                f"a confidence of {self.confidence} needs at least "
                f"{least_examples(self.confidence)} held-out examples, got {len(scores)}: every "
                "interval is infinite",
                stacklevel=2,
            )
        return self

    def __call__(self, prediction: RegressionPrediction) -> Intervals:
        """Return the interval of each example.

        Where the ends of a quantile interval would cross, both are its middle.

        Raises:
            RuntimeError: ``fit`` was not called.
            TypeError, ValueError: as for :meth:`fit`.
        """
        if self.method_ is None:
            raise RuntimeError("the intervals are not fitted yet: call fit with held-out examples")
        centre = _centre(prediction)
        if self.method_ != "quantiles":
            half = self.quantile_ * self._spread(prediction)
            return Intervals(centre - half, centre + half, self.confidence)
        lower, upper = self._own(prediction)
        middle = (lower + upper) / 2
        low, high = lower - self.quantile_, upper + self.quantile_
        crossed = low > high
        return Intervals(
            np.where(crossed, middle, low), np.where(crossed, middle, high), self.confidence
        )

    def _spread(self, prediction: RegressionPrediction) -> ExampleScores:
        """Return the unit of the width for each example."""
        if self.method_ == "absolute":
            return np.ones(len(prediction))
        found = finite_numbers("the deviation", prediction.deviation, len(prediction))
        if (found <= 0).any():
            raise ValueError(
                f"the standard deviation must be above 0, got {int((found <= 0).sum())} of "
                f"{len(found)} examples where it is not and members agree entirely; use "
                "method='absolute'"
            )
        return found

    def _own(self, prediction: RegressionPrediction) -> tuple[ExampleScores, ExampleScores]:
        """Return the ensemble's own interval of the confidence, or its widest."""
        coverage = self.confidence
        if isinstance(prediction, Quantiles):
            coverage = min(coverage, prediction.widest)
            if coverage <= 0:
                raise ValueError("one quantile has no interval; use method='absolute'")
        lower, upper = prediction.interval(coverage)
        examples = len(prediction)
        return finite_numbers("the lower end", lower, examples), finite_numbers(
            "the upper end", upper, examples
        )


def _centre(prediction: RegressionPrediction) -> ExampleScores:
    if not isinstance(prediction, RegressionPrediction):
        raise TypeError(
            f"intervals need predicted numbers, got {type(prediction).__name__}; use ConformalSets "
            "for classes, and batchensemble.predictions.Points for your own numbers"
        )
    return finite_numbers("the predicted numbers", one_number_each(prediction), len(prediction))


def _usual(prediction: RegressionPrediction) -> IntervalMethod:
    """Return the default method for a kind of prediction."""
    if isinstance(prediction, Normals):
        return "normalised"
    wide = isinstance(prediction, Quantiles) and prediction.widest > 0
    return "quantiles" if wide else "absolute"
