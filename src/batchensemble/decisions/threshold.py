"""A threshold on the uncertainty with a guarantee on the error rate of what is answered."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import beta

from batchensemble.core.arguments import between, whole_number
from batchensemble.decisions.errors import are_wrong
from batchensemble.decisions.uncertainty_score import (
    name_of,
    sort_by_uncertainty,
    uncertainty_score,
)
from batchensemble.predictions import Prediction, RegressionPrediction

THRESHOLD_LEVELS = 50


@dataclass(frozen=True)
class Threshold:
    """Answer where the uncertainty is below ``value``.

    Attributes:
        by: name of the uncertainty.
        value: the threshold: infinite if every example may be answered, minus infinity if none.
        coverage: share of the held-out examples that are answered.
        risk: error rate of these; NaN if none is answered.
        bound: upper bound of the true error rate; if none is answered, the lowest bound of the
            thresholds tried.
        target: the error rate that was asked for.
        confidence: confidence of the bound, over the draw of the held-out examples.
        examples: number of held-out examples.
        tolerance: for numbers: a larger absolute error is an error, in the targets' unit; ``None``
            for classes.
    """

    by: str
    value: float
    coverage: float
    risk: float
    bound: float
    target: float
    confidence: float
    examples: int
    tolerance: float | None = None

    @property
    def found(self) -> bool:
        """Whether any threshold meets the target."""
        return self.value > -math.inf

    def accepts(
        self, prediction: Prediction | RegressionPrediction, by: Any = None
    ) -> Bool[np.ndarray, "examples"]:
        """Return which examples may be answered, boolean ``[examples]``.

        Args:
            prediction: prediction on new examples.
            by: their uncertainty, ``[examples]``, if the threshold is on your own numbers; by
                default the one that the threshold is on.

        Raises:
            ValueError: ``by`` is missing or does not fit, or an uncertainty is not finite.
        """
        if by is None:
            if self.by == "given":
                raise ValueError(
                    "the threshold is on an uncertainty of your own: give by= for these examples"
                )
            by = self.by
        accepted: Bool[np.ndarray, "examples"] = uncertainty_score(prediction, by) < self.value
        return accepted

    def __str__(self) -> str:
        asked = f"error rate at most {self.target:.2%} with {self.confidence:.0%} confidence"
        if self.found:
            wrong = "wrong" if self.tolerance is None else f"off by more than {self.tolerance:g}"
            return (
                f"{asked}: answer if {self.by} < {self.value:.6g}, which is {self.coverage:.1%} of "
                f"{self.examples} examples; {self.risk:.2%} of these are {wrong}, upper bound "
                f"{self.bound:.2%}"
            )
        return (
            f"{asked}: no threshold on {self.by} meets it with {self.examples} examples, the "
            f"lowest upper bound of those tried is {self.bound:.2%}; give more examples or allow "
            "more errors"
        )


def threshold_for(
    prediction: Prediction | RegressionPrediction,
    targets: Any,
    risk: float = 0.01,
    confidence: float = 0.95,
    by: Any = "total",
    levels: int = THRESHOLD_LEVELS,
    *,
    tolerance: float | None = None,
) -> Threshold:
    """Return the threshold that answers most examples with an error rate of at most ``risk``.

    With probability ``confidence`` over the draw of the held-out examples, the error rate among all
    new examples that :meth:`Threshold.accepts` accepts is at most ``risk``. This holds for any
    model and any uncertainty, even one that ranks badly, if held-out and new examples are
    independent draws from one distribution.

    Proof. Before labels are seen, ``levels`` ranks ``k`` between 1 and ``n + 1`` are fixed. The
    threshold of rank ``k`` is the ``k``-th smallest uncertainty ``t`` of the ``n`` examples, and
    infinite for ``n + 1``. That ``t`` is the ``k``-th smallest tells of the ``a`` examples below
    ``t`` only that they are below: given ``t`` and ``a`` they are independent draws of the examples
    with an uncertainty below ``t``, ties or not, so their errors are binomial with the true risk
    ``R(t)``. The bound of Clopper and Pearson at ``1 - (1 - confidence) / levels`` is therefore
    below ``R(t)`` with probability at most ``(1 - confidence) / levels``; by Bonferroni all
    ``levels`` of them hold at once with probability ``confidence``, and then also the one that is
    chosen, by whatever rule. The rule is: the largest ``k`` whose bound is at most ``risk``.

    The search for a threshold is that of Geifman and El-Yaniv 2017 (arXiv 1705.08500); testing a
    fixed family is the way of Angelopoulos et al. 2021 (Learn then Test, arXiv 2110.01052). Testing
    the ranks one after the other at full level would be sharper, but one chance error among the
    most certain examples ends it, and it needs a risk that grows with the uncertainty.

    Args:
        prediction: prediction on held-out examples, used neither for training nor for choosing the
            model.
        targets: their true classes, or their true numbers, ``[examples]``.
        risk: largest error rate among answered examples, between 0 and 1, 0.01 by default.
        confidence: confidence of the guarantee, between 0 and 1, 0.95 by default.
        by: the uncertainty to use, see
            :func:`batchensemble.decisions.uncertainty_score.uncertainty_score`.
        levels: number of thresholds that are tried, 50 by default; more are finer and make each
            bound wider.
        tolerance: for numbers, and required there: a larger absolute error is an error, in the
            targets' unit.

    Raises:
        ValueError: an argument is out of range or does not fit the prediction.

    Warns:
        UserWarning: no threshold meets the risk; the one returned accepts nothing.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> sure = rng.uniform(0.5, 1, 20000)
        >>> labels = (rng.random(20000) < sure).astype(int)
        >>> prediction = Prediction(np.stack([1 - sure, sure], 1)[:, None])
        >>> threshold = threshold_for(prediction, labels, risk=0.1)
        >>> print(threshold)  # a risk of 10 % is reached at a coverage of 40 %
        error rate at most 10.00% with 95% confidence: answer if total < 0.47...
        >>> bool(threshold.accepts(prediction).mean() == threshold.coverage)
        True
    """
    errors = are_wrong(prediction, targets, tolerance)
    target, sure = between("risk", risk, 0, 1), between("confidence", confidence, 0, 1)
    level = (1 - sure) / whole_number("levels", levels)
    values, accepted, wrong = _candidates(
        uncertainty_score(prediction, by), errors, target, level, levels
    )
    bounds = upper_bound(wrong, accepted, level)
    passing = np.flatnonzero(bounds <= target)
    common = (target, sure, len(errors), tolerance)
    if not len(passing):
        threshold = Threshold(name_of(by), -math.inf, 0.0, math.nan, float(bounds.min()), *common)
        warnings.warn(str(threshold), stacklevel=2)
        return threshold
    best = passing[-1]
    return Threshold(
        name_of(by),
        float(values[best]),
        float(accepted[best] / len(errors)),
        float(wrong[best] / accepted[best]),
        float(bounds[best]),
        *common,
    )


def upper_bound(
    wrong: Float[np.ndarray, "levels"], answered: Int[np.ndarray, "levels"], level: float
) -> Float[np.ndarray, "levels"]:
    """Return upper bounds of error rates (one-sided, Clopper and Pearson 1934).

    Args:
        wrong: numbers of wrong answers.
        answered: numbers of answers; where there are none, the bound is 1.
        level: largest probability that the true rate is above its bound.

    Example:
        >>> upper_bound(np.array([0.0, 3.0]), np.array([300, 3]), 0.05).round(4).tolist()
        [0.0099, 1.0]
    """
    right = answered - wrong
    return np.where(right > 0, beta.ppf(1 - level, wrong + 1, np.maximum(right, 1)), 1.0)


def _candidates(
    uncertainty: Float[np.ndarray, "examples"],
    wrong: Bool[np.ndarray, "examples"],
    target: float,
    level: float,
    levels: int,
) -> tuple[Float[np.ndarray, "levels"], Int[np.ndarray, "levels"], Float[np.ndarray, "levels"]]:
    """Return thresholds of fixed ranks, the number of examples below each, and of wrong ones.

    The ranks begin where a bound without an error can meet the target, and end with all examples.
    They depend on nothing but the number of examples.
    """
    examples = len(uncertainty)
    fewest = math.ceil(math.log(level) / math.log1p(-target))
    ranks = np.linspace(min(fewest, examples) + 1, examples + 1, levels).astype(int)
    found = sort_by_uncertainty(uncertainty, wrong.astype(np.float64))
    at = np.searchsorted(found.accepted, ranks)
    return (
        np.append(found.uncertainty, np.inf)[at],
        np.append(0, found.accepted)[at],
        np.append(0.0, found.losses)[at],
    )
