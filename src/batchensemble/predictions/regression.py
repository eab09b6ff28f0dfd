"""Predicted numbers of an ensemble as distributions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float

from batchensemble.core.arguments import between, whole_number
from batchensemble.core.printed_tables import first_examples

Numbers = Float[np.ndarray, "examples ..."]
MemberNumbers = Float[np.ndarray, "examples members ..."]


class RegressionPrediction(ABC):
    """The ensemble's predicted distribution of each target of each example.

    Arrays are ``[examples]``, or ``[examples, targets, ...]`` with several targets, in the targets'
    unit; variances in its square.

    By the law of total variance (Depeweg et al. 2018, arXiv 1710.07283) ``total``, the variance of
    the members' mixture, is ``aleatoric``, the mean of their variances, plus ``epistemic``, the
    variance of their means. The last is over M members, as that of the mixture is.
    """

    has_density = False  # whether it has a density, and with it an NLL

    @property
    @abstractmethod
    def member_means(self) -> MemberNumbers:
        """The mean that each member predicts, ``[examples, members, ...]``."""

    @property
    @abstractmethod
    def member_variances(self) -> MemberNumbers:
        """The variance that each member predicts, ``[examples, members, ...]``."""

    @abstractmethod
    def cdf(self, y: Any) -> Numbers:
        """Return the probability of a target of at most ``y``, of the shape of :attr:`mean`.

        Args:
            y: numbers that broadcast to the shape of :attr:`mean`.
        """

    @abstractmethod
    def quantile(self, q: float) -> Numbers:
        """Return the quantile: the number that a target is below with probability ``q``.

        Args:
            q: above 0 and below 1.

        Raises:
            ValueError: ``q`` is out of range, or beyond the levels that the network was trained on.
        """

    @abstractmethod
    def draw(self, members: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Return a draw for each target, ``[draws, examples, ...]``.

        Args:
            members: number of the member to draw each from, in the same shape.
            generator: NumPy generator for the draws.
        """

    def __len__(self) -> int:
        return len(self.member_means)

    @property
    def members(self) -> int:
        """The number of members."""
        return int(self.member_means.shape[1])

    def _repr_html_(self) -> str:
        caption = f"{type(self).__name__}: {len(self):,} examples, {self.members} members"
        names = ("mean", "deviation", "aleatoric", "epistemic")
        return first_examples(caption, {name: getattr(self, name) for name in names})

    @cached_property
    def mean(self) -> Numbers:
        """The mean of the members' means."""
        mean: Numbers = self.member_means.mean(1)
        return mean

    @cached_property
    def aleatoric(self) -> Numbers:
        """The mean of the members' variances: noise that more data do not reduce."""
        variance: Numbers = self.member_variances.mean(1)
        return variance

    @cached_property
    def epistemic(self) -> Numbers:
        """The variance of the members' means."""
        variance: Numbers = self.member_means.var(1)
        return variance

    @cached_property
    def total(self) -> Numbers:
        """The variance of the members' mixture."""
        variance: Numbers = self.aleatoric + self.epistemic
        return variance

    @cached_property
    def deviation(self) -> Numbers:
        """The standard deviation of the members' mixture."""
        deviation: Numbers = np.sqrt(self.total)
        return deviation

    def interval(self, coverage: float = 0.9) -> tuple[Numbers, Numbers]:
        """Return the bounds of the central interval with this probability.

        Args:
            coverage: probability of the interval, above 0 and below 1, 0.9 by default.

        Raises:
            ValueError: ``coverage`` is out of range, or beyond the levels that the network was
                trained on.
        """
        between("coverage", coverage, 0, 1)
        side = (1 - coverage) / 2
        return self.quantile(side), self.quantile(1 - side)

    def sample(self, n: int, *, seed: int | None = None) -> Float[np.ndarray, "draws examples ..."]:
        """Return random draws of the targets, each from a random member.

        Args:
            n: number of draws for each target.
            seed: seed of the random draws; ``None``, the default, draws differently each time.
        """
        whole_number("n", n)
        generator = np.random.default_rng(seed)
        return self.draw(generator.integers(self.members, size=(n, *self.mean.shape)), generator)

    def log_density(self, y: Any) -> Numbers:
        """Return the logarithm of the mixture's density at ``y``, in nats.

        Raises:
            ValueError: it has no density.
        """
        raise ValueError(
            f"{type(self).__name__} have no density and so no NLL; train with loss='gaussian_nll' "
            "for one"
        )


def of_members(values: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Return the value of its member for each draw.

    Args:
        values: ``[examples, members, ...]``.
        members: indices of members, ``[draws, examples, ...]``.
    """
    by_member = np.moveaxis(values, 1, 0)
    return np.take_along_axis(by_member, members, 0)
