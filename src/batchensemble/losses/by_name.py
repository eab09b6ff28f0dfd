"""Which loss a training minimises: by name, or a function of the user's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from torch import Tensor

from batchensemble.core.arguments import one_of
from batchensemble.losses.base import Custom, EnsembleLoss
from batchensemble.losses.classes import ClassLoss, CrossEntropy, Ordinal, cross_entropy
from batchensemble.losses.numbers import (
    MSE,
    BinaryCrossEntropy,
    GaussianNLL,
    Huber,
    NumberLoss,
    Quantile,
)

LossOn = Literal["members", "mean_logits"]
Loss = Callable[[Tensor, Tensor], Tensor]

LOSSES: dict[str, type[EnsembleLoss]] = {
    "cross_entropy": CrossEntropy,
    "binary_cross_entropy": BinaryCrossEntropy,
    "mse": MSE,
    "huber": Huber,
    "gaussian_nll": GaussianNLL,
    "quantile": Quantile,
    "ordinal": Ordinal,
}


def as_loss(
    loss: str | Loss,
    *,
    class_weight: Any = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
) -> EnsembleLoss:
    """Return a loss that knows how to score the ensemble and which targets it takes.

    Args:
        loss: a name of :data:`LOSSES`, one of these losses, or a function from outputs
            ``[batch, members, ...]`` and targets to ``[batch, members]``.
        class_weight: of the cross-entropy, see :class:`CrossEntropy`.
        label_smoothing: of the cross-entropy.
        ignore_index: of the cross-entropy and the ordinal loss.

    Raises:
        ValueError: an unknown name, or an option of another loss.

    Example:
        >>> as_loss("huber")
        Huber(delta=1.0)
        >>> as_loss("mse", label_smoothing=0.1)
        Traceback (most recent call last):
        ValueError: label_smoothing= is of loss='cross_entropy', got 'mse'; leave it out
    """
    if isinstance(loss, EnsembleLoss):
        found = loss
    elif loss is cross_entropy:  # the function reads one-hot rows as classes of each member
        found = CrossEntropy()
    else:
        found = Custom(loss) if callable(loss) else LOSSES[one_of("loss", loss, LOSSES)]()
    given: dict[str, Any] = {}
    if class_weight is not None:
        given["class_weight"] = class_weight
    if label_smoothing:
        given["label_smoothing"] = label_smoothing
    if ignore_index is not None:
        given["ignore_index"] = ignore_index
    if not given:
        return found
    foreign = [name for name in given if not hasattr(found, name)]
    if foreign or not isinstance(found, ClassLoss):
        name = next(iter(foreign or given))
        raise ValueError(f"{name}= is of loss='cross_entropy', got {loss!r}; leave it out")
    return replace(found, **given)


def outputs_for(loss: EnsembleLoss, classes: int) -> int:
    """Return how many outputs a network has for one target.

    Args:
        loss: that it is trained with.
        classes: how many there are; 0 where the targets are numbers.

    Example:
        >>> outputs_for(as_loss("gaussian_nll"), 0), outputs_for(as_loss("ordinal"), 5)
        (2, 4)
    """
    if isinstance(loss, NumberLoss):
        return loss.outputs_a_target
    return classes - 1 if isinstance(loss, Ordinal) else classes


def with_balance(loss: EnsembleLoss, batches: Any) -> EnsembleLoss:
    """Return the loss with ``class_weight="balanced"`` worked out from training data.

    Args:
        loss: any.
        batches: of the data, with ``targets`` in memory, or ``class_counts`` of what is streamed.

    Raises:
        ValueError: they have neither.
    """
    if not isinstance(loss, CrossEntropy) or loss.class_weight != "balanced":
        return loss
    counts = getattr(batches, "class_counts", None)
    if counts is not None:
        return loss.balanced(counts)
    targets: Tensor | None = getattr(batches, "targets", None)
    if targets is None:
        raise ValueError(
            "class_weight='balanced' counts the classes of arrays, tables and files; for other "
            "data give the weights as a list"
        )
    return loss.balanced(targets)


def make_loss(loss: str | Loss, loss_on: LossOn = "members", *, per_member: bool = False) -> Loss:
    """Return the function ``loss(outputs, targets)`` that training minimises.

    Args:
        loss: a name of :data:`LOSSES`, or a function from ``[batch, members, ...]`` and targets to
            ``[batch, members]``.
        loss_on: ``"members"``: each member has its own loss. ``"mean_logits"``: the loss of the
            members' mean output, as in the notebook; members are then free to be wrong one by
            one, and usually are.
        per_member: whether targets are ``[batch, members, ...]``, each member's own.

    Raises:
        ValueError: an unknown name.
    """
    function: Loss = loss if callable(loss) else LOSSES[one_of("loss", loss, LOSSES)]()
    if per_member and isinstance(function, EnsembleLoss) and "per_member" in _parameters(function):
        of_members: Any = function
        function = partial(of_members, per_member=True)
    one_of("loss_on", loss_on, ("members", "mean_logits"))
    if loss_on == "members":
        return function

    def on_mean_logits(outputs: Tensor, targets: Tensor) -> Tensor:
        return function(outputs.mean(1, keepdim=True), targets)

    return on_mean_logits


def _parameters(loss: EnsembleLoss) -> Collection[str]:
    """Return the names of what a loss takes; one of the user's own may know no members' targets."""
    return inspect.signature(loss).parameters.keys()
