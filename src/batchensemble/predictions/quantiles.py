"""Members that each predict some quantiles: networks trained with the pinball loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import ndtri

from batchensemble.core.arguments import between
from batchensemble.predictions.regression import (
    MemberNumbers,
    Numbers,
    RegressionPrediction,
    of_members,
)

CLOSE = 1e-9  # levels this close are equal up to rounding


@dataclass
class Quantiles(RegressionPrediction):
    """Quantiles by each member at the levels that it was trained on.

    Crossing quantiles are sorted (Chernozhukov et al. 2010, doi 10.3982/ECTA7880). The ensemble's
    quantile is the mean of the members' (Vincent's average), which keeps their width; between two
    levels it is interpolated linearly. Beyond the outermost levels it is not defined: there
    ``quantile`` raises, ``cdf`` stays at the outermost level, and ``sample`` draws the outermost
    quantile.

    A member's mean is that of its quantile function, constant beyond the outermost levels, and its
    variance that of a normal distribution with the same distance between them; 0 with one level.

    Attributes:
        values: ``[examples, members, levels, ...]``, float64.
        levels: levels of the quantiles, ascending, above 0 and below 1, ``[levels]``.

    Example:
        >>> one = Quantiles(np.array([[[1.0, 2.0, 4.0]]]), (0.1, 0.5, 0.9))
        >>> one.quantile(0.7).round(12).tolist(), one.cdf(1.5).round(12).tolist()
        ([3.0], [0.3])
    """

    values: Float[np.ndarray, "examples members levels ..."]
    levels: Sequence[float]

    def __post_init__(self) -> None:
        order = np.argsort(self.levels)
        self.levels = tuple(float(self.levels[index]) for index in order)
        self.values = np.sort(self.values, axis=2)

    @cached_property
    def member_means(self) -> MemberNumbers:
        """The means of the members' quantile functions."""
        edges = np.array([0.0, *self.levels, 1.0])
        # Each level has the weight of half the way to its neighbours; the outermost all beyond.
        weights = (edges[2:] - edges[:-2]) / 2
        weights[0] += edges[1] / 2
        weights[-1] += (1 - edges[-2]) / 2
        means: MemberNumbers = np.moveaxis(self.values, 2, -1) @ weights
        return means

    @cached_property
    def member_variances(self) -> MemberNumbers:
        """The variances of normal distributions of the same width."""
        if len(self.levels) == 1:
            return np.zeros_like(self.values[:, :, 0])
        width = self.values[:, :, -1] - self.values[:, :, 0]
        variances: MemberNumbers = (width / (ndtri(self.levels[-1]) - ndtri(self.levels[0]))) ** 2
        return variances

    @cached_property
    def together(self) -> Float[np.ndarray, "examples levels ..."]:
        """The members' mean quantiles."""
        mean: Float[np.ndarray, "examples levels ..."] = self.values.mean(1)
        return mean

    @property
    def widest(self) -> float:
        """The coverage of the widest interval."""
        return max(0.0, 1 - 2 * max(self.levels[0], 1 - self.levels[-1]))

    def quantile(self, q: float) -> Numbers:
        """Return the quantile, interpolated linearly between two levels."""
        between("q", q, 0, 1)
        first, last = self.levels[0], self.levels[-1]
        if not first - CLOSE <= q <= last + CLOSE:
            raise ValueError(
                f"q must be from {first:g} to {last:g}, the levels that the network was trained "
                f"on, got {q:g}; train with loss=Quantile(levels) for others"
            )
        return self._at(self.together, np.full(self.mean.shape, min(max(q, first), last)))

    def cdf(self, y: Any) -> Numbers:
        """Return the level whose quantile is ``y``; beyond the outermost levels, those."""
        y = np.broadcast_to(np.asarray(y, np.float64), self.mean.shape)
        quantiles = np.moveaxis(self.together, 1, 0)
        levels = np.full(y.shape, self.levels[0])
        for low, high, below, above in zip(
            quantiles, quantiles[1:], self.levels, self.levels[1:], strict=False
        ):
            step = np.where(high > low, high - low, 1)
            part = np.where(high > low, np.clip((y - low) / step, 0, 1), y >= low)
            levels = levels + part * (above - below)
        return levels

    def draw(self, members: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Return draws from the members' quantile functions."""
        uniform = np.clip(generator.random(members.shape), self.levels[0], self.levels[-1])
        chosen = np.stack(
            [of_members(self.values[:, :, level], members) for level in range(len(self.levels))], 1
        )
        return self._at(chosen, uniform)

    def _at(self, quantiles: np.ndarray, q: np.ndarray) -> np.ndarray:
        """Return the quantile functions ``[first, levels, ...]`` at ``q``, ``[first, ...]``."""
        values = np.moveaxis(quantiles, 1, 0)
        found = values[0].copy()
        for low, high, below, above in zip(
            values, values[1:], self.levels, self.levels[1:], strict=False
        ):
            found += (high - low) * np.clip((q - below) / (above - below), 0, 1)
        return found
