"""``predict``: what the members say, what they say together, and how much they differ."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.special import entr
from torch import Tensor

from batchensemble.admission import check_ensemble, check_inputs_fit, place_of
from batchensemble.batches import PREDICTION_BATCH
from batchensemble.checks import whole_number
from batchensemble.ensembles import Ensemble
from batchensemble.inputs import Inputs
from batchensemble.modes import evaluating
from batchensemble.sources import MEMORY_LIMIT, open_batches, open_inputs
from batchensemble.targets import parted

Members = Float[np.ndarray, "examples members classes"]
Probabilities = Float[np.ndarray, "examples classes"]
PerExample = Float[np.ndarray, "examples"]


@dataclass
class Prediction:
    """The class probabilities of every member on every example.

    The uncertainties are entropies in nats (Depeweg et al. 2018, arXiv 1710.07283): ``total`` is
    the entropy of the mean, ``aleatoric`` the mean of the members' entropies, and ``epistemic``
    their difference, the mutual information of class and member. Each is from 0 to
    ``log(classes)``.

    Attributes:
        member_probs: ``[examples, members, classes]``, float64.

    Example:
        >>> one = Prediction(np.array([[[1.0, 0.0], [0.0, 1.0]]]))
        >>> one.probs.tolist(), one.aleatoric.tolist(), round(float(one.epistemic[0]), 4)
        ([[0.5, 0.5]], [0.0], 0.6931)
    """

    member_probs: Members

    def __len__(self) -> int:
        return len(self.member_probs)

    @property
    def members(self) -> int:
        """How many members."""
        return int(self.member_probs.shape[1])

    @cached_property
    def probs(self) -> Probabilities:
        """The members' mean probabilities, ``[examples, classes]``."""
        mean: Probabilities = self.member_probs.mean(1)
        return mean

    @cached_property
    def labels(self) -> Int[np.ndarray, "examples"]:
        """The most probable class of each example."""
        labels: Int[np.ndarray, "examples"] = self.probs.argmax(1)
        return labels

    @cached_property
    def total(self) -> PerExample:
        """Entropy of the mean probabilities, nats."""
        entropy: PerExample = entr(self.probs).sum(-1)
        return entropy

    @cached_property
    def aleatoric(self) -> PerExample:
        """Mean of the members' entropies, nats."""
        entropy: PerExample = entr(self.member_probs).sum(-1).mean(-1)
        return entropy

    @cached_property
    def epistemic(self) -> PerExample:
        """Mutual information of class and member, nats; rounding never takes it below 0."""
        information: PerExample = np.maximum(self.total - self.aleatoric, 0.0)
        return information


def predict(
    model: Ensemble,
    X: Any,
    *,
    batch_size: int = PREDICTION_BATCH,
    target: str | None = None,
    memory_limit: int = MEMORY_LIMIT,
) -> Prediction:
    """Return the class probabilities of every member on every example.

    Args:
        model: any ensemble whose outputs are logits, ``[batch, members, classes]``.
        X: an array or tensor ``[examples, features...]``, a data frame or Arrow table, a path, or a
            ``Dataset`` or ``DataLoader`` of inputs, of pairs whose first part are the inputs, or of
            dictionaries; see :func:`batchensemble.fit`.
        batch_size: examples a forward pass; a ``DataLoader`` has its own.
        target: a column or key that is no input.
        memory_limit: bytes; larger files are streamed.

    Raises:
        TypeError: ``X`` holds no numbers.
        ValueError: ``X`` is empty, not finite, or does not fit the network.

    Example:
        >>> from batchensemble import BatchEnsemble
        >>> model = BatchEnsemble(torch.nn.Linear(2, 3), members=4)
        >>> predict(model, np.zeros((5, 2))).member_probs.shape
        (5, 4, 3)
    """
    check_ensemble(model)
    whole_number("batch_size", batch_size)
    place = place_of(model)
    return _prediction(
        model, open_inputs(X, batch_size, target=target, memory_limit=memory_limit, **place)
    )


def predict_pairs(
    model: Ensemble,
    data: Any,
    *,
    target: str | None = None,
    class_names: Sequence[str] = (),
    memory_limit: int = MEMORY_LIMIT,
) -> tuple[Prediction, Int[np.ndarray, "examples"]]:
    """Return the prediction on labelled data, and the labels in the same order.

    Args:
        model: any ensemble.
        data: inputs and targets, see :func:`batchensemble.fit`.
        target: the column or key of the targets.
        class_names: the classes in the order of their numbers, where the targets are text.
        memory_limit: bytes; larger files are streamed.
    """
    check_ensemble(model)
    batches = open_batches(
        data,
        PREDICTION_BATCH,
        target=target,
        class_names=class_names,
        memory_limit=memory_limit,
        **place_of(model),
    )
    labels: list[Tensor] = []

    def inputs_only() -> Iterable[Inputs]:
        for inputs, targets in batches:
            labels.append(parted(targets)[0].cpu())
            yield inputs

    prediction = _prediction(model, inputs_only())
    return prediction, torch.cat(labels).numpy()


def _prediction(model: Ensemble, batches: Iterable[Inputs]) -> Prediction:
    with evaluating(model), torch.no_grad():
        parts = [
            _member_probs(model, inputs, first=number == 0) for number, inputs in enumerate(batches)
        ]
    if not parts:
        raise ValueError("there must be at least one example to predict, got none")
    return Prediction(np.concatenate(parts))


def _member_probs(model: Ensemble, inputs: Inputs, *, first: bool) -> Members:
    logits = check_inputs_fit(model, inputs) if first else model(inputs)
    if logits.dim() != 3 or logits.shape[-1] < 2:
        raise ValueError(
            "prediction takes outputs of shape [batch, members, classes] with at least 2 classes, "
            f"the network gives {list(logits.shape)}"
        )
    # float64: a confident float32 softmax rounds to 0, whose log is infinite.
    probs: Members = logits.double().softmax(-1).cpu().numpy()
    return probs
