"""Scores against the number of members, and the effective number of members."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from batchensemble.core.arguments import whole_number
from batchensemble.core.chunks import row_blocks
from batchensemble.metrics.labels import Labels, checked_labels
from batchensemble.metrics.losses_by_example import losses_by_example, negative_log
from batchensemble.metrics.members.gain import check_several_members
from batchensemble.predictions import Prediction

SUBSETS = 100  # of each size; all of them up to 8 members, whose largest number is 70


@dataclass(frozen=True)
class MemberCurve:
    """Scores of ensembles of 1 to M of the members, each the mean over subsets of that size.

    Attributes:
        members: sizes of the subsets, 1 to M.
        accuracy: share of correct predictions.
        nll: negative log-likelihood, nats; where it is exact it never rises.
        exact: whether all subsets of that size were used, or a random sample of them.
    """

    members: Int[np.ndarray, "sizes"]
    accuracy: Float[np.ndarray, "sizes"]
    nll: Float[np.ndarray, "sizes"]
    exact: Bool[np.ndarray, "sizes"]


def by_members(
    prediction: Prediction, labels: Any, *, subsets: int = SUBSETS, seed: int = 0
) -> MemberCurve:
    """Return accuracy and NLL against the number of members, from 1 to all.

    Args:
        prediction: the prediction of any ensemble.
        labels: the true class numbers, ``[examples]``.
        subsets: largest number of subsets of each size, 100 by default; more are sampled.
        seed: seed of the random draws, 0 by default.

    Raises:
        ValueError: the labels do not fit, or ``subsets`` is below 1.

    Example:
        >>> opposite = Prediction(np.array([[[0.9, 0.1], [0.3, 0.7]]]))
        >>> curve = by_members(opposite, np.array([0]))
        >>> curve.accuracy.tolist(), curve.nll.round(4).tolist()
        ([0.5, 1.0], [0.6547, 0.5108])
    """
    labels = checked_labels(prediction, labels)
    whole_number("subsets", subsets)
    examples, members, classes = prediction.member_probs.shape
    chosen, exact = _chosen(members, subsets, np.random.default_rng(seed))
    sizes = chosen.sum(1)
    right, loss = np.zeros(len(chosen)), np.zeros(len(chosen))
    for block in row_blocks(examples, (len(chosen) + members) * classes):
        probs = prediction.member_probs[block].astype(np.float64).swapaxes(0, 1)
        sums = (chosen @ probs.reshape(members, -1)).reshape(len(chosen), -1, classes)
        truth = labels[block]
        right += (sums.argmax(2) == truth).sum(1)
        of_truth = sums[:, np.arange(len(truth)), truth]
        loss += negative_log(of_truth / sizes[:, None]).sum(1)
    numbers = np.arange(1, members + 1)
    of_size = np.stack([sizes == number for number in numbers]).astype(np.float64)
    of_size /= of_size.sum(1, keepdims=True)
    return MemberCurve(numbers, of_size @ right / examples, of_size @ loss / examples, exact)


def effective_members(prediction: Prediction, labels: Any, deep: Prediction | None = None) -> float:
    """Return the effective number of members.

    With a deep ensemble: the number of independently trained networks with the same NLL, by linear
    interpolation in :func:`by_members` of the deep ensemble (the deep ensemble equivalent of
    Ashukha et al. 2020, arXiv 2002.06470). It is 1 for an ensemble that is no better than one
    network, and the deep ensemble's number of members means *at least* that many. NaN if the deep
    ensemble does not gain from its members.

    Without one: M / (1 + (M − 1) ρ), the number of independent values whose mean varies as much as
    that of M values with correlation ρ, here the mean correlation of two members' log-likelihoods
    over the examples. Hard examples are hard for all networks, so even a deep ensemble has a ρ
    above 0 and a number below M: compare the number with another ensemble's, not with M. NaN if a
    member has the same log-likelihood on all examples.

    Args:
        prediction: the prediction of any ensemble.
        labels: the true class numbers, ``[examples]``.
        deep: prediction of a deep ensemble with at least 2 members on the same examples; none by
            default.

    Raises:
        ValueError: the labels do not fit, or ``deep`` has one member.

    Example:
        >>> twins = Prediction(np.array([[[0.9, 0.1]] * 3, [[0.6, 0.4]] * 3]))
        >>> round(effective_members(twins, np.array([0, 0])), 6)
        1.0
    """
    labels = checked_labels(prediction, labels)
    if deep is not None:
        return _read_off(float(losses_by_example(prediction, labels).mean()), deep, labels)
    members = prediction.members
    if members == 1:
        return 1.0
    of_truth = prediction.member_probs[np.arange(len(labels)), :, labels]
    logs = negative_log(of_truth.T)
    if np.ptp(logs, axis=1).min() == 0:
        return math.nan
    correlations = np.corrcoef(logs)
    rho = (correlations.sum() - members) / (members * (members - 1))
    inflation = 1 + (members - 1) * rho
    # Members that cancel out: their mean does not vary at all.
    return math.inf if inflation <= 1e-12 else float(members / inflation)


def _read_off(nll: float, deep: Prediction, labels: Labels) -> float:
    check_several_members(deep)
    curve = by_members(deep, labels)
    # With sampled subsets the curve may rise a little by chance.
    falling = np.minimum.accumulate(curve.nll)
    if falling[0] == falling[-1]:
        return math.nan
    # np.interp needs ascending x: the curve is reversed.
    return float(np.interp(nll, falling[::-1], curve.members[::-1].astype(np.float64)))


def _chosen(
    members: int, subsets: int, generator: np.random.Generator
) -> tuple[Float[np.ndarray, "subsets members"], Bool[np.ndarray, "sizes"]]:
    """Return the subsets as rows of 1 and 0, and whether those of each size are complete."""
    rows: list[np.ndarray] = []
    exact = np.array([math.comb(members, size) <= subsets for size in range(1, members + 1)])
    for size, complete in enumerate(exact, 1):
        several: list[tuple[int, ...]]
        if complete:
            several = list(itertools.combinations(range(members), size))
        else:
            several = [
                tuple(generator.choice(members, size, replace=False)) for _ in range(subsets)
            ]
        for subset in several:
            rows.append(np.isin(np.arange(members), subset).astype(np.float64))
    return np.stack(rows), exact
