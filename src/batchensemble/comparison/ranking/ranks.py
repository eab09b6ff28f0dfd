"""Ranks of methods over data sets, with the tests of Friedman and Nemenyi."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.stats import chi2, f, rankdata, studentized_range

from batchensemble.core.arguments import between, one_of
from batchensemble.metrics.bootstrap import LEVEL

# Most orders of ranks that the exact test enumerates; with more the approximation is as good.
MOST_ORDERS = 2**19


@dataclass(frozen=True)
class Ranks:
    """Mean ranks of methods over several data sets, and the tests on them.

    Attributes:
        mean: the mean rank of each method, 1 for the best, ``[methods]``.
        critical_difference: mean ranks must differ by more than this to differ significantly
            (Nemenyi).
        friedman: the statistic of Friedman's test.
        p_value: the p-value of the test that all methods are equal: exact where that is quick, such
            as four methods on thirty data sets, else by Iman and Davenport's statistic.
    """

    mean: Float[np.ndarray, "methods"]
    critical_difference: float
    friedman: float
    p_value: float

    def significantly_different(self, one: int, other: int) -> bool:
        """Return whether the mean ranks of two methods, by number, differ significantly."""
        return bool(abs(self.mean[one] - self.mean[other]) > self.critical_difference)


def rank(
    scores: Float[np.ndarray, "datasets methods"],
    *,
    better: Literal["higher", "lower"],
    level: float = LEVEL,
) -> Ranks:
    """Return the mean ranks over data sets and their critical difference (Demšar 2006, JMLR 7).

    Args:
        scores: the score of each method on each data set.
        better: whether higher or lower scores are better.
        level: 1 minus the significance level of the critical difference.

    Raises:
        ValueError: there are fewer than two data sets or methods, or a score is not finite.

    Example:
        >>> rank(np.array([[0.9, 0.8], [0.7, 0.6], [0.5, 0.4]]), better="higher").mean.tolist()
        [1.0, 2.0]
    """
    one_of("better", better, ("higher", "lower"))
    between("level", level, 0, 1)
    if min(scores.shape) < 2:
        raise ValueError(
            "ranks need at least two data sets and two methods, got "
            f"{scores.shape[0]} and {scores.shape[1]}"
        )
    if not np.isfinite(scores).all():
        raise ValueError(
            "scores must be finite to be ranked; leave out the data sets where they are not"
        )
    sets, methods = scores.shape
    ranks = ranked(scores, better)
    mean = ranks.mean(0)
    friedman = float(
        12 * sets / (methods * (methods + 1)) * ((mean**2).sum() - methods * (methods + 1) ** 2 / 4)
    )
    exact = _exact_p_value(ranks)
    p_value = _p_value(friedman, methods, sets) if exact is None else exact
    return Ranks(mean, critical_difference(methods, sets, level), friedman, p_value)


def ranked(
    scores: Float[np.ndarray, "datasets methods"], better: Literal["higher", "lower"]
) -> Float[np.ndarray, "datasets methods"]:
    """Return the rank of each method on each data set, 1 for the best; ties get mean ranks.

    Args:
        scores: the score of each method on each data set.
        better: whether higher or lower scores are better.

    Example:
        >>> ranked(np.array([[0.9, 0.8, 0.8]]), "higher").tolist()
        [[1.0, 2.5, 2.5]]
    """
    found: np.ndarray = rankdata(-scores if better == "higher" else scores, axis=1)
    return found


def critical_difference(methods: int, datasets: int, level: float = LEVEL) -> float:
    """Return the difference of mean ranks that is significant (Demšar 2006, section 3.2.2).

    Nemenyi 1963, from the studentised range.

    Args:
        methods: number of methods.
        datasets: number of data sets.
        level: 1 minus the significance level.

    Example:
        >>> round(critical_difference(4, 14), 2)
        1.25
    """
    q = studentized_range.ppf(level, methods, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(methods * (methods + 1) / (6 * datasets)))


def _exact_p_value(ranks: Float[np.ndarray, "datasets methods"]) -> float | None:
    """Return the probability of a Friedman statistic at least as large, by enumeration.

    The statistic grows with the sum of the squared rank sums, and under the null hypothesis methods
    are exchangeable, so rank sums are counted without regard to whose they are.

    ``None`` where there are too many orders to enumerate.
    """
    twice = np.rint(2 * ranks).astype(np.int64)  # shared ranks are halves
    sets, methods = twice.shape
    largest = 2 * methods * sets + 1
    if math.factorial(methods) > MOST_ORDERS or largest**methods >= 2**63:
        return None
    sums, chances = np.zeros((1, methods), np.int64), np.ones(1, np.float64)
    for row in twice:
        orders = np.array(list(permutations(row.tolist())))
        if len(sums) * len(orders) > MOST_ORDERS:
            return None
        after = np.sort((sums[:, None] + orders).reshape(-1, methods), axis=1)
        _, first, place = np.unique(
            after @ largest ** np.arange(methods), return_index=True, return_inverse=True
        )
        weights = np.repeat(chances / len(orders), len(orders))
        chances = np.bincount(place, weights).astype(np.float64)
        sums = after[first]
    found = (twice.sum(0) ** 2).sum()
    return min(1.0, float(chances[(sums**2).sum(1) >= found].sum()))


def _p_value(friedman: float, methods: int, datasets: int) -> float:
    most = datasets * (methods - 1)
    if friedman >= most:  # the same ranks on all data sets, where the better statistic is infinite
        return float(chi2.sf(friedman, methods - 1))
    statistic = (datasets - 1) * friedman / (most - friedman)
    return float(f.sf(statistic, methods - 1, (methods - 1) * (datasets - 1)))
