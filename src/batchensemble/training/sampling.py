"""Which examples each member sees in a training batch."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from batchensemble.core.arguments import one_of
from batchensemble.data.batches import Draw
from batchensemble.ensembles import MIMO, Ensemble
from batchensemble.ensembles.methods.deep import own_orders
from batchensemble.losses import LossOn

Sampling = Literal["shared", "independent", "split"]
SAMPLINGS = ("shared", "independent", "split")


def make_draw(model: Ensemble, batches: Sampling | None, loss_on: LossOn) -> Draw | None:
    """Return a function that draws each member's examples; ``None`` if all see the same.

    Args:
        model: any ensemble.
        batches: ``"shared"``, ``"independent"``, ``"split"``, see :func:`batchensemble.fit`;
            ``None`` is the default of the method.
        loss_on: ``"mean_logits"`` needs all members to see the same examples.

    Raises:
        ValueError: an unknown name, MIMO, which draws examples itself, or the loss of a mean of
            outputs for different examples.
    """
    if batches is None:
        return model.draw if model.own_examples and loss_on == "members" else None
    if batches != "shared" and loss_on == "mean_logits":
        raise ValueError(
            "loss_on='mean_logits' is the loss of the members' mean logits for an example, got "
            f"batches={batches!r}; leave it out"
        )
    one_of("batches", batches, SAMPLINGS)
    if isinstance(model, MIMO):
        raise ValueError(
            f"MIMO draws the examples of its inputs itself, got batches={batches!r}; leave "
            "it out, and set input_repetition= and batch_repetition= of MIMO"
        )
    if batches == "shared" or model.members == 1:
        return None
    if batches == "independent":
        return lambda order: own_orders(order, model.members)
    return lambda order: shares(order, model.members)


def shares(order: Int[Tensor, "*steps batch"], members: int) -> Int[Tensor, "*steps members rows"]:
    """Return each batch divided among the members.

    If the batch cannot be divided evenly, a second member sees its first examples too, so that all
    have the same number of rows.

    Example:
        >>> shares(torch.arange(5), members=3).tolist()
        [[0, 1], [2, 3], [4, 0]]
    """
    batch = order.shape[-1]
    rows = -(-batch // members)
    index = torch.arange(rows * members) % batch
    return order[..., index].unflatten(-1, (members, rows))
