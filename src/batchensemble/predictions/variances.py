"""What predictions of classes and of labels have in common: members whose doubt is taken apart."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from jaxtyping import Float

from batchensemble.predictions.uncertainty import (
    Decomposition,
    entropy_decomposition,
    pairwise_kl,
    variance_decomposition,
)

PerExample = Float[np.ndarray, "examples ..."]


class Decomposed:
    """Probabilities of every member on every example, and how much of the doubt is whose.

    Subclasses are dataclasses, and say what the probabilities are of.

    Attributes:
        member_probs: ``[examples, members, ...]``, float64.
        label_by_label: whether each probability is of a label that is there or not; otherwise axis
            2 is that of classes, of which one is right.
    """

    member_probs: Float[np.ndarray, "examples members ..."]
    label_by_label = False

    def __len__(self) -> int:
        return len(self.member_probs)

    @property
    def members(self) -> int:
        """How many members."""
        return int(self.member_probs.shape[1])

    @cached_property
    def entropy(self) -> Decomposition:
        """All three in nats, :func:`~batchensemble.uncertainty.entropy_decomposition`."""
        return entropy_decomposition(self.member_probs, labels=self.label_by_label)

    @property
    def total(self) -> PerExample:
        """Entropy of the mean probabilities, nats."""
        return self.entropy.total

    @property
    def aleatoric(self) -> PerExample:
        """Mean of the members' entropies, nats."""
        return self.entropy.aleatoric

    @property
    def epistemic(self) -> PerExample:
        """Mutual information of prediction and member, nats; rounding never takes it below 0."""
        return self.entropy.epistemic

    @cached_property
    def variance(self) -> Decomposition:
        """The same of each class or label, ``[examples, classes or labels, ...]``.

        In squared probability, 0 to 1/4, see
        :func:`batchensemble.predictions.uncertainty.variance_decomposition`.
        """
        return variance_decomposition(self.member_probs, labels=self.label_by_label)

    @cached_property
    def pairwise_kl(self) -> PerExample:
        """How far two members are apart, nats, at least the epistemic uncertainty.

        See :func:`batchensemble.predictions.uncertainty.pairwise_kl`.
        """
        return pairwise_kl(self.member_probs, labels=self.label_by_label)
