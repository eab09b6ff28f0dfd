"""The result of a ranking as a sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence

from batchensemble.comparison.ranking.folders import Ranking
from batchensemble.comparison.ranking.ranks import critical_difference
from batchensemble.comparison.summary import Column
from batchensemble.comparison.wording import join_names, method_phrase


def sentence(ranking: Ranking) -> str:
    """Return which methods are significantly better than which, or that none is.

    Args:
        ranking: a ranking, from :func:`batchensemble.comparison.ranking.rank_folders`.
    """
    sets, methods = ranking.scores.shape
    score, least = score_name(ranking.by), ranking.over_all.critical_difference
    fewest = fewest_sets(methods, ranking.level)
    if sets < fewest:
        return (
            f"{sets} data sets are too few for {methods} methods: even the same order on all of "
            f"them would not be significant. Give at least {fewest} data sets."
        )
    if not ranking.differ:
        return (
            f"No significant difference in {score} between the methods over {sets} data sets "
            f"({p_text(ranking.over_all.p_value)}; critical difference of mean ranks {least:.2f})."
        )
    better = _better(ranking)
    if not better:
        return (
            f"By {score} the methods differ significantly ({p_text(ranking.over_all.p_value)}), "
            f"but no two mean ranks differ by more than {least:.2f}, so it is open which ones do."
        )
    return f"By {score} {_listed(ranking, better)}."


def groups(ranking: Ranking) -> list[list[int]]:
    """Return the largest groups of methods without a significant difference, the best first.

    A method may be in several groups; one that differs significantly from all others is in none.

    Args:
        ranking: a ranking, from :func:`batchensemble.comparison.ranking.rank_folders`.

    Returns:
        Lists of the methods' numbers, each ordered by mean rank.
    """
    order = ranking.order
    found: list[list[int]] = []
    end = 0
    for start, first in enumerate(order):
        tied = [
            place
            for place in range(start, len(order))
            if not ranking.significantly_different(first, order[place])
        ]
        if len(tied) > 1 and tied[-1] >= end:
            found.append([order[place] for place in tied])
            end = tied[-1] + 1
    return found


def fewest_sets(methods: int, level: float) -> int:
    """Return the number of data sets from which the best and the worst method can differ.

    Their mean ranks must be able to differ by more than the critical difference, and the same order
    on all data sets must be rare enough: by chance it has the probability ``methods!`` to the power
    of ``1 - sets``.

    Args:
        methods: number of methods that are ranked.
        level: 1 minus the significance level.

    Example:
        >>> fewest_sets(4, 0.95), fewest_sets(2, 0.95)
        (3, 6)
    """
    sets, orders = 2, math.factorial(methods)
    while critical_difference(methods, sets, level) >= methods - 1 or orders ** (1 - sets) > (
        1 - level
    ):
        sets += 1
    return sets


def score_name(column: Column) -> str:
    """Return a score's name within a sentence: only names and acronyms have capitals.

    Example:
        >>> from batchensemble.comparison.ranking import RANKED_BY
        >>> [score_name(RANKED_BY[key]) for key in ("accuracy", "brier", "nll")]
        ['accuracy', 'Brier score', 'NLL']
    """
    return column.title.lower() if column.key in ("accuracy", "pinball") else column.title


def p_text(p_value: float) -> str:
    """Return a p-value as text.

    Example:
        >>> p_text(0.0312), p_text(1e-6)
        ('p = 0.031', 'p < 0.001')
    """
    return f"p = {p_value:.3f}" if p_value >= 0.001 else "p < 0.001"


def _better(ranking: Ranking) -> list[tuple[list[int], list[int]]]:
    """Return which methods are significantly better than which, grouped by the latter."""
    order = ranking.order
    found: list[tuple[list[int], list[int]]] = []
    for place, method in enumerate(order):
        beaten = [
            worse for worse in order[place + 1 :] if ranking.significantly_different(method, worse)
        ]
        if beaten and found and found[-1][1] == beaten:
            found[-1][0].append(method)
        elif beaten:
            found.append(([method], beaten))
    return found


def _listed(ranking: Ranking, better: Sequence[tuple[list[int], list[int]]]) -> str:
    def named(methods: Sequence[int]) -> str:
        return join_names([method_phrase(ranking.methods[each]) for each in methods])

    listed = ", and ".join(
        f"{named(ones)} {'is' if len(ones) == 1 else 'are'} significantly better than "
        f"{named(others)}"
        for ones, others in better
    )
    pairs = [f"between {named(each)}" for each in groups(ranking)]
    return f"{listed}; no significant difference {', or '.join(pairs)}" if pairs else listed
