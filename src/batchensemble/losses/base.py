"""What every loss knows: of each member, of the ensemble, and which targets it takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from batchensemble.core.rounding import LARGEST_BATCH_ERROR, SCALE, check_targets_held
from batchensemble.losses.targets import class_numbers, exact, numbers


class EnsembleLoss(ABC):
    """A loss of the members that also says how well they do together.

    Targets are ``[batch, ...]``, the same for all members. Only where ``per_member=True`` says that
    each has its own they are ``[batch, members, ...]``: the shape alone cannot tell these from
    one-hot rows, or from several targets, of as many columns as there are members.
    """

    logits: ClassVar[bool] = False  # whether the outputs are the logits of classes

    @abstractmethod
    def __call__(self, outputs: Tensor, targets: Tensor, *, per_member: bool = False) -> Tensor:
        """Return the loss of each member on each example, ``[batch, members]``.

        It is the mean over the further axes, without what is masked; 0 where all of it is.

        Args:
            outputs: ``[batch, members, ...]``.
            targets: ``[batch, ...]``.
            per_member: whether they are ``[batch, members, ...]``, each member's own.

        Raises:
            ValueError: they have another shape.
        """

    @abstractmethod
    def of_ensemble(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of the members together on each example, ``[batch]``."""

    @abstractmethod
    def read(self, targets: Tensor, dtype: torch.dtype) -> Tensor:
        """Return targets of arrays in the type that the loss takes.

        Args:
            targets: of any type.
            dtype: of the network.

        Raises:
            TypeError: they are not what the loss takes.
            ValueError: their values are not.
        """

    @abstractmethod
    def check(
        self, outputs_shape: Sequence[int], targets: Tensor, *, per_member: bool = False
    ) -> None:
        """Raise ``ValueError`` where targets do not go with outputs.

        Args:
            outputs_shape: ``[batch, members, ...]``.
            targets: ``[examples, ...]``, of any number of examples.
            per_member: whether they are ``[examples, members, ...]``.
        """

    def counts(self, targets: Tensor, *, own: bool = False) -> Tensor | None:
        """Return how many entries of each example are not masked; ``None``: of all as many.

        Args:
            targets: ``[batch, ...]``, or with ``own`` ``[batch, members, ...]``.
            own: whether each member has targets of its own.
        """
        return None

    def weights(self, targets: Tensor, *, own: bool = False) -> Tensor | None:
        """Return how much each example counts in the mean of a batch; ``None``: all the same.

        So the mean of a batch is over all its entries that are not masked, wherever they are.
        """
        return self.counts(targets, own=own)


@dataclass(frozen=True)
class Custom(EnsembleLoss):
    """A function of the user's own.

    Args:
        function: from outputs ``[batch, members, ...]`` and targets to ``[batch, members]``. Where
            it has an ``of_ensemble``, that scores held-out data. Otherwise the NLL of the mean
            probability does, where outputs and targets are those of classes, or the function of
            the members' mean output.
    """

    function: Any
    logits: ClassVar[bool] = True

    def __call__(self, outputs: Tensor, targets: Tensor, *, per_member: bool = False) -> Tensor:
        """Return what the function returns, which reads the targets itself."""
        losses: Tensor = self.function(outputs, targets)
        return losses

    def of_ensemble(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of the members together, ``[batch]``."""
        if hasattr(self.function, "of_ensemble"):
            of_it: Tensor = self.function.of_ensemble(outputs, targets)
            return of_it
        if are_classes(outputs, targets):
            log_probs = log_mean_exp(full_precision(outputs).log_softmax(-1), 1)
            return F.nll_loss(log_probs, targets.long(), reduction="none")
        together: Tensor = self.function(outputs.mean(1, keepdim=True), targets)
        return together[:, 0]

    def check(
        self, outputs_shape: Sequence[int], targets: Tensor, *, per_member: bool = False
    ) -> None:
        """Take anything; trying the first batch tells more."""

    def read(self, targets: Tensor, dtype: torch.dtype) -> Tensor:
        """Return whole numbers as int64, others in the network's type.

        Raises:
            ValueError: that type cannot hold them.
        """
        if targets.is_floating_point():
            found = numbers(targets, dtype)
            check_targets_held(
                lambda: [found], len(found), dtype, cure=SCALE, largest_error=LARGEST_BATCH_ERROR
            )
            return found.to(dtype)
        return class_numbers(targets)


def are_classes(outputs: Tensor, targets: Tensor) -> bool:
    """Return whether outputs are logits ``[batch, members, classes]`` of targets ``[batch]``."""
    if outputs.dim() != 3 or targets.dim() != 1 or targets.is_floating_point():
        return False
    return not targets.numel() or 0 <= int(targets.min()) <= int(targets.max()) < outputs.shape[2]


def full_precision(values: Tensor) -> Tensor:
    """Return half precision as float32, in which a loss does not round away."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def log_mean_exp(values: Tensor, dim: int) -> Tensor:
    """Return the logarithm of the mean of exponentials.

    Example:
        >>> log_mean_exp(torch.tensor([0.0, 0.0]), 0)
        tensor(0.)
    """
    size = torch.tensor(float(values.shape[dim]), dtype=values.dtype, device=values.device)
    return values.logsumexp(dim) - size.log()


def aligned(
    targets: Tensor, members: int, entry: Sequence[int], *, per_member: bool = False
) -> Tensor | None:
    """Return targets as ``[batch, 1 or members, *entry]``; ``None`` where they are not such.

    An axis of one target may be left out, or stand where none is needed, as in ``[batch]`` for
    outputs ``[batch, members, 1]``, and ``[batch, 1]`` for ``[batch, members]``.

    Args:
        targets: ``[batch, ...]``.
        members: how many there are.
        entry: the shape of an example's targets.
        per_member: whether they are ``[batch, members, ...]``.

    Example:
        >>> aligned(torch.zeros(5), 3, [1]).shape, aligned(torch.zeros(5, 3), 3, [1])
        (torch.Size([5, 1, 1]), None)
        >>> aligned(torch.zeros(5, 3), 3, [1], per_member=True).shape
        torch.Size([5, 3, 1])
    """
    entry, tail = tuple(entry), tuple(targets.shape[1:])
    if per_member:
        if tail[:1] != (members,):
            return None
        tail = tail[1:]
    else:
        targets = targets.unsqueeze(1)
    if tail == entry:
        return targets
    if entry[:1] == (1,) and tail == entry[1:]:
        return targets.unsqueeze(2)
    return targets.squeeze(2) if tail == (1, *entry) else None


def shape_in_words(entry: Sequence[int], *, per_member: bool) -> str:
    """Return the shape that targets must have.

    Example:
        >>> shape_in_words([5], per_member=True)
        '[examples, members, 5]'
    """
    return f"[{', '.join(['examples', *['members'] * per_member, *map(str, entry)])}]"


def mean_of_entries(losses: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the mean over the axes after the second, 0 where nothing counts.

    Args:
        losses: ``[batch, members, ...]``, times their weights.
        weights: how much each entry counts, of a shape that expands to it; ``None``: the same.
    """
    if weights is None:
        return losses.flatten(2).mean(2) if losses.dim() > 2 else losses
    weights = weights.expand_as(losses)
    if losses.dim() > 2:
        losses, weights = losses.flatten(2).sum(2), weights.flatten(2).sum(2)
    return losses / torch.where(weights > 0, weights, 1)


def sum_of_entries(values: Tensor, *, own: bool) -> Tensor:
    """Return the sum over all axes but those of the examples and, with ``own``, of the members."""
    first = 2 if own else 1
    values = values.to(exact(values.device))
    return values.flatten(first).sum(first) if values.dim() > first else values
