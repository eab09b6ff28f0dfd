"""Losses for classification: one class per example, or per token or pixel."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from batchensemble.core.arguments import fraction, whole_number
from batchensemble.losses.base import (
    EnsembleLoss,
    aligned,
    full_precision,
    log_mean_exp,
    mean_of_entries,
    shape_in_words,
    sum_of_entries,
)
from batchensemble.losses.class_weights import (
    balanced,
    check_class_weights,
    weight_of_each_class,
    weight_of_each_target,
)
from batchensemble.losses.targets import ONE_HOT, class_numbers


def cross_entropy(
    outputs: Float[Tensor, "batch members classes"],
    targets: Int[Tensor, "batch"] | Int[Tensor, "batch members"],
) -> Float[Tensor, "batch members"]:
    """Return the cross-entropy of each member on each example, in nats.

    Args:
        outputs: the members' logits.
        targets: class indices, one for each example, or one for each member of each example.

    Example:
        >>> import torch
        >>> cross_entropy(torch.zeros(1, 2, 4), torch.tensor([3]))
        tensor([[1.3863, 1.3863]])
    """
    batch, members = outputs.shape[:2]
    if targets.dim() == 2:
        losses = F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction="none")
        return losses.view(batch, members)
    # Members first, as the rows are in memory, so that flattening copies nothing.
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


@dataclass(frozen=True)
class ClassLoss(EnsembleLoss):
    """A loss of outputs that define the probability of each class.

    Args:
        ignore_index: index in the targets that marks entries without a class; by default there are
            none.
    """

    ignore_index: int | None = None

    def __post_init__(self) -> None:
        if self.ignore_index is not None:
            whole_number("ignore_index", self.ignore_index, at_least=-(2**62))

    @abstractmethod
    def log_probs(self, outputs: Tensor) -> Tensor:
        """Return the log probability of each class, ``[batch, members, classes, ...]``."""

    @abstractmethod
    def classes(self, outputs: int) -> int:
        """Return the number of classes for a number of outputs."""

    def of_ensemble(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the NLL of the members' mean probability, ``[batch]``, nats."""
        log_probs = log_mean_exp(self.log_probs(full_precision(outputs)), 1).unsqueeze(1)
        return self._nll(log_probs, self._aligned(outputs.shape, targets))[:, 0]

    def read(self, targets: Tensor, dtype: torch.dtype) -> Tensor:
        """Return class indices as int64."""
        return class_numbers(targets, self.ignore_index)

    def check(
        self, outputs_shape: Sequence[int], targets: Tensor, *, per_member: bool = False
    ) -> None:
        """Raise ``ValueError`` if the shapes do not match or a class is out of range."""
        if len(outputs_shape) < 3 or self.classes(outputs_shape[2]) < 2:
            raise ValueError(self._too_few(outputs_shape))
        self._aligned(outputs_shape, targets, per_member=per_member)
        known = targets if self.ignore_index is None else targets[targets != self.ignore_index]
        class_numbers(known)
        outputs, highest = outputs_shape[2], int(known.max()) if known.numel() else 0
        classes = self.classes(outputs)
        if highest >= classes:
            raise ValueError(
                f"y must hold class numbers from 0 to {classes - 1}, since the network has "
                f"{outputs} outputs, got {highest}; give the last layer "
                f"{outputs + highest + 1 - classes} outputs, or if that is what a class is called "
                "give class_names=[...], what each is called"
            )

    def counts(self, targets: Tensor, *, own: bool = False) -> Tensor | None:
        """Return the number of entries of each example that have a class."""
        known = self._known(targets)
        return None if known is None else sum_of_entries(known, own=own)

    def _known(self, targets: Tensor) -> Tensor | None:
        return None if self.ignore_index is None else targets != self.ignore_index

    def _nll(self, log_probs: Tensor, targets: Tensor) -> Tensor:
        """Return the NLL, averaged over the entries, for targets ``[batch, 1 or members, ...]``."""
        known = self._known(targets)
        index = targets if known is None else torch.where(known, targets, 0)
        index = index.expand(-1, log_probs.shape[1], *index.shape[2:]).unsqueeze(2)
        nll = -log_probs.gather(2, index).squeeze(2)
        if known is None:
            return mean_of_entries(nll)
        return mean_of_entries(torch.where(known, nll, 0), known.to(nll))

    def _aligned(
        self, outputs_shape: Sequence[int], targets: Tensor, *, per_member: bool = False
    ) -> Tensor:
        entry = outputs_shape[3:]
        found = aligned(targets, outputs_shape[1], entry, per_member=per_member)
        if found is None:
            raise ValueError(
                f"y must have the shape {shape_in_words(entry, per_member=per_member)}, since the "
                "network's outputs are [batch, members, classes, ...] of shape "
                f"{list(outputs_shape)}, got {list(targets.shape)}"
                + self._cure(outputs_shape, targets)
            )
        return found.long()

    def _cure(self, outputs_shape: Sequence[int], targets: Tensor) -> str:
        """Return advice for one-hot rows and soft labels, which have another shape."""
        if tuple(targets.shape[1:]) != (self.classes(outputs_shape[2]), *outputs_shape[3:]):
            return ""
        return f"; {ONE_HOT}"

    def _too_few(self, outputs_shape: Sequence[int]) -> str:
        got = outputs_shape[2] if len(outputs_shape) > 2 else f"the shape {list(outputs_shape)}"
        return (
            f"the cross-entropy takes one output for each class, at least 2, the network has "
            f"{got}; give the last layer as many outputs as there are classes"
        )


@dataclass(frozen=True)
class CrossEntropy(ClassLoss):
    """Cross-entropy in nats, of logits ``[batch, members, classes, ...]``.

    Targets are class indices ``[batch, ...]``, one per example, or one per token or pixel, with the
    axes of the outputs after the classes, as in ``torch.nn.functional.cross_entropy``.

    Args:
        ignore_index: index in the targets that marks entries without a class; by default there are
            none.
        class_weight: weight of each class: a sequence with one number for each, or a mapping from
            some classes to theirs, the others' being 1. ``"balanced"``, which ``fit`` computes from
            the training data, is ``examples / (classes * examples of the class)``, as in
            scikit-learn. The mean of a batch is weighted by the classes of its targets, as in
            torch. Validation data are scored without weights. By default all are 1.
        label_smoothing: share of the target that is spread over all classes, 0 to 1 (Szegedy et al.
            2016, arXiv 1512.00567), by default 0. Validation data are scored without it.

    Example:
        >>> outputs, targets = torch.zeros(1, 2, 4), torch.tensor([3])
        >>> CrossEntropy(label_smoothing=0.1)(outputs, targets)
        tensor([[1.3863, 1.3863]])
    """

    class_weight: Any = None
    label_smoothing: float = 0.0
    logits: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        fraction("label_smoothing", self.label_smoothing)
        object.__setattr__(self, "class_weight", check_class_weights(self.class_weight))

    def __call__(self, outputs: Tensor, targets: Tensor, *, per_member: bool = False) -> Tensor:
        """Return the cross-entropy of each member on each example, ``[batch, members]``."""
        outputs = full_precision(outputs)
        batch, members, classes = outputs.shape[:3]
        targets = self._aligned(outputs.shape, targets, per_member=per_member)
        weight = None
        if self.class_weight is not None:
            weight = weight_of_each_class(self.class_weight, classes).to(outputs)
        each = targets.transpose(0, 1).expand(members, batch, *targets.shape[2:])
        losses = F.cross_entropy(
            outputs.transpose(0, 1).flatten(0, 1),
            each.flatten(0, 1),
            weight=weight,
            ignore_index=-100 if self.ignore_index is None else self.ignore_index,
            label_smoothing=self.label_smoothing,
            reduction="none",
        )
        losses = losses.unflatten(0, (members, batch)).transpose(0, 1)
        entries = self._entry_weights(targets)
        return mean_of_entries(losses, None if entries is None else entries.to(losses))

    def log_probs(self, outputs: Tensor) -> Tensor:
        """Return the log probability of each class."""
        return outputs.log_softmax(2)

    def classes(self, outputs: int) -> int:
        """Return the number of classes, one for each output."""
        return outputs

    def check(
        self, outputs_shape: Sequence[int], targets: Tensor, *, per_member: bool = False
    ) -> None:
        """Raise ``ValueError`` if targets or class weights do not match the outputs."""
        super().check(outputs_shape, targets, per_member=per_member)
        if self.class_weight is not None:
            weight_of_each_class(self.class_weight, outputs_shape[2])

    def weights(self, targets: Tensor, *, own: bool = False) -> Tensor | None:
        """Return the sum of the weights of each example's targets."""
        entries = self._entry_weights(targets)
        return None if entries is None else sum_of_entries(entries, own=own)

    def balanced(self, targets: Tensor | Mapping[int, int]) -> CrossEntropy:
        """Return this loss with the balanced class weights of some targets.

        Args:
            targets: class indices of any shape, or the number of examples of each class.
        """
        if isinstance(targets, Mapping):
            counts = {each: n for each, n in targets.items() if each != self.ignore_index}
            return replace(self, class_weight=balanced(counts))
        known = self._known(targets)
        return replace(self, class_weight=balanced(targets if known is None else targets[known]))

    def _entry_weights(self, targets: Tensor) -> Tensor | None:
        """Return the weight of each entry; ``None`` if all are equal."""
        known = self._known(targets)
        if self.class_weight is None:
            return known
        index = targets if known is None else torch.where(known, targets, 0)
        weights = weight_of_each_target(self.class_weight, index.long())
        return weights if known is None else weights * known


@dataclass(frozen=True)
class Ordinal(ClassLoss):
    """NLL of K ordered classes in nats, from K - 1 logits ``[batch, members, K - 1, ...]``.

    Logit k gives the probability of a class above k, given that it is at least k, so that any
    logits define a distribution: the likelihood of CORN (Shi, Cao and Raschka 2021, arXiv
    2111.08851), known in statistics as the continuation ratio model.

    Args:
        ignore_index: index in the targets that marks entries without a class; by default there are
            none.

    Example:
        >>> Ordinal()(torch.zeros(1, 2, 2), torch.tensor([0]))
        tensor([[0.6931, 0.6931]])
    """

    def __call__(self, outputs: Tensor, targets: Tensor, *, per_member: bool = False) -> Tensor:
        """Return the NLL of each member on each example, ``[batch, members]``."""
        log_probs = self.log_probs(full_precision(outputs))
        return self._nll(log_probs, self._aligned(outputs.shape, targets, per_member=per_member))

    def log_probs(self, outputs: Tensor) -> Tensor:
        """Return the log probability of each of the K classes, ``[batch, members, K, ...]``."""
        none = torch.zeros_like(outputs[:, :, :1])
        reached = torch.cat([none, F.logsigmoid(outputs).cumsum(2)], 2)
        return reached + torch.cat([F.logsigmoid(-outputs), none], 2)

    def classes(self, outputs: int) -> int:
        """Return the number of classes, one more than outputs."""
        return outputs + 1
