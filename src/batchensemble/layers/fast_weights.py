"""Fast weights: two vectors a member that bend one shared weight, whatever its shape.

A weight has an axis of inputs and an axis of outputs. ``r`` lies along the inputs, ``s`` along the
outputs; a convolution's kernel is bent alike everywhere in multiplicative mode and is flattened
with the inputs in additive mode.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from batchensemble.layers.fitting import fit_low_rank, fit_rank_one
from batchensemble.layers.initialisation import initialise
from batchensemble.layers.options import Mode, Options
from batchensemble.layers.twin import Twin, same


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


class RankOne(Twin):
    """A layer whose members share its weights and own two vectors for each.

    Subclass it for a layer of your own: name the weights to be bent in ``matrices``; everything
    else, biases for example, becomes each member's own. Its members then run one after the other,
    with their weights merged, through the layer's own ``forward``; give a ``forward`` that is
    faster where you can.

    Args:
        layer: the plain layer; its weights become the shared ones, the same ``Parameter``.
        members: how many members (M).
        options: see :class:`batchensemble.layers.options.Options`.

    Example:
        >>> import torch
        >>> class RankOneBilinear(RankOne):
        ...     matrices = ("weight",)
        >>> twin = RankOneBilinear(nn.Bilinear(3, 4, 2), members=5)
        >>> twin(torch.zeros(5 * 6, 3), torch.zeros(5 * 6, 4)).shape
        torch.Size([30, 2])
    """

    matrices: Sequence[str] = ()

    def __init__(self, layer: nn.Module, members: int, **options: Any) -> None:
        self_options = Options(**options)
        super().__init__(layer, members, self_options.batch_axis)
        self.options = self_options
        self.layouts: dict[str, Layout] = {}
        self.hold_tensors(layer)
        for name in self.layouts:
            initialise(self.fast_weights(name), self_options)

    def hold_tensors(self, layer: nn.Module) -> None:
        """Take over the tensors of the plain layer."""
        for name, parameter in layer.named_parameters():
            if name in self.matrices:
                self.hold_matrix(name, parameter, self.layout(layer, name))
            else:
                self.hold(name, parameter, own=self.options.bias == "member")
        for name, buffer in layer.named_buffers():
            self.hold(name, buffer, own=True)

    def layout(self, layer: nn.Module, name: str) -> Layout:
        """Return how fast weights lie along the weight ``name`` of the plain layer."""
        return Layout(tuple(getattr(layer, name).shape))

    def hold_matrix(self, name: str, weight: Tensor, layout: Layout) -> None:
        """Share a weight and give each member its vectors for it."""
        setattr(self, name, weight)
        self.layouts[name] = layout
        options, prefix = self.options, self._prefix(name)
        vectors = (
            (self.members,) if options.mode == "multiplicative" else (self.members, options.rank)
        )
        for side, size in zip("rs", layout.sizes(options.mode), strict=True):
            fast = weight.detach().new_empty(*vectors, size)
            self.register_parameter(prefix + side, nn.Parameter(fast))
            self.own.append(prefix + side)

    def fast_weights(self, name: str = "weight") -> FastWeights:
        """Return a shared weight with what bends it."""
        prefix, options = self._prefix(name), self.options
        return FastWeights(
            weight=getattr(self, name),
            r=getattr(self, prefix + "r"),
            s=getattr(self, prefix + "s"),
            bias=getattr(self, "bias", None) if name == "weight" else None,
            mode=options.mode,
            scale=options.scale,
            layout=self.layouts[name],
            std=options.spread,
        )

    def merged_weight(self, index: int, name: str = "weight") -> Tensor:
        """Return member ``index``'s weight, fast weights merged in."""
        return self.fast_weights(name).merged(index)

    def tensors(self, index: int) -> dict[str, Tensor]:
        """Return the tensors of member ``index``'s plain layer, by name."""
        tensors = super().tensors(index)
        for name in self.layouts:
            tensors[name] = getattr(self, name) if self.for_all else self.merged_weight(index, name)
            del tensors[self._prefix(name) + "r"], tensors[self._prefix(name) + "s"]
        return tensors

    def roles(self) -> dict[str, str]:
        """Return what each parameter is."""
        roles = super().roles()
        for name in self.layouts:
            roles[self._prefix(name) + "r"] = roles[self._prefix(name) + "s"] = "fast"
        return roles

    def put(self, index: int, layer: nn.Module) -> None:
        """Make member ``index`` the plain ``layer``, in place."""
        if self.for_all:
            return super().put(index, layer)
        given = dict(layer.named_parameters())
        for name in self.layouts:
            if not self.fast_weights(name).put(index, given[name]):
                rank = self.options.rank if self.options.mode == "additive" else 1
                raise ValueError(
                    f"no {self.options.mode} change of rank {rank} takes the shared {name} of "
                    f"{self.name or 'the network'!r} to the given network's"
                )
        shared = {name for name, _ in self.named_parameters()} - {*self.own, *self.layouts}
        for name, value in {**given, **dict(layer.named_buffers())}.items():
            if name in self.own:
                getattr(self, name).detach()[index].copy_(value)
            elif name in shared:
                self.check_shared(name, getattr(self, name), value)
        return None

    def share_with_all(self, reason: str) -> None:
        """Let all members share the layer for good; its fast weights change nothing any more."""
        with torch.no_grad():
            for name in self.layouts:
                fast, multiplies = self.fast_weights(name), self.options.mode == "multiplicative"
                fast.s.fill_(float(multiplies))
                if multiplies:
                    fast.r.fill_(1.0)
                fast.r.requires_grad_(False)
                fast.s.requires_grad_(False)
        super().share_with_all(reason)

    def extra_repr(self) -> str:
        """Describe the layer in one line."""
        rank = f", rank={self.options.rank}" if self.options.mode == "additive" else ""
        return f"{super().extra_repr()}, {self.options.mode}{rank}"

    def _prefix(self, name: str) -> str:
        return "" if name == "weight" else f"{name}_"


def _copy(vectors: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for one, other in zip(vectors, values, strict=True):
        one.copy_(other)
