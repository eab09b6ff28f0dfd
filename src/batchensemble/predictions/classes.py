"""Class probabilities of every member, and their uncertainty by source."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int
from scipy.special import entr

from batchensemble.core.printed_tables import first_examples
from batchensemble.predictions.uncertainty import mean_of_members
from batchensemble.predictions.variances import Decomposed, PerExampleArray

Members = Float[np.ndarray, "examples members classes ..."]
Probabilities = Float[np.ndarray, "examples classes ..."]


@dataclass
class Prediction(Decomposed):
    """The class probabilities of every member on every example.

    The uncertainties are entropies in nats (Depeweg et al. 2018, arXiv 1710.07283): ``total`` is
    the entropy of the mean, ``aleatoric`` the mean of the members' entropies, and ``epistemic``
    their difference, the mutual information of class and member. Each is from 0 to
    ``log(classes)``.

    With a class for each token or pixel, those are further axes at the end.

    For a model calibrated after averaging, ``together`` holds the calibrated probabilities.
    ``total`` is then their entropy, while ``aleatoric`` and ``epistemic`` stay those of the
    uncalibrated members, and no longer add up to ``total``.

    Attributes:
        member_probs: each member's probabilities, ``[examples, members, classes, ...]``, float64.
        together: the ensemble's probabilities if they are not the members' mean,
            ``[examples, classes, ...]``; ``None`` otherwise.
        epistemic_share: of a distilled network, the share of ``total`` that it predicts to be
            epistemic, ``[examples, ...]``, 0 to 1; ``None`` otherwise.

    Example:
        >>> one = Prediction(np.array([[[1.0, 0.0], [0.0, 1.0]]]))
        >>> one.probs.tolist(), one.aleatoric.tolist(), round(float(one.epistemic[0]), 4)
        ([[0.5, 0.5]], [0.0], 0.6931)
    """

    member_probs: Members
    together: Probabilities | None = None
    epistemic_share: PerExampleArray | None = None

    def _repr_html_(self) -> str:
        examples, members, classes = self.member_probs.shape[:3]
        caption = f"Prediction: {examples:,} examples, {members} members, {classes} classes"
        top = {"class": self.labels} if self.labels.ndim == 1 else {}
        columns = {
            **top,
            "probability": self.confidence,
            "total": self.total,
            "aleatoric": self.aleatoric,
            "epistemic": self.epistemic,
        }
        return first_examples(caption, columns)

    @cached_property
    def probs(self) -> Probabilities:
        """The ensemble's probabilities, ``[examples, classes, ...]``: ``together`` or the mean."""
        return self.mean if self.together is None else self.together

    @property
    def mean(self) -> Probabilities:
        """The members' mean probabilities, ``[examples, classes, ...]``."""
        return mean_of_members(self.member_probs)

    @cached_property
    def labels(self) -> Int[np.ndarray, "examples ..."]:
        """The most probable class of each example, or of each of its entries."""
        labels: Int[np.ndarray, "examples ..."] = self.probs.argmax(1)
        return labels

    @cached_property
    def confidence(self) -> PerExampleArray:
        """The probability of the most probable class, ``[examples, ...]``."""
        confidence: PerExampleArray = np.take_along_axis(self.probs, self.labels[:, None], 1)[:, 0]
        return confidence

    @cached_property
    def member_labels(self) -> Int[np.ndarray, "examples members ..."]:
        """The most probable class by each member, ``[examples, members, ...]``."""
        labels: Int[np.ndarray, "examples members ..."] = self.member_probs.argmax(2)
        return labels

    @property
    def total(self) -> PerExampleArray:
        """Entropy of the ensemble's probabilities, nats."""
        if self.together is None:
            return super().total
        entropy: PerExampleArray = entr(self.probs).sum(1)
        return entropy
