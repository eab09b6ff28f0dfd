"""Members that each predict one number: networks trained with a squared or a Huber error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from batchensemble.core.arguments import between
from batchensemble.predictions.regression import (
    MemberNumbers,
    Numbers,
    RegressionPrediction,
    of_members,
)


@dataclass
class Points(RegressionPrediction):
    """A predicted number by each member.

    Such networks do not predict the noise: the aleatoric part is 0, and an interval covers only the
    differences between members. Use conformal intervals, or train with ``loss="gaussian_nll"``.

    Attributes:
        values: ``[examples, members, ...]``, float64.

    Example:
        >>> two = Points(np.array([[1.0, 3.0]]))
        >>> two.mean.tolist(), two.epistemic.tolist(), two.aleatoric.tolist()
        ([2.0], [1.0], [0.0])
    """

    values: MemberNumbers

    @property
    def member_means(self) -> MemberNumbers:
        """The numbers."""
        return self.values

    @property
    def member_variances(self) -> MemberNumbers:
        """Zeros."""
        return np.zeros_like(self.values)

    def cdf(self, y: Any) -> Numbers:
        """Return the share of members whose number is at most ``y``."""
        y = np.broadcast_to(np.asarray(y, np.float64), self.mean.shape)
        share: Numbers = (self.values <= np.expand_dims(y, 1)).mean(1)
        return share

    def quantile(self, q: float) -> Numbers:
        """Return the members' quantile, between two of them in a straight line."""
        between("q", q, 0, 1)
        quantile: Numbers = np.quantile(self.values, q, axis=1)
        return quantile

    def draw(self, members: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Return the numbers of the members."""
        return of_members(self.values, members)
