"""Look losses up by name, and build the function that training minimises."""

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
    """Return a loss object for a name, a loss or a function.

    Args:
        loss: a name in :data:`LOSSES`, a loss object, or a function from outputs
            ``[batch, members, ...]`` and targets ``[batch, ...]`` to ``[batch, members]``.
        class_weight: weight of each class in the cross-entropy, see :class:`CrossEntropy`; by
            default all are 1.
        label_smoothing: share of the target that the cross-entropy spreads over all classes, 0 to
            1; by default 0.
        ignore_index: class number that marks entries to be ignored, in the cross-entropy and the
            ordinal loss; by default none.

    Raises:
        ValueError: the name is unknown, or the loss does not have the option.

    Example:
        >>> as_loss("huber")
        Huber(delta=1.0)
        >>> as_loss("mse", label_smoothing=0.1)
        Traceback (most recent call last):
        ValueError: label_smoothing= is an option of loss='cross_entropy', got 'mse'; omit it
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
        raise ValueError(f"{name}= is an option of loss='cross_entropy', got {loss!r}; omit it")
    return replace(found, **given)


def outputs_for(loss: EnsembleLoss, classes: int) -> int:
    """Return the number of outputs that a network needs for one target.

    Args:
        loss: the loss that it is trained with.
        classes: number of classes; 0 in regression.

    Example:
        >>> outputs_for(as_loss("gaussian_nll"), 0), outputs_for(as_loss("ordinal"), 5)
        (2, 4)
    """
    if isinstance(loss, NumberLoss):
        return loss.outputs_a_target
    return classes - 1 if isinstance(loss, Ordinal) else classes


def with_balance(loss: EnsembleLoss, batches: Any) -> EnsembleLoss:
    """Return the loss with ``class_weight="balanced"`` computed from the training data.

    Args:
        loss: any loss; others than such a cross-entropy are returned unchanged.
        batches: the training data, with ``targets`` in memory or ``class_counts`` if streamed.

    Raises:
        ValueError: the data have neither.
    """
    if not isinstance(loss, CrossEntropy) or loss.class_weight != "balanced":
        return loss
    counts = getattr(batches, "class_counts", None)
    if counts is not None:
        return loss.balanced(counts)
    targets: Tensor | None = getattr(batches, "targets", None)
    if targets is None:
        raise ValueError(
            "class_weight='balanced' needs arrays, tables or files, whose classes can be counted; "
            "for other data give the weights as a list"
        )
    return loss.balanced(targets)


def make_loss(loss: str | Loss, loss_on: LossOn = "members", *, per_member: bool = False) -> Loss:
    """Return the function ``loss(outputs, targets)`` that training minimises.

    Args:
        loss: a name in :data:`LOSSES`, or a function from outputs ``[batch, members, ...]`` and
            targets to ``[batch, members]``.
        loss_on: ``"members"``: the loss of each member. ``"mean_logits"``: the loss of the
            members' mean output; the members alone may then be inaccurate, and usually are.
        per_member: whether each member has its own targets, ``[batch, members, ...]``.

    Raises:
        ValueError: the name is unknown.
    """
    function: Loss = loss if callable(loss) else LOSSES[one_of("loss", loss, LOSSES)]()
    if per_member and isinstance(function, EnsembleLoss) and "per_member" in _parameters(function):
        unbound: Any = function
        function = partial(unbound, per_member=True)
    one_of("loss_on", loss_on, ("members", "mean_logits"))
    if loss_on == "members":
        return function

    def on_mean_logits(outputs: Tensor, targets: Tensor) -> Tensor:
        return function(outputs.mean(1, keepdim=True), targets)

    return on_mean_logits


def _parameters(loss: EnsembleLoss) -> Collection[str]:
    """Return the parameter names of a loss; a user's own may not support ``per_member``."""
    return inspect.signature(loss).parameters.keys()
