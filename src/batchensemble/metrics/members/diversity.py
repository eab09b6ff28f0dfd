"""Whether the members differ: in the classes they name, in their errors, in their probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from batchensemble.core.chunks import row_blocks
from batchensemble.metrics.labels import checked_labels
from batchensemble.predictions import Prediction

Pairs = Float[np.ndarray, "members members"]


@dataclass(frozen=True)
class Diversity:
    """How much each pair of members differs; the means over the pairs are properties.

    Attributes:
        disagreements: share of examples for which two members name different classes, 0 to 1.
        kls: mean KL divergence of the row's member from the column's, nats, 0 to infinity.
        q_statistics: Yule's Q of the members' errors, −1 to 1: 0 where they err independently of
            each other, 1 where on the same examples. With ``a`` examples that both have right,
            ``d`` both wrong, ``b`` and ``c`` one of them, it is ``(ad − bc) / (ad + bc)``; NaN
            where that is 0 / 0. ``None`` without labels.
        error_correlations: Pearson's correlation of being wrong, −1 to 1; NaN for a member that is
            never or always wrong. ``None`` without labels. Where one of two members errs seldom it
            stays far below 1, which Q does not.

    Source: Kuncheva and Whitaker 2003, Machine Learning 51, doi 10.1023/A:1022859003006.
    """

    disagreements: Pairs
    kls: Pairs
    q_statistics: Pairs | None
    error_correlations: Pairs | None

    @property
    def disagreement(self) -> float:
        """Mean share of examples for which two members name different classes."""
        return _over_pairs(self.disagreements, alone=0.0)

    @property
    def pairwise_kl(self) -> float:
        """Mean KL divergence of two different members, nats."""
        return _over_pairs(self.kls, alone=0.0)

    @property
    def q_statistic(self) -> float:
        """Mean Q of the pairs for which it is defined; NaN for none."""
        return _over_pairs(self.q_statistics)

    @property
    def error_correlation(self) -> float:
        """Mean correlation of the errors of the pairs for which it is defined; NaN for none."""
        return _over_pairs(self.error_correlations)


def diversity(prediction: Prediction, labels: Any = None) -> Diversity:
    """Return how much the members differ, pair by pair.

    Args:
        prediction: of any ensemble.
        labels: the true class numbers, ``[examples]``; without them nothing is said of errors.

    Raises:
        ValueError: there are no examples, or the labels do not fit.

    Example:
        >>> found = diversity(Prediction(np.array([[[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]]])))
        >>> found.disagreements.tolist()
        [[0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]]
        >>> round(found.disagreement, 4), round(found.pairwise_kl, 4)
        (0.6667, 0.6271)
    """
    if prediction.member_probs.ndim > 3:
        raise ValueError(
            "prediction must have one class an example, got the shape "
            f"{list(prediction.member_probs.shape)}; give what metrics.entries makes of it"
        )
    if len(prediction) == 0:
        raise ValueError("there must be at least one example to compare members on, got none")
    tops = _tops(prediction)
    q, correlations = None, None
    if labels is not None:
        q, correlations = _of_errors(tops != checked_labels(prediction, labels))
    return Diversity(_differing(tops) / len(prediction), _kls(prediction), q, correlations)


def one_class(prediction: Prediction) -> int | None:
    """Return the class that all members name for every example; ``None`` where they name several.

    Example:
        >>> one_class(Prediction(np.array([[[0.9, 0.1]], [[0.6, 0.4]]])))
        0
    """
    named = prediction.member_labels
    first = named.flat[0] if named.size else 0
    return int(first) if named.size and (named == first).all() else None


def disagreement(prediction: Prediction) -> float:
    """Return the share of pairs of members whose most probable classes differ; 0 for one member.

    Example:
        >>> round(disagreement(Prediction(np.array([[[1.0, 0], [1, 0], [0, 1]]]))), 4)
        0.6667
    """
    return _over_pairs(_differing(_tops(prediction)) / len(prediction), alone=0.0)


def disagreement_by_example(prediction: Prediction) -> Float[np.ndarray, "examples"]:
    """Return the share of pairs of members that name different classes, for each example.

    Example:
        >>> disagreement_by_example(Prediction(np.array([[[0.9, 0.1], [0.2, 0.8]]]))).tolist()
        [1.0]
    """
    tops, members = _tops(prediction), prediction.members
    differing = np.zeros(len(prediction))
    for one in range(members):
        for other in range(one):
            differing += tops[one] != tops[other]
    return differing / max(members * (members - 1) / 2, 1)


def _tops(prediction: Prediction) -> Int[np.ndarray, "members examples"]:
    """Return the most probable class of each member, each member's in one piece of memory."""
    return np.ascontiguousarray(prediction.member_labels.T)


def _differing(tops: Int[np.ndarray, "members examples"]) -> Pairs:
    """Return how many examples each pair of members gives different classes."""
    counts = np.zeros((len(tops), len(tops)))
    for one in range(len(tops)):
        for other in range(one):
            counts[one, other] = counts[other, one] = np.count_nonzero(tops[one] != tops[other])
    return counts


def _kls(prediction: Prediction) -> Pairs:
    """Return the mean KL divergences: entropies less cross-entropies, a matrix product a block."""
    examples, members, classes = prediction.member_probs.shape
    crossed, excluded = np.zeros((members, members)), np.zeros((members, members))
    for block in row_blocks(examples, members * classes):
        probs = prediction.member_probs[block].astype(np.float64).swapaxes(0, 1)
        probs = probs.reshape(members, -1)
        nothing = probs == 0
        crossed += probs @ np.log(np.where(nothing, 1.0, probs)).T
        if nothing.any():
            excluded += probs @ nothing.T
    kls = np.maximum(np.diag(crossed)[:, None] - crossed, 0.0) / examples
    kls[excluded > 0] = np.inf  # what one deems possible, the other excludes
    return kls


def _of_errors(wrong: Bool[np.ndarray, "members examples"]) -> tuple[Pairs, Pairs]:
    """Return Q and the correlation of each pair of members."""
    errors = wrong.astype(np.float64)
    examples, by_member = wrong.shape[1], errors.sum(1)
    both = errors @ errors.T
    first, second = by_member[:, None] - both, by_member - both
    neither = examples - both - first - second
    joint, apart = both * neither, first * second
    spread = by_member * (examples - by_member)
    with np.errstate(invalid="ignore"):
        q = (joint - apart) / (joint + apart)
        return q, (joint - apart) / np.sqrt(spread[:, None] * spread)


def _over_pairs(matrix: NDArray[np.float64] | None, alone: float = np.nan) -> float:
    """Return the mean over pairs of different members for which there is a value."""
    if matrix is None:
        return np.nan
    if len(matrix) == 1:
        return alone
    pairs = matrix[~np.eye(len(matrix), dtype=bool)]
    pairs = pairs[~np.isnan(pairs)]
    return float(pairs.mean()) if len(pairs) else np.nan
