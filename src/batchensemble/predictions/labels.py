"""Multi-label predictions: any number of labels for each example."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from batchensemble.core.printed_tables import first_examples
from batchensemble.predictions.variances import Decomposed

MemberLabels = Float[np.ndarray, "examples members ..."]
PerLabel = Float[np.ndarray, "examples ..."]


@dataclass
class MultiLabelPrediction(Decomposed):
    """The probability of each label by every member.

    The uncertainties are entropies in nats, of each label separately and from 0 to ``log 2``;
    ``epistemic`` is the mutual information of label and member.

    Attributes:
        member_probs: each member's probabilities, ``[examples, members, labels, ...]``, float64;
            ``[examples, members]`` with one label.
        epistemic_share: of a distilled network, the share of ``total`` that it predicts to be
            epistemic, ``[examples, labels, ...]``, 0 to 1; ``None`` otherwise.

    Example:
        >>> one = MultiLabelPrediction(np.array([[[1.0, 0.9], [0.0, 0.9]]]))
        >>> one.probs.tolist(), one.labels.tolist(), one.epistemic.round(4).tolist()
        ([[0.5, 0.9]], [[0, 1]], [[0.6931, 0.0]])
    """

    member_probs: MemberLabels
    epistemic_share: PerLabel | None = None
    label_by_label = True

    def _repr_html_(self) -> str:
        caption = f"{type(self).__name__}: {len(self):,} examples, {self.members} members"
        names = ("probs", "total", "aleatoric", "epistemic")
        return first_examples(caption, {name: getattr(self, name) for name in names})

    @cached_property
    def probs(self) -> PerLabel:
        """The members' mean probabilities, ``[examples, labels, ...]``."""
        mean: PerLabel = self.member_probs.mean(1)
        return mean

    @cached_property
    def labels(self) -> Int[np.ndarray, "examples ..."]:
        """1 where a label has a probability above 0.5, else 0."""
        return (self.probs > 0.5).astype(np.int64)
