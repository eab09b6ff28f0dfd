"""A layer whose members share its weights and own two vectors for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from batchensemble.layers.base.twin import Twin
from batchensemble.layers.rank_one.fast_weights import FastWeights, Layout
from batchensemble.layers.rank_one.initialisation import initialise
from batchensemble.layers.rank_one.options import Options


class RankOne(Twin):
    """A layer whose members share its weights and own two vectors for each.

    Subclass it for a layer of your own: name the weights to be bent in ``matrices``; everything
    else, biases for example, becomes each member's own. Its members then run one after the other,
    with their weights merged, through the layer's own ``forward``; give a ``forward`` that is
    faster where you can.

    Args:
        layer: the plain layer; its weights become the shared ones, the same ``Parameter``.
        members: how many members (M).
        options: see :class:`batchensemble.layers.rank_one.options.Options`.

    Example:
        >>> import torch
        >>> class RankOneBilinear(RankOne):
        ...     matrices = ("weight",)
        >>> twin = RankOneBilinear(nn.Bilinear(3, 4, 2), members=5)
        >>> twin(torch.zeros(5 * 6, 3), torch.zeros(5 * 6, 4)).shape
        torch.Size([30, 2])
    """

    matrices: Sequence[str] = ()
    input_dropout = 0.0  # probability; in training the members are then one network with dropout

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

    def run_dropped(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Run the shared layer for the rows of all members, with dropout on its inputs.

        Whole channels are dropped where rows have several axes after their channels.
        """
        drop = torch.feature_dropout if self.layouts["weight"].shape[2:] else torch.dropout
        shared: dict[str, Tensor] = {
            name: each for name, each in self.named_parameters() if name not in self.own
        }
        return self._run_plain(shared, (drop(x, self.input_dropout, True), *args), kwargs)

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
