"""Fast weights: two vectors a member that bend one shared weight, whatever its shape.

A weight has an axis of inputs and an axis of outputs. ``r`` lies along the inputs, ``s`` along the
outputs; a convolution's kernel is bent alike everywhere in multiplicative mode and is flattened
with the inputs in additive mode.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from batchensemble.layers.base.twin import same
from batchensemble.layers.rank_one.factorise import fit_low_rank, fit_rank_one

Mode = Literal["multiplicative", "additive"]
Owner = Literal["member", "shared"]


@dataclass(frozen=True)
class Layout:
    """How the vectors lie along a weight.

    Attributes:
        shape: of the weight.
        inputs_first: the first axis is the inputs', as in embeddings and transposed convolutions.
        groups: of a convolution; the second axis then holds one group.
    """

    shape: tuple[int, ...]
    inputs_first: bool = False
    groups: int = 1

    def sizes(self, mode: Mode) -> tuple[int, int]:
        """Return how long ``r`` and ``s`` are."""
        first, second = self.shape[0], math.prod(self.shape[1:])
        if mode == "multiplicative":
            second = self.shape[1] * self.groups
        return (first, second) if self.inputs_first else (second, first)

    def order(self, r: Any, s: Any) -> tuple[Any, Any]:
        """Return the vector along the first axis of the weight and the other one."""
        return (r, s) if self.inputs_first else (s, r)

    def factor(self, r: Tensor, s: Tensor) -> Tensor:
        """Return what a member multiplies the weight by, in a shape that broadcasts to it."""
        first, second = self.order(r, s)
        if self.groups > 1:
            second = second.view(self.groups, 1, -1).expand(-1, self.shape[0] // self.groups, -1)
        return (first.view(-1, 1) * second.reshape(-1, self.shape[1])).view(
            *self.shape[:2], *[1] * (len(self.shape) - 2)
        )

    def addend(self, r: Tensor, s: Tensor) -> Tensor:
        """Return what a member adds to the weight."""
        first, second = self.order(r, s)
        return (first.mT @ second).view(self.shape)


@dataclass(frozen=True)
class FastWeights:
    """One shared weight and what bends it: what an initialisation fills.

    Attributes:
        weight: the shared weight, any shape.
        r: ``[members, inputs]``, or ``[members, rank, inputs]`` in additive mode.
        s: ``[members, outputs]``, or ``[members, rank, outputs]``.
        bias: the layer's, ``[members, outputs]`` where each member has its own, or ``None``.
        mode: ``"multiplicative"`` or ``"additive"``.
        scale: of the additive part.
        layout: how the vectors lie along the weight.
        std: of the ``"normal"`` start.
    """

    weight: Tensor
    r: Tensor
    s: Tensor
    bias: Tensor | None
    mode: Mode
    scale: float
    layout: Layout
    std: float

    def merged(self, index: int) -> Tensor:
        """Return member ``index``'s weight."""
        r, s = self.r[index], self.s[index]
        if self.mode == "multiplicative":
            return self.weight * self.layout.factor(r, s)
        return self.weight + self.scale * self.layout.addend(r, s)

    def put(self, index: int, target: Tensor) -> bool:
        """Bend the weight of member ``index`` to ``target``, in place; tell whether it could be."""
        weight, layout = self.weight.detach(), self.layout
        if not (target - weight).isfinite().all():
            return False
        if self.mode == "multiplicative":
            first, second = fit_rank_one(weight, target.detach(), layout.groups)
        else:
            added = (target.detach() - weight).flatten(1) / self.scale
            first, second = fit_low_rank(added, self.r.shape[1])
        r, s = layout.order(first, second)
        own = self.r.detach()[index], self.s.detach()[index]
        before = [each.clone() for each in own]
        _copy(own, (r, s))
        if same(self.merged(index), target):
            return True
        _copy(own, before)
        return False


def _copy(vectors: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for one, other in zip(vectors, values, strict=True):
        one.copy_(other)
