"""What a training step minimises: one number for each example and member, and their gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from batchensemble.batches import Arrange
from batchensemble.clipping import MemberClipping
from batchensemble.ensembles import Ensemble
from batchensemble.losses import Loss, LossOn, make_loss

Losses = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Objective:
    """What a training step minimises, and how to read it.

    Attributes:
        losses: maps inputs and targets to one number for each example and member.
        by_member: brings these numbers into the shape ``[batch, members]``.
        arrange: puts targets into the order that ``losses`` wants, outside the inner loop.
        own_examples: whether inputs are ``[batch, members, ...]``, other examples for each member.
        micro_batch: examples that go through the network at a time; ``None`` is the whole batch.
        examples_a_row: more than 1 where the members share a batch out among them.
        clipping: limits the gradients of each member.
        scaler: of losses in half precision.
    """

    losses: Losses
    by_member: Callable[[Tensor], Tensor]
    arrange: Arrange | None = None
    own_examples: bool = False
    micro_batch: int | None = None
    examples_a_row: int = 1
    clipping: MemberClipping | None = None
    scaler: torch.amp.GradScaler | None = None

    def parts(self, batch: int) -> int:
        """Return how many parts a batch goes through the network in."""
        return 1 if self.micro_batch is None else -(-batch // self.micro_batch)

    def backward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Add the gradients of the mean over the batch, summed over the members, and clip them.

        So each member gets the gradient that it would get alone.

        Returns:
            The losses, as :attr:`losses` gives them.
        """
        if self.clipping is None:
            return self._backward(inputs, targets)
        state = torch.get_rng_state()
        found = self._backward(inputs, targets)

        def again(factors: Tensor) -> None:
            with torch.random.fork_rng([]):
                torch.set_rng_state(state)
                self._backward(inputs, targets, factors)

        self.clipping(again)
        return found

    def _backward(self, inputs: Tensor, targets: Tensor, factors: Tensor | None = None) -> Tensor:
        parts = [(inputs, targets)]
        if self.micro_batch is not None:
            size = self.micro_batch
            parts = list(zip(inputs.split(size), targets.split(size), strict=True))
        found = []
        for x, y in parts:
            losses = self.losses(x, y)
            gradient = torch.full_like(losses, 1 / len(inputs))
            if factors is not None:
                self.by_member(gradient).mul_(factors.to(gradient))
            losses.backward(gradient if self.scaler is None else self.scaler.scale(gradient))
            found.append(losses.detach())
        return found[0] if len(found) == 1 else torch.cat(found)


def make_objective(
    model: Ensemble, loss: str | Loss, loss_on: LossOn, *, own: bool, micro_batch: int | None = None
) -> Objective:
    """Return the objective: for the usual loss straight from the rows, without views between.

    Args:
        model: any ensemble.
        loss: a name or a function, see :func:`batchensemble.fit`.
        loss_on: ``"members"`` or ``"mean_logits"``.
        own: whether each member sees examples of its own.
        micro_batch: examples that go through the network at a time.

    Raises:
        ValueError: an unknown name.
    """
    function = make_loss(loss, loss_on)
    if loss == "cross_entropy" and loss_on == "members":

        def of_rows(inputs: Tensor, targets: Tensor) -> Tensor:
            rows = model.rows(inputs, per_member=own)
            return F.cross_entropy(rows, targets, reduction="none")

        objective = Objective(of_rows, model.by_member, model.target_rows, own)
        return objective if micro_batch is None else _in_parts(objective, micro_batch)

    def of_members(inputs: Tensor, targets: Tensor) -> Tensor:
        return function(model(inputs, per_member=own), targets)

    return Objective(of_members, lambda losses: losses, None, own, micro_batch)


def _in_parts(whole: Objective, micro_batch: int) -> Objective:
    """Return the same objective for a batch in parts, each of which arranges its own targets."""
    arrange = whole.arrange
    assert arrange is not None

    def losses(inputs: Tensor, targets: Tensor) -> Tensor:
        targets = arrange(targets, per_member=targets.dim() == 2)
        return whole.by_member(whole.losses(inputs, targets))

    return replace(
        whole, losses=losses, by_member=lambda each: each, arrange=None, micro_batch=micro_batch
    )
