"""The objective of a training step: losses by example and member, and their gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from batchensemble.core.inputs import Inputs
from batchensemble.ensembles import Ensemble
from batchensemble.losses import CrossEntropy, EnsembleLoss, Loss, LossOn, as_loss, make_loss
from batchensemble.losses.targets import Targets, parted
from batchensemble.training.clipping import MemberClipping
from batchensemble.training.distributed.processes import split_by_size
from batchensemble.training.distributed.strategy import Strategy

Losses = Callable[[Inputs, Tensor], Tensor]


class StepLosses(NamedTuple):
    """The losses of a step.

    Attributes:
        losses: ``[batch, members]``, or ``[batch, 1]`` of all members together, times their weights
            over the mean weight.
        weight: the mean weight of the batch, ``[1 or members]``; ``None`` if all examples have the
            same weight.
    """

    losses: Tensor
    weight: Tensor | None


@dataclass(frozen=True)
class Objective:
    """What a training step minimises.

    Attributes:
        losses: maps inputs and targets, in the order of the batch, to one number for each example
            and member, in the order of the network's rows or ``[batch, members]``.
        by_member: a view of these numbers as ``[batch, members]``.
        own_examples: whether inputs are ``[batch, members, ...]``, with examples for each member.
        own_targets: whether targets are ``[batch, members, ...]``, for the same examples.
        micro_batch: number of examples that go through the network at once; ``None`` is the whole
            batch.
        examples_a_row: number of different examples in a row of inputs: the members if they divide
            a batch among themselves, otherwise 1.
        clipping: limits the gradients of each member; ``None`` without a limit.
        scaler: scales losses in half precision; ``None`` otherwise.
        loss: the loss, which also weights the examples.
        strategy: how processes share the batch; ``None`` for a single process.
    """

    losses: Losses
    by_member: Callable[[Tensor], Tensor]
    own_examples: bool = False
    own_targets: bool = False
    micro_batch: int | None = None
    examples_a_row: int = 1
    clipping: MemberClipping | None = None
    scaler: torch.amp.GradScaler | None = None
    loss: EnsembleLoss = field(default_factory=CrossEntropy)
    strategy: Strategy | None = None

    def parts(self, batch: int) -> int:
        """Return in how many parts a batch goes through the network."""
        return 1 if self.micro_batch is None else -(-batch // self.micro_batch)

    def backward(self, inputs: Inputs, targets: Targets) -> StepLosses:
        """Add the gradients of the mean over the batch, summed over the members, and clip them.

        So each member gets the gradient that it would get alone. If examples have weights, the mean
        is weighted: the sum is divided by the sum of the batch's weights.

        Returns:
            The losses, and the weight of the batch in the mean of an epoch.
        """
        if self.clipping is None:
            return self._backward(inputs, targets)
        state = torch.get_rng_state()
        found = self._backward(inputs, targets)

        def recompute(factors: Tensor) -> None:
            with torch.random.fork_rng([]):
                torch.set_rng_state(state)
                self._backward(inputs, targets, factors)

        self.clipping(recompute)
        return found

    def counts(self, targets: Tensor, weights: Tensor | None) -> Tensor | None:
        """Return the weight of each example, ``[batch, 1 or members]``.

        Args:
            targets: the targets of a batch.
            weights: the user's weights of its examples; ``None`` without.

        Returns:
            ``None`` if all examples have the same weight.
        """
        found = self.loss.weights(targets, own=self.own_examples or self.own_targets)
        if weights is not None:
            found = weights if found is None else found * weights
        if found is None:
            return None
        return found.unsqueeze(1) if found.dim() == 1 else found

    def _backward(
        self, inputs: Inputs, targets: Targets, factors: Tensor | None = None
    ) -> StepLosses:
        targets, weights = parted(targets)
        shares, mean = self.counts(targets, weights), None
        if shares is not None:
            mean = shares.mean(0)
            shares = shares / torch.where(mean > 0, mean, 1)
        batch, counts = len(inputs), 1.0
        if self.strategy is not None:
            rows, counts = self.strategy.rows(batch)
            inputs, targets = inputs[rows], targets[rows]
            shares = None if shares is None else shares[rows]
        size = self.micro_batch
        if size is None:
            parts = [(inputs, targets, shares)]
        else:
            own, strategy = len(inputs), self.strategy
            pieces = (
                split_by_size(own, size) if strategy is None else strategy.parts(own, batch, size)
            )
            parts = [
                (inputs[each], targets[each], None if shares is None else shares[each])
                for each in pieces
            ]
        found = []
        for x, y, share in parts:
            losses = self.losses(x, y)
            gradient = torch.full_like(losses, counts / batch)
            if share is not None:
                self.by_member(gradient).mul_(share.to(gradient))
            if factors is not None:
                self.by_member(gradient).mul_(factors.to(gradient))
            losses.backward(gradient if self.scaler is None else self.scaler.scale(gradient))
            losses = self.by_member(losses.detach())
            found.append(losses if share is None else losses.mul_(share.to(losses)))
        losses = found[0] if len(found) == 1 else torch.cat(found)
        if self.strategy is None:
            return StepLosses(losses, mean)
        if mean is None or not (self.strategy.separate_weights and self.own_examples):
            return StepLosses(self.strategy.reduce(losses, batch), mean)
        # The mean weights are of this process's members, so they are reduced with the losses.
        of_all = self.strategy.reduce(torch.cat([losses, mean.to(losses)[None]]), batch + 1)
        return StepLosses(of_all[:-1], of_all[-1])


def make_objective(
    model: Ensemble,
    loss: str | Loss,
    loss_on: LossOn,
    *,
    own: bool,
    own_targets: bool = False,
    micro_batch: int | None = None,
    strategy: Strategy | None = None,
) -> Objective:
    """Return the objective; the cross-entropy is computed from the rows, without views between.

    Args:
        model: any ensemble.
        loss: a name, a loss or a function, see :func:`batchensemble.fit`.
        loss_on: ``"members"`` or ``"mean_logits"``.
        own: whether each member sees its own examples.
        own_targets: whether each member has its own targets for the same examples.
        micro_batch: number of examples that go through the network at once; ``None`` is all.
        strategy: how processes share a batch; ``None`` for a single process.

    Raises:
        ValueError: an unknown name.
    """
    loss = as_loss(loss)
    function = make_loss(loss, loss_on, per_member=own or own_targets)

    def of_members(inputs: Inputs, targets: Tensor) -> Tensor:
        return function(model(inputs, per_member=own), targets)

    options: dict[str, Any] = {
        "own_examples": own,
        "own_targets": own_targets,
        "micro_batch": micro_batch,
        "loss": loss,
        "strategy": strategy,
    }
    if loss != CrossEntropy() or loss_on != "members":
        return Objective(of_members, _as_they_are, **options)

    def of_rows(inputs: Inputs, targets: Tensor) -> Tensor:
        if targets.dim() != 1 + own:  # a class for each token, pixel or member
            return of_members(inputs, targets)
        rows = model.rows(inputs, per_member=own)
        row_targets = model.target_rows(targets, per_member=own)
        return F.cross_entropy(rows, row_targets, reduction="none")

    def by_member(values: Tensor) -> Tensor:
        return model.by_member(values) if values.dim() == 1 else values

    return Objective(of_rows, by_member, **options)


def _as_they_are(values: Tensor) -> Tensor:
    return values
