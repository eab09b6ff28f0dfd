"""Losses of numbers: regression, and labels that are there or not. NaN is a target not known."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from batchensemble.core.arguments import fraction, positive_number
from batchensemble.losses.base import (
    EnsembleLoss,
    aligned,
    full_precision,
    log_mean_exp,
    mean_of_entries,
    shape_in_words,
    sum_of_entries,
)
from batchensemble.losses.targets import numbers

HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


class NumberLoss(EnsembleLoss):
    """A loss of numbers ``[batch, ...]``; those that are NaN do not count."""

    said: ClassVar[str] = "one output for each target"  # what the network has to give

    @property
    def outputs_a_target(self) -> int:
        """How many outputs the network has for each target."""
        return 1

    @abstractmethod
    def of_entries(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each target, ``[batch, members, ...]``."""

    def together(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of the members together, ``[batch, 1, ...]``: of their mean."""
        return self.of_entries(outputs.mean(1, keepdim=True), targets)

    def __call__(self, outputs: Tensor, targets: Tensor, *, per_member: bool = False) -> Tensor:
        """Return the mean over each example's targets, ``[batch, members]``."""
        outputs = full_precision(outputs)
        targets, known = self._known(outputs, targets, per_member=per_member)
        losses = torch.where(known, self.of_entries(outputs, targets), 0)
        return mean_of_entries(losses, known.to(losses))

    def of_ensemble(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of the members together, ``[batch]``."""
        outputs = full_precision(outputs)
        targets, known = self._known(outputs, targets)
        losses = torch.where(known, self.together(outputs, targets), 0)
        return mean_of_entries(losses, known.to(losses))[:, 0]

    def read(self, targets: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the targets in the network's type, or in float64 where that would round them."""
        return numbers(targets, dtype)

    def check(
        self, outputs_shape: Sequence[int], targets: Tensor, *, per_member: bool = False
    ) -> None:
        """Raise ``ValueError`` where targets are of another shape, or infinite."""
        self._aligned(outputs_shape, targets, per_member=per_member)
        if targets.isinf().any():
            row = targets.isinf().nonzero()[0, 0].item() + 1
            raise ValueError(f"y must be finite, got an infinite target in row {row}; drop it")
        if targets.dim() == 1 and targets.isnan().any():
            row = targets.isnan().nonzero()[0, 0].item() + 1
            raise ValueError(f"y must be finite, got nan in row {row}; drop that example")

    def counts(self, targets: Tensor, *, own: bool = False) -> Tensor | None:
        """Return how many targets of each example are known."""
        return sum_of_entries(~targets.isnan(), own=own)

    def _known(
        self, outputs: Tensor, targets: Tensor, *, per_member: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return the targets as the outputs are, 0 for those not known, and which are known."""
        targets = self._aligned(outputs.shape, targets, per_member=per_member).to(outputs.dtype)
        known = ~targets.isnan()
        return torch.where(known, targets, 0), known

    def _entry(self, outputs_shape: Sequence[int]) -> tuple[int, ...] | None:
        """Return the shape of an example's targets; ``None``: the outputs do not divide."""
        parts = self.outputs_a_target
        if parts == 1:
            return tuple(outputs_shape[2:])
        if len(outputs_shape) < 3 or outputs_shape[2] % parts:
            return None
        return (outputs_shape[2] // parts, *outputs_shape[3:])

    def _aligned(
        self, outputs_shape: Sequence[int], targets: Tensor, *, per_member: bool = False
    ) -> Tensor:
        entry = self._entry(outputs_shape)
        if entry is None:
            raise ValueError(
                f"loss={type(self).__name__} takes {self.said}, the network's outputs have the "
                f"shape {list(outputs_shape)}; give the last layer that many"
            )
        found = aligned(targets, outputs_shape[1], entry, per_member=per_member)
        if found is None:
            raise ValueError(
                f"y must have the shape {shape_in_words(entry, per_member=per_member)}, since "
                f"loss={type(self).__name__} takes {self.said} and the network's outputs have the "
                f"shape {list(outputs_shape)}, got {list(targets.shape)}"
            )
        return found

    def _parted(self, outputs: Tensor) -> Tensor:
        """Return the outputs as ``[batch, members, outputs a target, targets, ...]``."""
        return outputs.unflatten(2, (self.outputs_a_target, -1))


@dataclass(frozen=True)
class MSE(NumberLoss):
    """Squared error, of outputs and targets of one shape.

    The members together are scored by the squared error of their mean.

    Example:
        >>> MSE()(torch.tensor([[[1.0], [3.0]]]), torch.tensor([0.0]))
        tensor([[1., 9.]])
    """

    def of_entries(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the squared errors."""
        return (outputs - targets).square()


@dataclass(frozen=True)
class Huber(NumberLoss):
    """Squared error near the target and absolute error far from it (Huber 1964).

    Args:
        delta: the error, in units of the targets, from which on it is absolute.

    Example:
        >>> Huber(delta=1.0)(torch.tensor([[[1.0], [3.0]]]), torch.tensor([0.0]))
        tensor([[0.5000, 2.5000]])
    """

    delta: float = 1.0

    def __post_init__(self) -> None:
        positive_number("delta", self.delta)

    def of_entries(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the errors: ``e²/2``, and ``delta (|e| - delta/2)`` beyond ``delta``."""
        targets = targets.expand_as(outputs)
        return F.huber_loss(outputs, targets, reduction="none", delta=self.delta)


@dataclass(frozen=True)
class GaussianNLL(NumberLoss):
    """NLL of a normal distribution, in nats, of two outputs for each target.

    Of ``[batch, members, 2 * targets, ...]`` the first half are means, the second raw scales:
    the standard deviation is ``softplus(raw) + floor``, which neither explodes nor reaches 0. The
    members together are scored by the NLL of their mixture, target by target (Lakshminarayanan et
    al. 2017, arXiv 1612.01474).

    Args:
        floor: the smallest standard deviation, in units of the targets.
        beta: 0 to 1; above 0 each target's NLL counts its variance to this power, which keeps a
            large variance from excusing a bad mean (Seitzer et al. 2022, arXiv 2203.09168, has
            0.5). Held-out data are scored without.

    Example:
        >>> GaussianNLL(floor=1e-3)(torch.zeros(1, 2, 2), torch.tensor([0.0]))
        tensor([[0.5539, 0.5539]])
    """

    floor: float = 1e-3
    beta: float = 0.0
    said: ClassVar[str] = "two outputs for each target, first the means, then the raw scales"

    def __post_init__(self) -> None:
        positive_number("floor", self.floor)
        fraction("beta", self.beta)

    @property
    def outputs_a_target(self) -> int:
        """Two: mean and raw scale."""
        return 2

    def distribution(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return means and standard deviations, each ``[batch, members, targets, ...]``."""
        mean, raw = self._parted(outputs).unbind(2)
        return mean, F.softplus(raw) + self.floor

    def of_entries(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the NLL of each target."""
        mean, scale = self.distribution(outputs)
        nll = _gaussian_nll(mean, scale, targets)
        return nll * scale.detach() ** (2 * self.beta) if self.beta else nll

    def together(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the NLL of the members' mixture."""
        mean, scale = self.distribution(outputs)
        return -log_mean_exp(-_gaussian_nll(mean, scale, targets), 1).unsqueeze(1)


@dataclass(frozen=True)
class Quantile(NumberLoss):
    """Pinball loss of quantiles (Koenker and Bassett 1978), an output for each level and target.

    Of ``[batch, members, levels * targets, ...]`` those of the first level come first. The loss
    is the mean over the levels; the members together are scored by that of their mean quantiles.

    Args:
        levels: of the quantiles, each above 0 and below 1.

    Example:
        >>> Quantile([0.5])(torch.tensor([[[1.0], [3.0]]]), torch.tensor([0.0]))
        tensor([[0.5000, 1.5000]])
    """

    levels: Sequence[float] = (0.1, 0.5, 0.9)

    def __post_init__(self) -> None:
        levels = tuple(float(level) for level in self.levels)
        if not levels or not all(0 < level < 1 for level in levels):
            raise ValueError(f"levels must be numbers above 0 and below 1, got {self.levels!r}")
        object.__setattr__(self, "levels", levels)

    @property
    def outputs_a_target(self) -> int:
        """As many as levels."""
        return len(self.levels)

    @property
    def said(self) -> str:  # type: ignore[override]
        """What the network has to give."""
        return f"{len(self.levels)} outputs for each target, one for each level"

    def of_entries(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean over the levels of the pinball loss of each target."""
        over = targets.unsqueeze(2) - self._parted(outputs)
        levels = torch.tensor(self.levels, dtype=over.dtype, device=over.device)
        levels = levels.view(-1, *[1] * (over.dim() - 3))
        return torch.maximum(levels * over, (levels - 1) * over).mean(2)


@dataclass(frozen=True)
class BinaryCrossEntropy(NumberLoss):
    """Cross-entropy of labels that are there or not, in nats, of a logit for each.

    Targets are 0 or 1, a probability between, or NaN for a label that is not known. The members
    together are scored by the NLL of their mean probability, label by label.

    Example:
        >>> BinaryCrossEntropy()(torch.zeros(1, 2, 3), torch.tensor([[1.0, 0.0, torch.nan]]))
        tensor([[0.6931, 0.6931]])
    """

    said: ClassVar[str] = "one output for each label"

    def of_entries(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy of each label."""
        targets = targets.expand_as(outputs)
        return F.binary_cross_entropy_with_logits(outputs, targets, reduction="none")

    def together(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the NLL of the mean probability of each label."""
        there = log_mean_exp(F.logsigmoid(outputs), 1).unsqueeze(1)
        absent = log_mean_exp(F.logsigmoid(-outputs), 1).unsqueeze(1)
        return -(targets * there + (1 - targets) * absent)

    def check(
        self, outputs_shape: Sequence[int], targets: Tensor, *, per_member: bool = False
    ) -> None:
        """Raise ``ValueError`` where targets are of another shape, or not from 0 to 1."""
        super().check(outputs_shape, targets, per_member=per_member)
        wrong = (targets < 0) | (targets > 1)
        if wrong.any():
            raise ValueError(
                "y must hold 0 or 1 for each label (NaN where it is not known), got "
                f"{targets[wrong][0].item():g}"
            )


def _gaussian_nll(mean: Tensor, scale: Tensor, targets: Tensor) -> Tensor:
    return HALF_LOG_TAU + scale.log() + 0.5 * ((targets - mean) / scale).square()
