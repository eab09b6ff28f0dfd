"""Base of predictions of classes and of labels: probabilities and their uncertainty by source."""

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

PerExampleArray = Float[np.ndarray, "examples ..."]


class Decomposed:
    """Probabilities of every member on every example, and their uncertainty by source.

    Subclasses are dataclasses, for classes or for labels.

    Attributes:
        member_probs: each member's probabilities, ``[examples, members, ...]``, float64.
        label_by_label: whether these are probabilities of labels, each present or not; otherwise
            axis 2 is that of classes, of which one is true.
        epistemic_share: of a distilled network, the share of the total uncertainty that it predicts
            to be epistemic, ``[examples, ...]``, 0 to 1; ``None``: it comes from the members.
    """

    member_probs: Float[np.ndarray, "examples members ..."]
    label_by_label = False
    epistemic_share: PerExampleArray | None

    def __len__(self) -> int:
        return len(self.member_probs)

    @property
    def members(self) -> int:
        """How many members."""
        return int(self.member_probs.shape[1])

    @cached_property
    def entropy(self) -> Decomposition:
        """All three in nats, from :func:`~batchensemble.uncertainty.entropy_decomposition`."""
        found = entropy_decomposition(self.member_probs, labels=self.label_by_label)
        if self.epistemic_share is None:
            return found
        epistemic = found.total * self.epistemic_share
        return Decomposition(found.total, found.total - epistemic, epistemic)

    @property
    def total(self) -> PerExampleArray:
        """Entropy of the mean probabilities, nats."""
        return self.entropy.total

    @property
    def aleatoric(self) -> PerExampleArray:
        """Mean of the members' entropies, nats."""
        return self.entropy.aleatoric

    @property
    def epistemic(self) -> PerExampleArray:
        """Mutual information of prediction and member, nats, at least 0."""
        return self.entropy.epistemic

    @cached_property
    def variance(self) -> Decomposition:
        """The decomposition of the variance of each class or label, ``[examples, classes, ...]``.

        In squared probability, 0 to 1/4, see
        :func:`batchensemble.predictions.uncertainty.variance_decomposition`.

        Raises:
            ValueError: the network was distilled, which leaves no members.
        """
        self._refuse_distilled()
        return variance_decomposition(self.member_probs, labels=self.label_by_label)

    @cached_property
    def pairwise_kl(self) -> PerExampleArray:
        """Expected KL divergence of two members, nats, at least the epistemic uncertainty.

        See :func:`batchensemble.predictions.uncertainty.pairwise_kl`.

        Raises:
            ValueError: the network was distilled, which leaves no members.
        """
        self._refuse_distilled()
        return pairwise_kl(self.member_probs, labels=self.label_by_label)

    def _refuse_distilled(self) -> None:
        if self.epistemic_share is not None:
            raise ValueError(
                "a distilled network predicts how its entropy divides by source, not what each "
                "member predicts; use total, aleatoric and epistemic, or the ensemble itself"
            )
