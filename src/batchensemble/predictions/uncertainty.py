"""Decomposition of predictive uncertainty by source, from the members' probabilities.

The **total** uncertainty is that of the members' mean p̄. Its **aleatoric** part is the mean
uncertainty of the members by themselves, as about a fair coin. The rest, **epistemic**, comes from
differences between the members, which more data would reduce. Axis 1 of the probabilities is the
members, axis 2 the classes or labels; further axes are tokens or pixels, each treated separately.

====================================  =======================  ==========================
of classes                            of labels                unit, range
====================================  =======================  ==========================
:func:`entropy_decomposition`         the same with            nats, 0 to log(classes);
                                      ``labels=True``          a label: 0 to log 2
:func:`variance_decomposition`        the same                 squared probability,
                                                               0 to 1/4 for each
:func:`pairwise_kl`                   the same with            nats, 0 to infinity
                                      ``labels=True``
====================================  =======================  ==========================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import entr

from batchensemble.core.chunks import FloatArray, by_row_blocks

MemberProbs = Float[np.ndarray, "examples members *outcomes"]

# By how much a softmax in half precision over thousands of classes may differ from 1.
SUM_TOLERANCE = 1e-2


@dataclass(frozen=True)
class Decomposition:
    """Uncertainty and its two parts, ``total = aleatoric + epistemic``.

    Attributes:
        total: uncertainty of the members' mean.
        aleatoric: mean of the members' own uncertainties.
        epistemic: their difference, at least 0.
    """

    total: Float[np.ndarray, "..."]
    aleatoric: Float[np.ndarray, "..."]
    epistemic: Float[np.ndarray, "..."]

    def summed(self, axis: int = 1) -> Decomposition:
        """Return the sums over classes or labels.

        For independent labels the sum of the entropies is the entropy of all labels together.
        """
        return Decomposition(
            self.total.sum(axis), self.aleatoric.sum(axis), self.epistemic.sum(axis)
        )


def entropy_decomposition(member_probs: MemberProbs, *, labels: bool = False) -> Decomposition:
    """Return the entropies of the prediction, in nats.

    With the entropy H(p) = −Σ_c p_c ln p_c, where 0 ln 0 = 0::

        total      H(p̄)
        aleatoric  mean_m H(p_m)
        epistemic  H(p̄) − mean_m H(p_m)

    The last is the mutual information of the outcome and the member that predicts it, from 0, where
    all members predict the same, to log(min(classes, members)). Depeweg et al. 2018, arXiv
    1710.07283.

    Args:
        member_probs: ``[examples, members, classes, ...]``; with ``labels=True``
            ``[examples, members, labels, ...]``, the probability of each label, or
            ``[examples, members]`` for one label.
        labels: whether these are labels of a multi-label prediction, each with the entropy of a
            coin; false by default.

    Returns:
        ``[examples, ...]``; for labels ``[examples, labels, ...]``, whose
        :meth:`Decomposition.summed` is the entropy of all labels together.

    Raises:
        ValueError: there are no examples, members or classes, or they are not probabilities.

    Example:
        >>> opposite = entropy_decomposition(np.array([[[1.0, 0.0], [0.0, 1.0]]]))
        >>> float(opposite.total[0]), float(opposite.aleatoric[0]), float(opposite.epistemic[0])
        (0.6931471805599453, 0.0, 0.6931471805599453)
    """

    def entropies(probs: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        mean = mean_of_members(probs)
        if labels:
            total = entr(mean) + entr(1 - mean)
            aleatoric = mean_of_members(entr(probs) + entr(1 - probs))
        else:
            total = -np.einsum("ec...,ec...->e...", mean, _log(mean))
            aleatoric = -np.einsum("emc...,emc...->e...", probs, _log(probs)) / probs.shape[1]
        # Rounding takes neither the difference nor the entropy of a sure member below 0.
        return (
            np.maximum(total, 0.0),
            np.maximum(aleatoric, 0.0),
            np.maximum(total - aleatoric, 0.0),
        )

    return Decomposition(*_on_probabilities(entropies, member_probs, labels))


def variance_decomposition(member_probs: MemberProbs, *, labels: bool = False) -> Decomposition:
    """Return the variance of each class's one-hot label, or of each label, by total variance.

    For class c, whose label is 1 with probability p_c and else 0::

        total      p̄_c (1 − p̄_c)
        aleatoric  mean_m p_mc (1 − p_mc)
        epistemic  var_m p_mc

    Each is from 0 to 1/4, in squared probability. It tells on which classes the members differ, and
    unlike an entropy it does not grow with the number of classes: the sums over the classes are
    from 0 to 1. Sale et al. 2024, arXiv 2401.00276 and (label by label) 2406.02354.

    Args:
        member_probs: ``[examples, members, classes, ...]``, or labels in place of classes.
        labels: whether these are labels of a multi-label prediction, whose probabilities need not
            sum to 1; the formula is the same. False by default.

    Returns:
        ``[examples, classes, ...]``; :meth:`Decomposition.summed` adds the classes.

    Raises:
        ValueError: as :func:`entropy_decomposition`.

    Example:
        >>> opposite = variance_decomposition(np.array([[[1.0, 0.0], [0.0, 1.0]]]))
        >>> opposite.epistemic.tolist(), opposite.summed().total.tolist()
        ([[0.25, 0.25]], [0.5])
    """

    def variances(probs: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        mean = mean_of_members(probs)
        centred = probs - mean[:, None]
        return mean * (1 - mean), _mean_product(probs, 1 - probs), _mean_product(centred, centred)

    return Decomposition(*_on_probabilities(variances, member_probs, labels))


def pairwise_kl(member_probs: MemberProbs, *, labels: bool = False) -> Float[np.ndarray, "..."]:
    """Return the expected KL divergence of two members drawn from the ensemble, in nats.

    The mean over all ordered pairs of members, a member with itself among them, of
    KL(p_m ‖ p_n) = Σ_c p_mc ln(p_mc / p_nc)::

        mean_mn KL(p_m ‖ p_n) = Σ_c cov_m(p_mc, ln p_mc)

    It is at least the mutual information: their difference is mean_m KL(p̄ ‖ p_m). Unlike that, it
    has no upper bound, so it still grows where all members are certain of different classes; it is
    infinite where a member excludes what another gives probability. Malinin 2019 (Uncertainty
    Estimation in Deep Learning, PhD thesis, Cambridge), Malinin and Gales 2021, arXiv 2002.07650.

    Args:
        member_probs: ``[examples, members, classes, ...]``, or labels in place of classes.
        labels: whether these are labels of a multi-label prediction; false by default.

    Returns:
        ``[examples, ...]``; for labels ``[examples, labels, ...]``, whose sum over axis 1 is that
        of all labels together.

    Raises:
        ValueError: as :func:`entropy_decomposition`.

    Example:
        >>> two = np.array([[[0.9, 0.1], [0.1, 0.9]], [[1.0, 0.0], [0.5, 0.5]]])
        >>> pairwise_kl(two).round(4).tolist()
        [0.8789, inf]
    """

    def divergences(probs: FloatArray) -> tuple[FloatArray]:
        if labels:
            return (_covariance_with_log(probs) + _covariance_with_log(1 - probs),)
        return (_covariance_with_log(probs).sum(1),)

    return _on_probabilities(divergences, member_probs, labels)[0]


def mean_of_members(values: FloatArray) -> FloatArray:
    """Return the mean over the members of ``[examples, members, ...]``, in float64.

    NumPy's own mean along an axis that is neither first nor last has a fraction of this speed.

    Example:
        >>> mean_of_members(np.array([[[1.0, 0.0], [0.0, 0.0]]])).tolist()
        [[0.5, 0.0]]
    """
    mean: FloatArray = np.einsum("em...->e...", values, dtype=np.float64) / values.shape[1]
    return mean


def _covariance_with_log(probs: FloatArray) -> FloatArray:
    """Return cov_m(p_m, ln p_m), from centred values, so that equal members give exactly 0."""
    nothing = probs == 0
    logs = np.log(np.where(nothing, 1.0, probs))
    logs -= mean_of_members(logs)[:, None]
    covariance = _mean_product(logs, probs - mean_of_members(probs)[:, None])
    np.maximum(covariance, 0.0, out=covariance)
    # If some but not all members have a probability of 0, it is infinite; if all, 0 ln 0 = 0.
    if nothing.any():
        covariance[nothing.any(1) & ~nothing.all(1)] = np.inf
    return covariance


def _log(probs: FloatArray) -> FloatArray:
    """Return logarithms that are finite for a probability of 0, so that 0 ln 0 is 0."""
    logs = np.maximum(probs, np.finfo(np.float64).tiny)
    return np.log(logs, out=logs)


def _mean_product(one: FloatArray, other: FloatArray) -> FloatArray:
    """Return the mean over the members of the product of two ``[examples, members, ...]``."""
    mean: FloatArray = np.einsum("em...,em...->e...", one, other) / one.shape[1]
    return mean


def _on_probabilities(
    function: Callable[[FloatArray], tuple[FloatArray, ...]], member_probs: Any, labels: bool
) -> list[FloatArray]:
    """Return the result of a function of probabilities, which are checked block by block."""
    if member_probs.ndim < (2 if labels else 3):
        outcomes = "..." if labels else "classes, ..."
        raise ValueError(
            f"member_probs must have the shape [examples, members, {outcomes}], got "
            f"{list(member_probs.shape)}"
        )
    if member_probs.size == 0:
        raise ValueError(
            "there must be at least one example, member and class, got the shape "
            f"{list(member_probs.shape)}"
        )

    def checked(probs: FloatArray) -> tuple[FloatArray, ...]:
        low, high = probs.min(), probs.max()
        if not (low >= 0 and high <= 1 + SUM_TOLERANCE):
            worst = low if not low >= 0 else high
            raise ValueError(
                f"member_probs must be from 0 to 1, got {worst:.6g}; give probabilities, not logits"
            )
        if not labels:
            sums = np.einsum("emc...->em...", probs)
            off = sums.flat[np.abs(sums - 1).argmax()]
            if abs(off - 1) > SUM_TOLERANCE:
                raise ValueError(
                    f"a member's probabilities must sum to 1 over the classes, got {off:.6g}; give "
                    "labels=True for multi-label predictions"
                )
        return function(probs)

    return by_row_blocks(checked, member_probs)
