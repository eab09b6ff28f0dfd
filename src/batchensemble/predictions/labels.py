"""Labels that are there or not, any number of them for an example."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int
from scipy.special import entr

MemberLabels = Float[np.ndarray, "examples members ..."]
PerLabel = Float[np.ndarray, "examples ..."]


@dataclass
class MultiLabelPrediction:
    """How probable each label is, by each member.

    The uncertainties are entropies in nats, of each label on its own and from 0 to ``log 2``;
    ``epistemic`` is the mutual information of label and member.

    Attributes:
        member_probs: ``[examples, members, labels, ...]``, float64; ``[examples, members]`` where
            there is one label.

    Example:
        >>> one = MultiLabelPrediction(np.array([[[1.0, 0.9], [0.0, 0.9]]]))
        >>> one.probs.tolist(), one.labels.tolist(), one.epistemic.round(4).tolist()
        ([[0.5, 0.9]], [[0, 1]], [[0.6931, 0.0]])
    """

    member_probs: MemberLabels

    def __len__(self) -> int:
        return len(self.member_probs)

    @property
    def members(self) -> int:
        """How many members."""
        return int(self.member_probs.shape[1])

    @cached_property
    def probs(self) -> PerLabel:
        """The members' mean probabilities, ``[examples, labels, ...]``."""
        mean: PerLabel = self.member_probs.mean(1)
        return mean

    @cached_property
    def labels(self) -> Int[np.ndarray, "examples ..."]:
        """1 where a label is more probable than not, else 0."""
        return (self.probs > 0.5).astype(np.int64)

    @cached_property
    def total(self) -> PerLabel:
        """Entropy of the mean probability, nats."""
        return _entropy(self.probs)

    @cached_property
    def aleatoric(self) -> PerLabel:
        """Mean of the members' entropies, nats."""
        entropy: PerLabel = _entropy(self.member_probs).mean(1)
        return entropy

    @cached_property
    def epistemic(self) -> PerLabel:
        """Mutual information of label and member, nats; rounding never takes it below 0."""
        information: PerLabel = np.maximum(self.total - self.aleatoric, 0.0)
        return information


def _entropy(probs: np.ndarray) -> np.ndarray:
    entropy: np.ndarray = entr(probs) + entr(1 - probs)
    return entropy
