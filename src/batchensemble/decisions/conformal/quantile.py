"""The quantile of split conformal prediction, and the number of examples that it needs."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from jaxtyping import Float


def rank_of(examples: int, confidence: float) -> int:
    """Return which of the sorted scores is the threshold: ``ceil((examples + 1) * confidence)``.

    Computed with the decimal number that the user wrote: in binary, 0.7 * 10 is above 7.

    Example:
        >>> rank_of(9, 0.7), rank_of(9, 0.9), rank_of(8, 0.9)
        (7, 9, 9)
    """
    return math.ceil((examples + 1) * Fraction(str(confidence)))


def least_examples(confidence: float) -> int:
    """Return the number of examples that a finite threshold needs.

    Example:
        >>> least_examples(0.9), least_examples(0.95), least_examples(0.99)
        (9, 19, 99)
    """
    share = Fraction(str(confidence))
    return math.ceil(share / (1 - share))


def conformal_quantile(scores: Float[np.ndarray, "examples"], confidence: float) -> float:
    """Return the threshold that a new score exceeds with a probability of at most ``1 - c``.

    It is the ``ceil((n + 1) c)``-th smallest of ``n`` scores, and infinite where there are too few:
    ``n < c / (1 - c)``. If the scores and the new one are exchangeable, the new one is at most the
    threshold with a probability of at least ``c``, and of at most ``c + 1 / (n + 1)`` where no two
    scores tie (Vovk, Gammerman and Shafer 2005; Lei et al. 2018, arXiv 1604.04173, theorem 2.2).

    Args:
        scores: scores of held-out examples, higher where the truth fits the prediction worse.
        confidence: ``c``, between 0 and 1.

    Example:
        >>> conformal_quantile(np.arange(1.0, 10.0), 0.9), conformal_quantile(np.ones(8), 0.9)
        (9.0, inf)
    """
    rank = rank_of(len(scores), confidence)
    if rank > len(scores):
        return math.inf
    return float(np.partition(scores, rank - 1)[rank - 1])
