"""Fast weights: two vectors per member that modify one shared weight of any shape.

A weight has an axis of inputs and an axis of outputs. ``r`` lies along the inputs, ``s`` along the
outputs. In multiplicative mode all positions of a convolution's kernel are scaled alike; in
additive mode they are flattened with the inputs.
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
        shape: shape of the weight.
        inputs_first: whether the first axis is that of the inputs, as in embeddings and transposed
            convolutions.
        groups: number of groups of a convolution, whose second axis is within a group; by default
            1.
    """

    shape: tuple[int, ...]
    inputs_first: bool = False
    groups: int = 1

    def sizes(self, mode: Mode) -> tuple[int, int]:
        """Return the lengths of ``r`` and ``s``."""
        first, second = self.shape[0], math.prod(self.shape[1:])
        if mode == "multiplicative":
            second = self.shape[1] * self.groups
        return (first, second) if self.inputs_first else (second, first)

    def order(self, r: Any, s: Any) -> tuple[Any, Any]:
        """Return the vector along the first axis of the weight, then the other one."""
        return (r, s) if self.inputs_first else (s, r)

    def factor(self, r: Tensor, s: Tensor) -> Tensor:
        """Return the factor of a member's weight, in a shape that broadcasts to it."""
        first, second = self.order(r, s)
        if self.groups > 1:
            second = second.view(self.groups, 1, -1).expand(-1, self.shape[0] // self.groups, -1)
        return (first.view(-1, 1) * second.reshape(-1, self.shape[1])).view(
            *self.shape[:2], *[1] * (len(self.shape) - 2)
        )

    def addend(self, r: Tensor, s: Tensor) -> Tensor:
        """Return the addition to a member's weight, in its shape."""
        first, second = self.order(r, s)
        return (first.mT @ second).view(self.shape)


@dataclass(frozen=True)
class FastWeights:
    """One shared weight with its fast weights, the argument of an initialisation.

    Attributes:
        weight: the shared weight, of any shape.
        r: ``[members, inputs]``, or ``[members, rank, inputs]`` in additive mode.
        s: ``[members, outputs]``, or ``[members, rank, outputs]`` in additive mode.
        bias: the layer's bias, ``[members, outputs]`` if each member has its own, or ``None``.
        mode: ``"multiplicative"`` or ``"additive"``.
        scale: factor of the additive part, ``alpha / rank``.
        layout: how the vectors lie along the weight.
        std: standard deviation of ``init="normal"``.
        name: path of the layer in the network; empty for a layer that stands alone.
        first: whether it is the network's first weight with fast weights, in the order in which its
            modules are defined. With ``branch_at=`` that is the first one after the trunk.
        last: whether it is the last one.
    """

    weight: Tensor
    r: Tensor
    s: Tensor
    bias: Tensor | None
    mode: Mode
    scale: float
    layout: Layout
    std: float
    name: str = ""
    first: bool = False
    last: bool = False

    def merged(self, index: int) -> Tensor:
        """Return member ``index``'s merged weight."""
        r, s = self.r[index], self.s[index]
        if self.mode == "multiplicative":
            return self.weight * self.layout.factor(r, s)
        return self.weight + self.scale * self.layout.addend(r, s)

    def put(self, index: int, target: Tensor) -> bool:
        """Fit member ``index``'s vectors to a weight in place; return whether the fit is exact."""
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
