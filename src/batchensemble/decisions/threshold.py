"""The largest share of examples that can be answered with errors as rare as asked."""

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

LEVELS = 50


@dataclass(frozen=True)
class Threshold:
    """Answer where the uncertainty is below ``value``.

    Attributes:
        by: the uncertainty.
        value: infinite where every example may be answered, minus infinity where none may.
        coverage: share of the held-out examples that are answered.
        risk: share of errors among these; NaN where there are none.
        bound: upper bound of the true share of errors. Where none may be answered, the lowest that
            any threshold had.
        target: the share of errors that was asked for.
        confidence: of the bound, over the draw of the held-out examples.
        examples: how many held-out examples there were.
        tolerance: of numbers: one that is off by more is an error, in the targets' unit.
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
        """Whether any threshold keeps the risk at the target."""
        return self.value > -math.inf

    def accepts(
        self, prediction: Prediction | RegressionPrediction, by: Any = None
    ) -> Bool[np.ndarray, "examples"]:
        """Return which examples may be answered.

        Args:
            prediction: of new examples.
            by: their uncertainty where the threshold was found by numbers of your own,
                ``[examples]``.

        Raises:
            ValueError: ``by`` is missing, does not fit, or an uncertainty is not finite.
        """
        if by is None:
            if self.by == "given":
                raise ValueError(
                    "the threshold is of an uncertainty of your own: give by= for these examples"
                )
            by = self.by
        accepted: Bool[np.ndarray, "examples"] = uncertainty_score(prediction, by) < self.value
        return accepted

    def __str__(self) -> str:
        asked = f"errors of {self.target:.2%} at most, with a confidence of {self.confidence:.0%}"
        if self.found:
            wrong = "wrong" if self.tolerance is None else f"off by more than {self.tolerance:g}"
            return (
                f"{asked}: answer where {self.by} < {self.value:.6g}, {self.coverage:.1%} of "
                f"{self.examples} examples, of which {self.risk:.2%} are {wrong} and at most "
                f"{self.bound:.2%} in truth"
            )
        return (
            f"{asked}: no threshold on {self.by} reaches it with {self.examples} examples, the "
            f"lowest bound is {self.bound:.2%}; give more examples or allow more errors"
        )


def threshold_for(
    prediction: Prediction | RegressionPrediction,
    targets: Any,
    risk: float = 0.01,
    confidence: float = 0.95,
    by: Any = "total",
    levels: int = LEVELS,
    *,
    tolerance: float | None = None,
) -> Threshold:
    """Return the threshold that answers most examples with errors as rare as asked.

    With probability ``confidence`` over the draw of the held-out examples, the share of errors
    among all new examples that :meth:`Threshold.accepts` takes is at most ``risk``. This holds for
    any model and any uncertainty, also one that ranks badly, if held-out and new examples are
    independent draws of one distribution.

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
    surest examples ends it, and it needs the risk to grow with the uncertainty.

    Args:
        prediction: of held-out examples that neither trained nor chose the model.
        targets: their true classes, or their true numbers, ``[examples]``.
        risk: share of errors among those answered, between 0 and 1.
        confidence: between 0 and 1.
        by: see :func:`batchensemble.decisions.uncertainty_score.uncertainty_score`.
        levels: how many thresholds are tried; more are finer and each bound is wider.
        tolerance: of numbers, which need it: one that is off by more is an error, in the targets'
            unit.

    Raises:
        ValueError: an argument out of range, or one that does not fit the prediction.

    Warns:
        UserWarning: no threshold reaches the risk; the one returned accepts nothing.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> sure = rng.uniform(0.5, 1, 20000)
        >>> labels = (rng.random(20000) < sure).astype(int)
        >>> prediction = Prediction(np.stack([1 - sure, sure], 1)[:, None])
        >>> threshold = threshold_for(prediction, labels, risk=0.1)
        >>> print(threshold)  # a risk of 10 % is reached at a coverage of 40 %
        errors of 10.00% at most, with a confidence of 95%: answer where total < 0.47...
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
    """Return the upper ends of the one-sided intervals of a share (Clopper and Pearson 1934).

    Args:
        wrong: how many were wrong, of those ``answered``.
        answered: where there are none, the bound is 1.
        level: the probability that the true share is above the bound, at most.

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
    """Return thresholds of fixed ranks, how many examples are below each, and the wrong of these.

    The ranks begin where a bound without an error can reach the target, and end with all examples.
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
