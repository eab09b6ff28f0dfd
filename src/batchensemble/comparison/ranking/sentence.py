"""What a ranking says, in a sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence

from batchensemble.comparison.ranking.folders import Ranking
from batchensemble.comparison.ranking.ranks import critical_difference
from batchensemble.comparison.summary import Column
from batchensemble.comparison.wording import join_names, method_phrase


def sentence(ranking: Ranking) -> str:
    """Return which methods are better than which, or that nothing can be told.

    Args:
        ranking: from :func:`batchensemble.comparison.ranking.rank_folders`.
    """
    sets, methods = ranking.scores.shape
    score, least = score_name(ranking.by), ranking.over_all.critical_difference
    fewest = fewest_sets(methods, ranking.level)
    if sets < fewest:
        return (
            f"With {sets} data sets nothing can be told of {methods} methods: even the same order "
            f"on all of them is within chance. Give at least {fewest} data sets."
        )
    if not ranking.differ:
        return (
            f"By {score} no difference between the methods is found over {sets} data sets "
            f"({p_text(ranking.over_all.p_value)}). With so many, a difference in mean ranks below "
            f"{least:.2f} says nothing."
        )
    better, level = _better(ranking), groups(ranking)
    if not better:
        return (
            f"By {score} the methods are not all alike ({p_text(ranking.over_all.p_value)}), but "
            f"no two mean ranks are {least:.2f} apart, so it cannot be said which differ."
        )
    return f"By {score} {_told(ranking, better, level)}."


def groups(ranking: Ranking) -> list[list[int]]:
    """Return the methods that are not told apart, as many together as can be, the best first.

    A method may be in several groups; one that is told apart from all others is in none.
    """
    order = ranking.order
    found: list[list[int]] = []
    end = 0
    for start, first in enumerate(order):
        level = [
            place
            for place in range(start, len(order))
            if not ranking.significantly_different(first, order[place])
        ]
        if len(level) > 1 and level[-1] >= end:
            found.append([order[place] for place in level])
            end = level[-1] + 1
    return found


def fewest_sets(methods: int, level: float) -> int:
    """Return on how many data sets the best of so many methods can be told from the worst.

    They must be able to be further apart than the critical difference, and the same order on all
    data sets must be rare enough: it comes by chance once in ``methods!`` to the power of one less
    than the data sets.

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
    """Return a score's name within a sentence, where only names and acronyms are written large.

    Example:
        >>> from batchensemble.comparison.ranking import RANKED_BY
        >>> [score_name(RANKED_BY[key]) for key in ("accuracy", "brier", "nll")]
        ['accuracy', 'Brier score', 'NLL']
    """
    return column.title.lower() if column.key in ("accuracy", "pinball") else column.title


def p_text(p_value: float) -> str:
    """Return a p-value as prose has it.

    Example:
        >>> p_text(0.0312), p_text(1e-6)
        ('p = 0.031', 'p < 0.001')
    """
    return f"p = {p_value:.3f}" if p_value >= 0.001 else "p < 0.001"


def _better(ranking: Ranking) -> list[tuple[list[int], list[int]]]:
    """Return which methods are better than which, those together that beat the same."""
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


def _told(
    ranking: Ranking, better: Sequence[tuple[list[int], list[int]]], level: Sequence[list[int]]
) -> str:
    def named(methods: Sequence[int]) -> str:
        return join_names([method_phrase(ranking.methods[each]) for each in methods])

    winners, losers = better[0]
    if len(better) == 1 and winners in level:
        every = "both" if len(winners) == 2 else "all"
        told = f"{named(winners)} are not told apart; {every} are better than {named(losers)}"
        return told + (", which are not told apart either" if len(losers) > 1 else "")
    told = ", and ".join(
        f"{named(ones)} {'is' if len(ones) == 1 else 'are'} better than {named(others)}"
        for ones, others in better
    )
    if level:
        told += f"; not told apart are {'; nor '.join(named(each) for each in level)}"
    return told
