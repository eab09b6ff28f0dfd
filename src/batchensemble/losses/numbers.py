"""Losses for regression and for multi-label classification; targets may be missing (NaN)."""

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
    """A loss of real-valued targets ``[batch, ...]``; those that are NaN are ignored."""

    expected_outputs: ClassVar[str] = "one output for each target"  # for errors

    @property
    def outputs_a_target(self) -> int:
        """Number of outputs of the network for each target."""
        return 1

    @abstractmethod
    def target_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each target, ``[batch, members, ...]``, of aligned targets."""

    def ensemble_target_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of the ensemble's prediction, ``[batch, 1, ...]``: of their mean."""
        return self.target_losses(outputs.mean(1, keepdim=True), targets)

    def __call__(self, outputs: Tensor, targets: Tensor, *, per_member: bool = False) -> Tensor:
        """Return the mean over each example's targets, ``[batch, members]``."""
        outputs = full_precision(outputs)
        targets, known = self._known(outputs, targets, per_member=per_member)
        losses = torch.where(known, self.target_losses(outputs, targets), 0)
        return mean_of_entries(losses, known.to(losses))

    def of_ensemble(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of the ensemble's prediction, ``[batch]``."""
        outputs = full_precision(outputs)
        targets, known = self._known(outputs, targets)
        losses = torch.where(known, self.ensemble_target_losses(outputs, targets), 0)
        return mean_of_entries(losses, known.to(losses))[:, 0]

    def read(self, targets: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the targets in the network's type, or in float64 if that would round them."""
        return numbers(targets, dtype)

    def check(
        self, outputs_shape: Sequence[int], targets: Tensor, *, per_member: bool = False
    ) -> None:
        """Raise ``ValueError`` if the shapes do not match or a target is infinite."""
        self._aligned(outputs_shape, targets, per_member=per_member)
        if targets.isinf().any():
            row = targets.isinf().nonzero()[0, 0].item() + 1
            raise ValueError(f"y must be finite, got an infinite target in row {row}; drop it")
        if targets.dim() == 1 and targets.isnan().any():
            row = targets.isnan().nonzero()[0, 0].item() + 1
            raise ValueError(f"y must be finite, got nan in row {row}; drop that example")

    def counts(self, targets: Tensor, *, own: bool = False) -> Tensor | None:
        """Return the number of known targets of each example."""
        return sum_of_entries(~targets.isnan(), own=own)

    def _known(
        self, outputs: Tensor, targets: Tensor, *, per_member: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return aligned targets, 0 where they are missing, and a mask of the known ones."""
        targets = self._aligned(outputs.shape, targets, per_member=per_member).to(outputs.dtype)
        known = ~targets.isnan()
        return torch.where(known, targets, 0), known

    def _entry(self, outputs_shape: Sequence[int]) -> tuple[int, ...] | None:
        """Return the shape of one example's targets; ``None`` if the outputs do not divide."""
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
                f"loss={type(self).__name__} takes {self.expected_outputs}, the network's outputs "
                f"have the shape {list(outputs_shape)}; give the last layer that many"
            )
        found = aligned(targets, outputs_shape[1], entry, per_member=per_member)
        if found is None:
            raise ValueError(
                f"y must have the shape {shape_in_words(entry, per_member=per_member)}, since "
                f"loss={type(self).__name__} takes {self.expected_outputs} and the network's "
                f"outputs have the shape {list(outputs_shape)}, got {list(targets.shape)}"
            )
        return found

    def _by_target(self, outputs: Tensor) -> Tensor:
        """Return the outputs as ``[batch, members, outputs per target, targets, ...]``."""
        return outputs.unflatten(2, (self.outputs_a_target, -1))


@dataclass(frozen=True)
class MSE(NumberLoss):
    """Squared error of outputs and targets of the same shape.

    The ensemble's loss is the squared error of the members' mean.

    Example:
        >>> MSE()(torch.tensor([[[1.0], [3.0]]]), torch.tensor([0.0]))
        tensor([[1., 9.]])
    """

    def target_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the squared errors."""
        return (outputs - targets).square()


@dataclass(frozen=True)
class Huber(NumberLoss):
    """Squared error near the target and absolute error far from it (Huber 1964).

    Args:
        delta: error, in the unit of the targets, above which the loss is linear; by default 1.

    Example:
        >>> Huber(delta=1.0)(torch.tensor([[[1.0], [3.0]]]), torch.tensor([0.0]))
        tensor([[0.5000, 2.5000]])
    """

    delta: float = 1.0

    def __post_init__(self) -> None:
        positive_number("delta", self.delta)

    def target_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ``e²/2`` for errors up to ``delta``, and ``delta (|e| - delta/2)`` above."""
        targets = targets.expand_as(outputs)
        return F.huber_loss(outputs, targets, reduction="none", delta=self.delta)


@dataclass(frozen=True)
class GaussianNLL(NumberLoss):
    """NLL of a normal distribution, in nats, with two outputs for each target.

    The first half of ``[batch, members, 2 * targets, ...]`` are means, the second half raw scales:
    the standard deviation is ``softplus(raw) + floor``, which neither explodes nor reaches 0. The
    ensemble's loss is the NLL of the members' mixture, target by target (Lakshminarayanan et al.
    2017, arXiv 1612.01474).

    Args:
        floor: smallest standard deviation, in the unit of the targets; by default 0.001.
        beta: 0 to 1, by default 0. The NLL of each target is multiplied by its predicted variance
            to this power, so that a large variance cannot excuse a bad mean (Seitzer et al. 2022,
            arXiv 2203.09168, recommend 0.5). Validation data are scored without it.

    Example:
        >>> GaussianNLL(floor=1e-3)(torch.zeros(1, 2, 2), torch.tensor([0.0]))
        tensor([[0.5539, 0.5539]])
    """

    floor: float = 1e-3
    beta: float = 0.0
    expected_outputs: ClassVar[str] = (
        "two outputs for each target, first the means, then the raw scales"
    )

    def __post_init__(self) -> None:
        positive_number("floor", self.floor)
        fraction("beta", self.beta)

    @property
    def outputs_a_target(self) -> int:
        """Two: mean and raw scale."""
        return 2

    def distribution(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return means and standard deviations, each ``[batch, members, targets, ...]``."""
        mean, raw = self._by_target(outputs).unbind(2)
        return mean, F.softplus(raw) + self.floor

    def target_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the NLL of each target."""
        mean, scale = self.distribution(outputs)
        nll = _gaussian_nll(mean, scale, targets)
        return nll * scale.detach() ** (2 * self.beta) if self.beta else nll

    def ensemble_target_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the NLL of the members' mixture, ``[batch, 1, targets, ...]``."""
        mean, scale = self.distribution(outputs)
        return -log_mean_exp(-_gaussian_nll(mean, scale, targets), 1).unsqueeze(1)


@dataclass(frozen=True)
class Quantile(NumberLoss):
    """Pinball loss of quantiles (Koenker and Bassett 1978), one output for each level and target.

    In ``[batch, members, levels * targets, ...]`` all outputs of the first level come first. The
    loss is the mean over the levels; the ensemble's is that of the members' mean quantiles.

    Args:
        levels: levels of the quantiles, each above 0 and below 1; by default 0.1, 0.5 and 0.9.

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
        """One for each level."""
        return len(self.levels)

    @property
    def expected_outputs(self) -> str:  # type: ignore[override]
        """The outputs that the network must have, for errors."""
        return f"{len(self.levels)} outputs for each target, one for each level"

    def target_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the pinball loss of each target, averaged over the levels."""
        over = targets.unsqueeze(2) - self._by_target(outputs)
        levels = torch.tensor(self.levels, dtype=over.dtype, device=over.device)
        levels = levels.view(-1, *[1] * (over.dim() - 3))
        return torch.maximum(levels * over, (levels - 1) * over).mean(2)


@dataclass(frozen=True)
class BinaryCrossEntropy(NumberLoss):
    """Binary cross-entropy in nats, with one logit for each label (multi-label classification).

    Targets are 0, 1, a probability between them, or NaN for an unknown label. The ensemble's loss
    is the NLL of the members' mean probability, label by label.

    Example:
        >>> BinaryCrossEntropy()(torch.zeros(1, 2, 3), torch.tensor([[1.0, 0.0, torch.nan]]))
        tensor([[0.6931, 0.6931]])
    """

    expected_outputs: ClassVar[str] = "one output for each label"

    def target_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy of each label."""
        targets = targets.expand_as(outputs)
        return F.binary_cross_entropy_with_logits(outputs, targets, reduction="none")

    def ensemble_target_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the NLL of the mean probability of each label."""
        there = log_mean_exp(F.logsigmoid(outputs), 1).unsqueeze(1)
        absent = log_mean_exp(F.logsigmoid(-outputs), 1).unsqueeze(1)
        return -(targets * there + (1 - targets) * absent)

    def check(
        self, outputs_shape: Sequence[int], targets: Tensor, *, per_member: bool = False
    ) -> None:
        """Raise ``ValueError`` if the shapes do not match or a target is not from 0 to 1."""
        super().check(outputs_shape, targets, per_member=per_member)
        wrong = (targets < 0) | (targets > 1)
        if wrong.any():
            raise ValueError(
                "y must hold 0 or 1 for each label (NaN where it is not known), got "
                f"{targets[wrong][0].item():g}"
            )


def _gaussian_nll(mean: Tensor, scale: Tensor, targets: Tensor) -> Tensor:
    return HALF_LOG_TAU + scale.log() + 0.5 * ((targets - mean) / scale).square()
