"""Diversity of the members: in predicted classes, errors and probabilities."""

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
    """Diversity of each pair of members; the means over the pairs are properties.

    Attributes:
        disagreements: share of examples for which two members predict different classes, 0 to 1.
        kls: mean KL divergence of the row's member from the column's, nats, 0 to infinity.
        q_statistics: Yule's Q of the members' errors, −1 to 1: 0 if they err independently, 1 if
            on the same examples. With ``a`` examples that both predict correctly, ``d`` that both
            get wrong, and ``b`` and ``c`` with one of them wrong, it is ``(ad − bc) / (ad + bc)``;
            NaN for 0 / 0. ``None`` without labels.
        error_correlations: Pearson's correlation of the errors, −1 to 1; NaN for a member that is
            never or always wrong. ``None`` without labels. If one of two members errs rarely it
            stays far below 1, unlike Q.

    Source: Kuncheva and Whitaker 2003, Machine Learning 51, doi 10.1023/A:1022859003006.
    """

    disagreements: Pairs
    kls: Pairs
    q_statistics: Pairs | None
    error_correlations: Pairs | None

    @property
    def disagreement(self) -> float:
        """Mean share of examples for which two members predict different classes."""
        return _over_pairs(self.disagreements, alone=0.0)

    @property
    def pairwise_kl(self) -> float:
        """Mean KL divergence of two different members, nats."""
        return _over_pairs(self.kls, alone=0.0)

    @property
    def q_statistic(self) -> float:
        """Mean Q of the pairs for which it is defined; NaN without any."""
        return _over_pairs(self.q_statistics)

    @property
    def error_correlation(self) -> float:
        """Mean correlation of the errors of the pairs for which it is defined; NaN without any."""
        return _over_pairs(self.error_correlations)


def diversity(prediction: Prediction, labels: Any = None) -> Diversity:
    """Return the diversity of the members, pair by pair.

    Args:
        prediction: the prediction of any ensemble.
        labels: the true class numbers, ``[examples]``; without them errors are left out.

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
            "prediction must have one class for each example, got the shape "
            f"{list(prediction.member_probs.shape)}; metrics.entries turns tokens and pixels into "
            "examples"
        )
    if len(prediction) == 0:
        raise ValueError("there must be at least one example to compare members on, got none")
    tops = _tops(prediction)
    q, correlations = None, None
    if labels is not None:
        q, correlations = _of_errors(tops != checked_labels(prediction, labels))
    return Diversity(_differing(tops) / len(prediction), _kls(prediction), q, correlations)


def one_class(prediction: Prediction) -> int | None:
    """Return the class that all members predict for every example; ``None`` if there are several.

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
    """Return the share of pairs of members that predict different classes, for each example.

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
    """Return the most probable class by each member, contiguous in memory for each."""
    return np.ascontiguousarray(prediction.member_labels.T)


def _differing(tops: Int[np.ndarray, "members examples"]) -> Pairs:
    """Return the number of examples on which each pair of members disagrees."""
    counts = np.zeros((len(tops), len(tops)))
    for one in range(len(tops)):
        for other in range(one):
            counts[one, other] = counts[other, one] = np.count_nonzero(tops[one] != tops[other])
    return counts


def _kls(prediction: Prediction) -> Pairs:
    """Return the mean KL divergences: cross-entropies minus entropies, by matrix products."""
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
    kls[excluded > 0] = np.inf  # one gives probability to what the other excludes
    return kls


def _of_errors(wrong: Bool[np.ndarray, "members examples"]) -> tuple[Pairs, Pairs]:
    """Return Q and the error correlation of each pair of members."""
    errors = wrong.astype(np.float64)
    examples, by_member = wrong.shape[1], errors.sum(1)
    both = errors @ errors.T
    first, second = by_member[:, None] - both, by_member - both
    neither = examples - both - first - second
    joint, opposite = both * neither, first * second
    spread = by_member * (examples - by_member)
    with np.errstate(invalid="ignore"):
        q = (joint - opposite) / (joint + opposite)
        return q, (joint - opposite) / np.sqrt(spread[:, None] * spread)


def _over_pairs(matrix: NDArray[np.float64] | None, alone: float = np.nan) -> float:
    """Return the mean over pairs of different members, without NaN."""
    if matrix is None:
        return np.nan
    if len(matrix) == 1:
        return alone
    pairs = matrix[~np.eye(len(matrix), dtype=bool)]
    pairs = pairs[~np.isnan(pairs)]
    return float(pairs.mean()) if len(pairs) else np.nan
