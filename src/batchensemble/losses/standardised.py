"""Standardised regression targets, so that the network does not have to learn their scale."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from batchensemble.core.rounding import LARGEST_ERROR, NOISE
from batchensemble.losses.base import EnsembleLoss, aligned
from batchensemble.losses.numbers import (
    MSE,
    BinaryCrossEntropy,
    GaussianNLL,
    Huber,
    NumberLoss,
    Quantile,
)
from batchensemble.losses.targets import exact

OF_STANDARDISED = "of standardised targets"  # marks a loss beside scores in original units


@dataclass(frozen=True)
class Standardised(NumberLoss):
    """A regression loss of standardised targets, ``(target - mean) / deviation``.

    The network's outputs are in these standard units; :func:`batchensemble.predict` converts them
    to the original unit, and :func:`unit_of` the losses. The mean is subtracted in float64, so that
    a small spread around a large mean is not rounded away.

    Args:
        loss: the regression loss of the standardised targets.
        mean: mean of each target over the training data, in its unit.
        deviation: standard deviation of each target, above 0, in its unit.

    Example:
        >>> from batchensemble.losses import MSE
        >>> loss = Standardised(MSE(), [100.0], [10.0])
        >>> loss(torch.tensor([[[0.0], [1.0]]]), torch.tensor([110.0]))
        tensor([[1., 0.]])
    """

    loss: NumberLoss
    mean: Sequence[float]
    deviation: Sequence[float]

    def __post_init__(self) -> None:
        mean, deviation = tuple(map(float, self.mean)), tuple(map(float, self.deviation))
        if len(mean) != len(deviation) or not mean:
            raise ValueError(
                "mean and deviation must have a number for each target, got "
                f"{len(mean)} and {len(deviation)}"
            )
        if not all(each > 0 for each in deviation):
            raise ValueError(f"deviation must hold numbers above 0, got {list(deviation)}")
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "deviation", deviation)

    @property
    def outputs_a_target(self) -> int:
        """Number of outputs for each target, as in the loss."""
        return self.loss.outputs_a_target

    @property
    def expected_outputs(self) -> str:  # type: ignore[override]
        """The outputs that the network must have, for errors."""
        return self.loss.expected_outputs

    def target_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each target, of standardised targets."""
        return self.loss.target_losses(outputs, targets)

    def ensemble_target_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of the ensemble's prediction, of standardised targets."""
        return self.loss.ensemble_target_losses(outputs, targets)

    def check(
        self, outputs_shape: Sequence[int], targets: Tensor, *, per_member: bool = False
    ) -> None:
        """Raise ``ValueError`` if targets do not match the outputs or the number of means."""
        self.loss.check(outputs_shape, targets, per_member=per_member)
        expected = targets_of(self.loss, outputs_shape)
        if len(self.mean) != expected:
            raise ValueError(
                f"mean and deviation must have a number for each of the {expected} targets that "
                f"the network's outputs are for, got {len(self.mean)}"
            )

    def _known(
        self, outputs: Tensor, targets: Tensor, *, per_member: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return standardised targets ``[batch, 1 or members, targets, ...]`` and a mask of the
        known ones."""
        targets = self._aligned(outputs.shape, targets, per_member=per_member)
        known = ~targets.isnan()
        targets = targets.to(exact(targets.device))
        along = [-1, *[1] * (targets.dim() - 3)]
        mean, deviation = (
            targets.new_tensor(each).view(along) for each in (self.mean, self.deviation)
        )
        return torch.where(known, (targets - mean) / deviation, 0).to(outputs.dtype), known


@dataclass(frozen=True)
class LossUnit:
    """The conversion of a loss of standardised targets to the unit of the targets.

    Attributes:
        factor: what the loss is multiplied by.
        shift: what is then added, in nats.

    Example:
        >>> LossUnit(shift=9.0)(-0.5)
        8.5
    """

    factor: float = 1.0
    shift: float = 0.0

    def __call__(self, loss: float) -> float:
        """Return a loss in the unit of the targets."""
        return self.factor * loss + self.shift


def unit_of(loss: EnsembleLoss) -> LossUnit | None:
    """Return what converts a loss to the unit of the targets.

    With targets ``s`` times as large the Gaussian NLL is larger by ``ln s``, the squared error and
    the Huber loss, whose ``delta`` is in standard units, by the factor ``s²``, and the quantile
    loss by the factor ``s``.

    Args:
        loss: any loss; those that are not standardised are in this unit.

    Returns:
        ``None`` where no formula is known, or where targets have several units: a mean over targets
        cannot be taken apart again.

    Example:
        >>> unit_of(Standardised(MSE(), [100.0], [10.0]))
        LossUnit(factor=100.0, shift=0.0)
    """
    if not isinstance(loss, Standardised):
        return LossUnit()
    scale, plain = loss.deviation[0], loss.loss
    if any(each != scale for each in loss.deviation):
        return None
    if isinstance(plain, GaussianNLL):
        return LossUnit(shift=math.log(scale))
    if isinstance(plain, (MSE, Huber)):
        return LossUnit(scale**2)
    return LossUnit(scale) if isinstance(plain, Quantile) else None


def is_standardised(loss: EnsembleLoss) -> bool | None:
    """Return whether a regression loss can be told in standard units only; ``None`` for others."""
    if not isinstance(loss, NumberLoss) or isinstance(loss, BinaryCrossEntropy):
        return None
    return unit_of(loss) is None


def targets_of(loss: NumberLoss, outputs_shape: Sequence[int]) -> int:
    """Return the number of targets that outputs ``[batch, members, ...]`` predict."""
    return outputs_shape[2] // loss.outputs_a_target if len(outputs_shape) > 2 else 1


def standardised(
    loss: EnsembleLoss,
    outputs_shape: Sequence[int],
    targets: Iterable[Tensor],
    dtype: torch.dtype = torch.float32,
    *,
    per_member: bool = False,
) -> Standardised:
    """Return the loss of targets standardised by the mean and deviation of the training data.

    Both are computed from targets rounded to the network's type, if that represents them well
    enough: a checkpoint then recognises the same data, whatever precision they are given in.

    Args:
        loss: a regression loss.
        outputs_shape: shape of the network's outputs, ``[batch, members, ...]``.
        targets: the targets of each batch, ``[batch, ...]``, or ``[batch, members, ...]`` with
            ``per_member``.
        dtype: floating-point type of the network, by default float32.
        per_member: whether each member has its own targets.

    Raises:
        ValueError: it is no regression loss, targets do not match the outputs, a target is missing
            in all examples, or its spread exceeds float64.

    Example:
        >>> from batchensemble.losses import MSE
        >>> standardised(MSE(), (1, 4, 1), [torch.tensor([1.0, 3.0])])
        Standardised(loss=MSE(), mean=(2.0,), deviation=(1.0,))
    """
    if not isinstance(loss, NumberLoss) or isinstance(loss, (BinaryCrossEntropy, Standardised)):
        raise ValueError(
            "standardise_targets is for regression losses, such as loss='gaussian_nll', got "
            f"{loss}; leave it out"
        )
    number = targets_of(loss, outputs_shape)
    moments = [_Moments(number) for _ in range(3)]  # of targets, rounded ones, their difference
    for each in targets:
        loss.check(outputs_shape, each, per_member=per_member)
        entry = _entry(loss, outputs_shape)
        found = aligned(each, outputs_shape[1], entry, per_member=per_member)
        assert found is not None  # it was checked
        values = found.to(exact(found.device)).cpu().double()
        values = values.unsqueeze(2) if values.dim() < 3 else values
        values = values.movedim(2, 0).flatten(1)
        rounded = values.to(dtype).double()
        for moment, part in zip(moments, (values, rounded, rounded - values), strict=True):
            moment.add(part)
    if not moments[0].totals[0].all():
        raise ValueError("standardise_targets needs at least one known number of each target")
    (mean, deviation), in_type, off = (each.moments() for each in moments)
    if not deviation.isfinite().all():
        raise ValueError(
            "standardise_targets needs numbers whose squares float64 holds, up to about 1e150, got "
            f"targets around {mean[~deviation.isfinite()][0].item():.4g}; divide them by their unit"
        )
    moved = torch.hypot(*off)
    held = moved <= LARGEST_ERROR * deviation  # not where it is NaN, of numbers beyond the type
    held |= deviation == 0
    mean, deviation = (
        torch.where(held, *each) for each in zip(in_type, (mean, deviation), strict=True)
    )
    constant = deviation <= mean.abs() * NOISE
    return Standardised(loss, mean.tolist(), torch.where(constant, 1.0, deviation).tolist())


class _Moments:
    """Running mean and standard deviation of each target."""

    def __init__(self, number: int) -> None:
        self.totals = torch.zeros(3, number, dtype=torch.float64)  # count, sum, sum of squares
        self.shift: Tensor | None = None  # near the mean, so that squares do not lose what differs

    def add(self, values: Tensor) -> None:
        """Add values ``[targets, values]``; NaN are ignored."""
        if self.shift is None:
            self.shift = values.nanmean(1, keepdim=True).nan_to_num()
        known = ~values.isnan()
        apart = torch.where(known, values - self.shift, 0)
        self.totals += torch.stack([known.sum(1), apart.sum(1), apart.square().sum(1)])

    def moments(self) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation, each ``[targets]``."""
        assert self.shift is not None
        count, total, squares = self.totals
        mean = total / count
        deviation = (squares / count - mean.square()).clamp(min=0).sqrt()
        return self.shift[:, 0] + mean, deviation


def _entry(loss: NumberLoss, outputs_shape: Sequence[int]) -> Any:
    """Return the shape of one example's targets."""
    tail = tuple(outputs_shape[3:])
    return (targets_of(loss, outputs_shape), *tail) if len(outputs_shape) > 2 else ()
