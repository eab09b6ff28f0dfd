"""Losses of one network that predicts an ensemble's mean and how its uncertainty divides.

Beside the outputs of its kind such a network has another one for each prediction: the logit of the
share of the uncertainty that is epistemic, or, of points, the raw standard deviation of the
members. :class:`FromTeacher` trains it on the predictions of an ensemble.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from batchensemble.core.arguments import positive_number
from batchensemble.losses.base import Custom, EnsembleLoss, full_precision, mean_of_entries
from batchensemble.losses.classes import ClassLoss
from batchensemble.losses.numbers import MSE, BinaryCrossEntropy, GaussianNLL, Huber, NumberLoss
from batchensemble.losses.standardised import Standardised


class Distilled(EnsembleLoss):
    """What the outputs of a distilled network mean, and how far they are from an ensemble's."""

    @abstractmethod
    def divergence(self, outputs: Tensor, told: Tensor) -> Tensor:
        """Return how far predictions are from those of an ensemble, in nats, up to a constant.

        Args:
            outputs: of the distilled network, ``[batch, members, outputs, ...]``.
            told: what the ensemble predicts, ``[batch, 1, numbers, ...]``.

        Returns:
            ``[batch, members, ...]``.
        """

    @abstractmethod
    def outputs_for(self, told: int) -> int:
        """Return the number of outputs of a network for a number of the ensemble's numbers."""


@dataclass(frozen=True)
class DistilledClasses(Distilled, ClassLoss):
    """NLL of classes in nats, of C logits and the logit of the epistemic share of their entropy.

    Outputs are ``[batch, members, C + 1, ...]``. The ensemble's numbers are its C mean
    probabilities, its aleatoric and its epistemic entropy.

    Args:
        ignore_index: index in the targets that marks entries without a class; by default there are
            none.

    Example:
        >>> loss = DistilledClasses()
        >>> loss(torch.zeros(1, 1, 5), torch.tensor([3]))
        tensor([[1.3863]])
        >>> [each.tolist() for each in loss.distribution(torch.zeros(1, 1, 3))]
        [[[[0.5, 0.5]]], [[0.5]]]
    """

    def __call__(self, outputs: Tensor, targets: Tensor, *, per_member: bool = False) -> Tensor:
        """Return the NLL of each member on each example, ``[batch, members]``."""
        log_probs = self.log_probs(full_precision(outputs))
        return self._nll(log_probs, self._aligned(outputs.shape, targets, per_member=per_member))

    def log_probs(self, outputs: Tensor) -> Tensor:
        """Return the log probability of each class."""
        return outputs[:, :, :-1].log_softmax(2)

    def classes(self, outputs: int) -> int:
        """Return the number of classes, one less than outputs."""
        return outputs - 1

    def distribution(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return probabilities, and the epistemic share of their entropy, 0 to 1.

        They are ``[batch, members, classes, ...]`` and ``[batch, members, ...]``.
        """
        return self.log_probs(outputs).exp(), outputs[:, :, -1].sigmoid()

    def divergence(self, outputs: Tensor, told: Tensor) -> Tensor:
        """Return the cross-entropy of the classes, and of the two parts of their entropy."""
        classes = outputs.shape[2] - 1
        mean, aleatoric, epistemic = told.split((classes, 1, 1), 2)
        of_classes = -(mean * self.log_probs(outputs)).sum(2)
        return of_classes + _of_share(outputs[:, :, -1], aleatoric[:, :, 0], epistemic[:, :, 0])

    def outputs_for(self, told: int) -> int:
        """Return one output less: C + 1 for C + 2 numbers."""
        return told - 1


class _DistilledNumbers(Distilled, NumberLoss, ABC):
    """What is told of each number, one after the other, as outputs are."""

    told_a_target: ClassVar[int]

    def outputs_for(self, told: int) -> int:
        """Return the number of outputs for all targets."""
        return told // self.told_a_target * self.outputs_a_target

    def _told(self, told: Tensor) -> tuple[Tensor, ...]:
        """Return each of the numbers, ``[batch, 1, targets, ...]``."""
        return told.unflatten(2, (self.told_a_target, -1)).unbind(2)


@dataclass(frozen=True)
class DistilledLabels(_DistilledNumbers, BinaryCrossEntropy):
    """Binary cross-entropy in nats, of a logit and the logit of the epistemic share a label.

    In ``[batch, members, 2 * labels, ...]`` the logits come first. The ensemble's numbers of a
    label are its mean probability, its aleatoric and its epistemic entropy.

    Example:
        >>> DistilledLabels()(torch.zeros(1, 1, 4), torch.tensor([[1.0, 0.0]]))
        tensor([[0.6931]])
    """

    expected_outputs: ClassVar[str] = (
        "two outputs for each label, first the logits, then those of the epistemic shares"
    )
    told_a_target: ClassVar[int] = 3

    @property
    def outputs_a_target(self) -> int:
        """Two: the logit, and that of the share."""
        return 2

    def distribution(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return probabilities and epistemic shares, each ``[batch, members, labels, ...]``."""
        logits, share = self._by_target(outputs).unbind(2)
        return logits.sigmoid(), share.sigmoid()

    def target_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy of each label."""
        return super().target_losses(self._by_target(outputs)[:, :, 0], targets)

    def ensemble_target_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the NLL of the mean probability of each label."""
        return super().ensemble_target_losses(self._by_target(outputs)[:, :, 0], targets)

    def divergence(self, outputs: Tensor, told: Tensor) -> Tensor:
        """Return the cross-entropy of each label, and of the two parts of its entropy."""
        logits, share = self._by_target(outputs).unbind(2)
        mean, aleatoric, epistemic = self._told(told)
        of_labels = F.binary_cross_entropy_with_logits(
            logits, mean.expand_as(logits), reduction="none"
        )
        return of_labels + _of_share(share, aleatoric, epistemic)


@dataclass(frozen=True)
class DistilledNormals(_DistilledNumbers, GaussianNLL):
    """NLL in nats of a normal distribution, of its mean, its raw scale and its epistemic share.

    In ``[batch, members, 3 * targets, ...]`` all means come first, then the raw scales, then the
    logits of the share of the variance that is epistemic. The ensemble's numbers of a target are
    its mean, its aleatoric and its epistemic variance.

    Args:
        floor: smallest standard deviation, in the unit of the targets; by default 0.001.
        beta: as in :class:`GaussianNLL`.

    Example:
        >>> [each.tolist() for each in DistilledNormals(floor=1.0).parts(torch.zeros(1, 1, 3))][0]
        [[[0.0]]]
    """

    expected_outputs: ClassVar[str] = (
        "three outputs for each target, first the means, then the raw scales, then the logits of "
        "the epistemic shares"
    )
    told_a_target: ClassVar[int] = 3

    @property
    def outputs_a_target(self) -> int:
        """Three: mean, raw scale, and the logit of the share."""
        return 3

    def distribution(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return means and standard deviations, each ``[batch, members, targets, ...]``."""
        mean, raw, _ = self._by_target(outputs).unbind(2)
        return mean, F.softplus(raw) + self.floor

    def parts(self, outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return means, standard deviations, and the epistemic standard deviations."""
        mean, deviation = self.distribution(outputs)
        share = self._by_target(outputs)[:, :, 2].sigmoid()
        return mean, deviation, deviation * share.sqrt()

    def divergence(self, outputs: Tensor, told: Tensor) -> Tensor:
        """Return the cross-entropy of the members' mixture, and of the parts of its variance."""
        mean, deviation = self.distribution(outputs)
        of_members, aleatoric, epistemic = self._told(told)
        total = aleatoric + epistemic
        moment = (mean - of_members).square() + total
        nll = deviation.log() + moment / (2 * deviation.square())
        share = self._by_target(outputs)[:, :, 2]
        return nll + _of_share(share, aleatoric / total, epistemic / total)


@dataclass(frozen=True)
class DistilledPoints(_DistilledNumbers, MSE):
    """Squared error of a number, with the raw standard deviation of the members that predict it.

    In ``[batch, members, 2 * targets, ...]`` the numbers come first. The ensemble's numbers of a
    target are its mean and its epistemic variance.

    Args:
        floor: smallest standard deviation of the members, in the unit of the targets; by default
            0.001.

    Example:
        >>> DistilledPoints()(torch.tensor([[[1.0, 0.0]]]), torch.tensor([0.0]))
        tensor([[1.]])
    """

    floor: float = 1e-3
    expected_outputs: ClassVar[str] = (
        "two outputs for each target, first the numbers, then the raw deviations of the members"
    )
    told_a_target: ClassVar[int] = 2

    def __post_init__(self) -> None:
        positive_number("floor", self.floor)

    @property
    def outputs_a_target(self) -> int:
        """Two: the number, and the raw deviation of the members."""
        return 2

    def parts(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the numbers and the members' standard deviations, as in the ensemble."""
        mean, raw = self._by_target(outputs).unbind(2)
        return mean, F.softplus(raw) + self.floor

    def target_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the squared errors."""
        return super().target_losses(self.parts(outputs)[0], targets)

    def ensemble_target_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the squared errors of the members' mean."""
        return self.target_losses(outputs.mean(1, keepdim=True), targets)

    def divergence(self, outputs: Tensor, told: Tensor) -> Tensor:
        """Return the NLL of the members' numbers in the normal distribution of the outputs."""
        mean, deviation = self.parts(outputs)
        of_members, epistemic = self._told(told)
        moment = (mean - of_members).square() + epistemic
        return deviation.log() + moment / (2 * deviation.square())


@dataclass(frozen=True)
class FromTeacher(EnsembleLoss):
    """The loss of a network that is distilled: how far it is from what an ensemble predicts.

    Targets are the ensemble's numbers, ``[batch, numbers, ...]``, in the order of ``loss``.

    Args:
        loss: what the outputs of the network mean.

    Example:
        >>> told = torch.tensor([[0.5, 0.5, 0.6, 0.1]])  # two classes, aleatoric and epistemic
        >>> FromTeacher(DistilledClasses())(torch.zeros(1, 1, 3), told).round(decimals=4)
        tensor([[1.1784]])
    """

    loss: Distilled

    def __call__(self, outputs: Tensor, targets: Tensor, *, per_member: bool = False) -> Tensor:
        """Return the mean divergence over each example's predictions, ``[batch, members]``."""
        outputs = full_precision(outputs)
        told = targets.unsqueeze(1).to(outputs.dtype)
        return mean_of_entries(self.loss.divergence(outputs, told))

    def of_ensemble(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the divergence of the one network, ``[batch]``."""
        return self(outputs[:, :1], targets)[:, 0]

    def read(self, targets: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the ensemble's numbers in the network's type."""
        return targets.to(dtype)

    def check(
        self, outputs_shape: Sequence[int], targets: Tensor, *, per_member: bool = False
    ) -> None:
        """Raise ``ValueError`` if the outputs are not those of a network for these numbers."""
        numbers, rest = targets.shape[1], list(targets.shape[2:])
        expected = [self.loss.outputs_for(numbers), *rest]
        if list(outputs_shape[2:]) != expected:
            raise ValueError(
                f"outputs of an example must have the shape {expected}, got "
                f"{list(outputs_shape[2:])}"
            )


def as_distilled(loss: EnsembleLoss) -> NumberLoss | DistilledClasses:
    """Return what the outputs of a network mean that is distilled from an ensemble.

    Args:
        loss: the loss of the ensemble.

    Raises:
        ValueError: ensembles of this loss cannot be distilled.

    Example:
        >>> as_distilled(GaussianNLL())
        DistilledNormals(floor=0.001, beta=0.0)
    """
    if isinstance(loss, Standardised):
        inner = as_distilled(loss.loss)
        assert isinstance(inner, NumberLoss)  # as standardised losses are
        return Standardised(inner, loss.mean, loss.deviation)
    if isinstance(loss, ClassLoss):
        return DistilledClasses(loss.ignore_index)
    if isinstance(loss, Custom):
        return DistilledClasses()
    if isinstance(loss, BinaryCrossEntropy):
        return DistilledLabels()
    if isinstance(loss, GaussianNLL):
        return DistilledNormals(loss.floor)
    if isinstance(loss, (MSE, Huber)):
        return DistilledPoints()
    raise ValueError(
        "ensembles of classes, labels, numbers and normal distributions can be distilled, got one "
        f"trained with {loss}; train it with loss='gaussian_nll' for distributions of numbers"
    )


def _of_share(logits: Tensor, aleatoric: Tensor, epistemic: Tensor) -> Tensor:
    """Return the cross-entropy of the two parts of an uncertainty, from the epistemic's logit."""
    return -(epistemic * F.logsigmoid(logits) + aleatoric * F.logsigmoid(-logits))
