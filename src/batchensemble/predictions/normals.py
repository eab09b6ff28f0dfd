"""Members that each predict a normal distribution: networks trained with ``"gaussian_nll"``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import logsumexp, ndtr, ndtri

from batchensemble.core.arguments import between
from batchensemble.losses.numbers import HALF_LOG_TAU
from batchensemble.predictions.regression import (
    MemberNumbers,
    Numbers,
    RegressionPrediction,
    of_members,
)

HALVINGS = 60  # bisection steps for a quantile: more than the precision of float64


@dataclass
class Normals(RegressionPrediction):
    """An equal mixture of the members' normal distributions (Lakshminarayanan et al. 2017,
    arXiv 1612.01474).

    Attributes:
        means: ``[examples, members, ...]``, float64.
        deviations: the standard deviations, above 0, of the same shape.
        epistemic_share: of a distilled network, the share of the variance that it predicts to be
            epistemic, ``[examples, ...]``, 0 to 1; ``None`` otherwise.

    Example:
        >>> two = Normals(np.array([[-1.0, 1.0]]), np.array([[2.0, 2.0]]))
        >>> two.total.tolist(), abs(two.quantile(0.5)).round(12).tolist()
        ([5.0], [0.0])
    """

    means: MemberNumbers
    deviations: MemberNumbers
    epistemic_share: Numbers | None = None

    has_density = True

    @property
    def member_means(self) -> MemberNumbers:
        """The means."""
        return self.means

    @property
    def member_variances(self) -> MemberNumbers:
        """The squares of the deviations."""
        return self.deviations**2

    @cached_property
    def aleatoric(self) -> Numbers:
        """The mean of the members' variances, or what a distilled network predicts of it."""
        variance: Numbers = self.member_variances.mean(1)
        return variance if self.epistemic_share is None else variance * (1 - self.epistemic_share)

    @cached_property
    def epistemic(self) -> Numbers:
        """The variance of the members' means, or what a distilled network predicts of it."""
        if self.epistemic_share is None:
            return super().epistemic
        variance: Numbers = self.member_variances.mean(1) * self.epistemic_share
        return variance

    def cdf(self, y: Any) -> Numbers:
        """Return the mean of the members' distribution functions."""
        probability: Numbers = ndtr(self._standardised(y)).mean(1)
        return probability

    def log_density(self, y: Any) -> Numbers:
        """Return the logarithm of the mean density."""
        z = self._standardised(y)
        each = -HALF_LOG_TAU - np.log(self.deviations) - 0.5 * z**2
        density: Numbers = logsumexp(each, axis=1) - math.log(self.members)
        return density

    def quantile(self, q: float) -> Numbers:
        """Return the mixture's quantile, which lies between those of the members."""
        between("q", q, 0, 1)
        of_each = self.means + self.deviations * ndtri(q)
        low, high = of_each.min(1), of_each.max(1)
        for _ in range(HALVINGS):
            middle = 0.5 * (low + high)
            if not ((low < middle) & (middle < high)).any():
                break
            below = self.cdf(middle) < q
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        quantile: Numbers = 0.5 * (low + high)
        return quantile

    def draw(self, members: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Return draws from the members' distributions."""
        noise = generator.standard_normal(members.shape)
        return of_members(self.means, members) + of_members(self.deviations, members) * noise

    def _standardised(self, y: Any) -> np.ndarray:
        y = np.broadcast_to(np.asarray(y, np.float64), self.mean.shape)
        return (np.expand_dims(y, 1) - self.means) / self.deviations
