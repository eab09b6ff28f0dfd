"""Losses of every member on every example: ``[batch, members, ...]`` to ``[batch, members]``.

``fit`` averages a loss over the examples and sums it over the members, so that each member gets
the gradient that it would get alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from batchensemble.checks import one_of

LossOn = Literal["members", "mean_logits"]
Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(
    outputs: Float[Tensor, "batch members classes"],
    targets: Int[Tensor, "batch"] | Int[Tensor, "batch members"],
) -> Float[Tensor, "batch members"]:
    """Return the cross-entropy of each member on each example, in nats.

    Args:
        outputs: the members' logits.
        targets: classes; one an example, or one for each member.

    Example:
        >>> import torch
        >>> cross_entropy(torch.zeros(1, 2, 4), torch.tensor([3]))
        tensor([[1.3863, 1.3863]])
    """
    batch, members = outputs.shape[:2]
    if targets.dim() == 2:
        losses = F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction="none")
        return losses.view(batch, members)
    # Members first: that is how the rows lie in memory, so flattening them copies nothing.
    rows = outputs.transpose(0, 1).flatten(0, 1)
    losses = F.cross_entropy(rows, targets.repeat(members), reduction="none")
    return losses.view(members, batch).t()


def ensemble_nll(
    outputs: Float[Tensor, "batch members classes"], targets: Int[Tensor, "batch"]
) -> Float[Tensor, "batch"]:
    """Return the negative log of the members' mean probability of the true class, in nats.

    Example:
        >>> import torch
        >>> ensemble_nll(torch.zeros(1, 2, 4), torch.tensor([3]))
        tensor([1.3863])
    """
    log_probs = outputs.log_softmax(-1).logsumexp(1) - math.log(outputs.shape[1])
    return F.nll_loss(log_probs, targets, reduction="none")


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy}


def make_loss(loss: str | Loss, loss_on: LossOn = "members") -> Loss:
    """Return the function ``loss(outputs, targets)`` that training minimises.

    Args:
        loss: a name of :data:`LOSSES`, or a function from ``[batch, members, ...]`` and targets to
            ``[batch, members]``.
        loss_on: ``"members"``: each member has its own loss. ``"mean_logits"``: the loss of the
            members' mean output, as in the notebook; members are then free to be wrong one by
            one, and usually are.

    Raises:
        ValueError: an unknown name.
    """
    function = loss if callable(loss) else LOSSES[one_of("loss", loss, LOSSES)]
    one_of("loss_on", loss_on, ("members", "mean_logits"))
    if loss_on == "members":
        return function

    def on_mean_logits(outputs: Tensor, targets: Tensor) -> Tensor:
        return function(outputs.mean(1, keepdim=True), targets)

    return on_mean_logits
