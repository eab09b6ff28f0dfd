"""The base class of losses: per member, of the ensemble, and the checks of targets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from batchensemble.core.rounding import LARGEST_BATCH_ERROR, SCALE_ADVICE, check_targets_held
from batchensemble.losses.targets import class_numbers, exact, numbers


class EnsembleLoss(ABC):
    """A loss of each member, and of the ensemble's prediction.

    Targets are ``[batch, ...]``, the same for all members. With ``per_member=True`` each member has
    its own, ``[batch, members, ...]``; the shape alone would be ambiguous, since one-hot rows or
    several targets may have as many columns as there are members.
    """

    logits: ClassVar[bool] = False  # whether the outputs are the logits of classes

    @abstractmethod
    def __call__(self, outputs: Tensor, targets: Tensor, *, per_member: bool = False) -> Tensor:
        """Return the loss of each member on each example, ``[batch, members]``.

        The mean over all further axes, without masked entries; 0 where all are masked.

        Args:
            outputs: the members' outputs, ``[batch, members, ...]``.
            targets: ``[batch, ...]``, or ``[batch, members, ...]`` with ``per_member``.
            per_member: whether each member has its own targets.

        Raises:
            ValueError: the targets have another shape.
        """

    @abstractmethod
    def of_ensemble(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of the ensemble's prediction on each example, ``[batch]``."""

    @abstractmethod
    def read(self, targets: Tensor, dtype: torch.dtype) -> Tensor:
        """Return targets converted to the type that the loss expects.

        Args:
            targets: ``[examples, ...]``, of any type.
            dtype: floating-point type of the network.

        Raises:
            TypeError: the loss does not take targets of this type.
            ValueError: a target is out of range.
        """

    @abstractmethod
    def check(
        self, outputs_shape: Sequence[int], targets: Tensor, *, per_member: bool = False
    ) -> None:
        """Raise ``ValueError`` if targets and outputs do not match.

        Args:
            outputs_shape: shape of the outputs, ``[batch, members, ...]``.
            targets: ``[examples, ...]``, or ``[examples, members, ...]`` with ``per_member``, for
                any number of examples.
            per_member: whether each member has its own targets.
        """

    def counts(self, targets: Tensor, *, own: bool = False) -> Tensor | None:
        """Return the number of entries of each example that are not masked.

        Args:
            targets: ``[batch, ...]``, or ``[batch, members, ...]`` with ``own``.
            own: whether each member has its own targets.

        Returns:
            ``[batch]``, or ``[batch, members]`` with ``own``; ``None`` if no entry can be masked.
        """
        return None

    def weights(self, targets: Tensor, *, own: bool = False) -> Tensor | None:
        """Return the weight of each example in the mean of a batch; ``None``: all are equal.

        By default the number of its entries that are not masked, so that the mean of a batch is
        over all such entries. Arguments and shapes are those of :meth:`counts`.
        """
        return self.counts(targets, own=own)


@dataclass(frozen=True)
class Custom(EnsembleLoss):
    """A user's own function as a loss.

    Args:
        function: maps outputs ``[batch, members, ...]`` and targets ``[batch, ...]`` to losses
            ``[batch, members]``. If it has a method ``of_ensemble``, that scores validation data.
            Otherwise these are scored by the NLL of the mean probability if outputs are logits and
            targets classes, else by the function of the members' mean output.
    """

    function: Any
    logits: ClassVar[bool] = True

    def __call__(self, outputs: Tensor, targets: Tensor, *, per_member: bool = False) -> Tensor:
        """Return the losses that the function computes."""
        losses: Tensor = self.function(outputs, targets)
        return losses

    def of_ensemble(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of the ensemble's prediction, ``[batch]``."""
        if hasattr(self.function, "of_ensemble"):
            loss: Tensor = self.function.of_ensemble(outputs, targets)
            return loss
        if are_classes(outputs, targets):
            log_probs = log_mean_exp(full_precision(outputs).log_softmax(-1), 1)
            return F.nll_loss(log_probs, targets.long(), reduction="none")
        together: Tensor = self.function(outputs.mean(1, keepdim=True), targets)
        return together[:, 0]

    def check(
        self, outputs_shape: Sequence[int], targets: Tensor, *, per_member: bool = False
    ) -> None:
        """Accept any targets: the first batch shows whether the function takes them."""

    def read(self, targets: Tensor, dtype: torch.dtype) -> Tensor:
        """Return integers as int64, other targets in the network's type.

        Raises:
            ValueError: that type cannot represent them.
        """
        if targets.is_floating_point():
            found = numbers(targets, dtype)
            check_targets_held(
                lambda: [found],
                len(found),
                dtype,
                cure=SCALE_ADVICE,
                largest_error=LARGEST_BATCH_ERROR,
            )
            return found.to(dtype)
        return class_numbers(targets)


def are_classes(outputs: Tensor, targets: Tensor) -> bool:
    """Return whether outputs are logits ``[batch, members, classes]`` of targets ``[batch]``."""
    if outputs.dim() != 3 or targets.dim() != 1 or targets.is_floating_point():
        return False
    return not targets.numel() or 0 <= int(targets.min()) <= int(targets.max()) < outputs.shape[2]


def full_precision(values: Tensor) -> Tensor:
    """Return half precision as float32, in which the loss is computed."""
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
    """Return targets as ``[batch, 1 or members, *entry]``; ``None`` if their shape does not match.

    An axis of length 1 for a single target may be missing or superfluous, as in ``[batch]`` for
    outputs ``[batch, members, 1]``, and ``[batch, 1]`` for ``[batch, members]``.

    Args:
        targets: ``[batch, ...]``, or ``[batch, members, ...]`` with ``per_member``.
        members: number of members (M).
        entry: shape of the targets of one example.
        per_member: whether each member has its own targets.

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
    """Return the expected shape of targets as text.

    Example:
        >>> shape_in_words([5], per_member=True)
        '[examples, members, 5]'
    """
    return f"[{', '.join(['examples', *['members'] * per_member, *map(str, entry)])}]"


def mean_of_entries(losses: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the weighted mean over all axes after the second, 0 where all weights are 0.

    Args:
        losses: ``[batch, members, ...]``, already multiplied by their weights.
        weights: weight of each entry, broadcastable to ``losses``; ``None``: all are equal.
    """
    if weights is None:
        return losses.flatten(2).mean(2) if losses.dim() > 2 else losses
    weights = weights.expand_as(losses)
    if losses.dim() > 2:
        losses, weights = losses.flatten(2).sum(2), weights.flatten(2).sum(2)
    return losses / torch.where(weights > 0, weights, 1)


def sum_of_entries(values: Tensor, *, own: bool) -> Tensor:
    """Return the sum over all axes but the first, or with ``own`` the first two."""
    first = 2 if own else 1
    values = values.to(exact(values.device))
    return values.flatten(first).sum(first) if values.dim() > first else values
