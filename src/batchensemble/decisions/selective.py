"""Selective prediction: answer only where the ensemble is certain; risk against coverage."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from batchensemble.core.arguments import fraction
from batchensemble.decisions.errors import answer_losses
from batchensemble.decisions.uncertainty_score import (
    ExampleScores,
    finite_numbers,
    name_of,
    sort_by_uncertainty,
    uncertainty_score,
)
from batchensemble.predictions import Prediction, RegressionPrediction


@dataclass(frozen=True)
class RiskCoverage:
    """The mean loss of the answered examples (risk) against their share (coverage).

    Attributes:
        by: name of the uncertainty that orders the examples.
        risk: ``[examples]``; ``risk[i]`` is the mean loss of the ``i + 1`` most certain examples,
            its expectation over all orders of ties.
        best: the same for examples in the order of their losses, the best possible.
    """

    by: str
    risk: ExampleScores
    best: ExampleScores

    @classmethod
    def of(cls, uncertainty: Any, losses: Any, by: str = "given") -> RiskCoverage:
        """Return the curve of any loss, such as squared errors, by any uncertainty.

        Args:
            uncertainty: higher where more uncertain, ``[examples]``.
            losses: losses of at least 0, ``[examples]``.
            by: name of the uncertainty, ``"given"`` by default.

        Raises:
            ValueError: the shapes differ, there are no examples, or a number is not finite.

        Example:
            >>> RiskCoverage.of([0.1, 0.2, 0.2], [0, 1, 0]).risk.round(2).tolist()
            [0.0, 0.25, 0.33]
        """
        losses = finite_numbers("losses", losses, np.size(losses))
        if not len(losses):
            raise ValueError("there must be at least one example to rank, got none")
        found = sort_by_uncertainty(
            finite_numbers("the uncertainty", uncertainty, len(losses)), losses
        )
        answered = np.arange(1, len(losses) + 1)
        # Between the ends of a tie, the expected sum of losses grows in a straight line.
        sums = np.interp(answered, np.append(0, found.accepted), np.append(0, found.losses))
        return cls(by, sums / answered, np.sort(losses).cumsum() / answered)

    @cached_property
    def coverage(self) -> ExampleScores:
        """The share of examples answered, at each point of ``risk``."""
        return np.arange(1, len(self.risk) + 1) / len(self.risk)

    @property
    def aurc(self) -> float:
        """The area under the curve: the mean of ``risk`` (Geifman et al. 2019)."""
        return float(self.risk.mean())

    @property
    def excess_aurc(self) -> float:
        """The area minus that of the best order: 0 if all errors come last."""
        return float((self.risk - self.best).mean())

    def answered_at(self, coverage: float) -> int:
        """Return the number of examples to answer for this coverage; at least one.

        Raises:
            ValueError: ``coverage`` is outside [0, 1].
        """
        share = fraction("coverage", coverage)
        # Of 10 examples 7 are 70 %, although 0.7 * 10 is above 7 in binary.
        return max(1, math.ceil(share * len(self.risk) - 1e-9))

    def risk_at(self, coverage: float) -> float:
        """Return the mean loss of the most certain examples at this coverage.

        Raises:
            ValueError: ``coverage`` is outside [0, 1].
        """
        return float(self.risk[self.answered_at(coverage) - 1])

    def accuracy_at(self, coverage: float) -> float:
        """Return 1 minus :meth:`risk_at`: the accuracy, where the loss is 1 for an error."""
        return 1 - self.risk_at(coverage)


def risk_coverage(
    prediction: Prediction | RegressionPrediction,
    targets: Any,
    by: Any = "total",
    *,
    tolerance: float | None = None,
) -> RiskCoverage:
    """Return the error rate, or the mean absolute error, of the most certain examples.

    Geifman and El-Yaniv 2017, arXiv 1705.08500; the area and its excess from Geifman, Uziel and
    El-Yaniv 2019, arXiv 1805.08206.

    Args:
        prediction: prediction of any ensemble, classes or numbers.
        targets: the true classes, or the true numbers, ``[examples]``.
        by: the uncertainty to use, see
            :func:`batchensemble.decisions.uncertainty_score.uncertainty_score`.
        tolerance: for numbers: the risk is then the share with a larger absolute error, in the
            targets' unit; by default it is their mean absolute error.

    Raises:
        ValueError: ``targets`` or ``by`` does not fit, a number is NaN, or ``tolerance`` is given
            for classes.

    Example:
        >>> probs = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.3, 0.7]])
        >>> curve = risk_coverage(Prediction(probs[:, None]), np.array([0, 0, 1, 1]))
        >>> curve.accuracy_at(0.75), curve.accuracy_at(1.0), curve.excess_aurc
        (1.0, 0.75, 0.0)
        >>> from batchensemble.predictions import Points
        >>> numbers = Points(np.array([[1.0, 1.0], [0.0, 4.0]]))
        >>> risk_coverage(numbers, [1.5, 5.0]).risk.tolist()
        [0.5, 1.75]
    """
    each = answer_losses(prediction, targets, tolerance)
    return RiskCoverage.of(uncertainty_score(prediction, by), each, name_of(by))
