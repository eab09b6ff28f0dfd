"""Twins of ``nn.Linear``: one weight bent for each member, or one weight a member."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from batchensemble.layers.base.autocast import autocasts, in_autocast, is_any_autocast_on
from batchensemble.layers.base.rows import RUNNING, enter, leave, row_axis
from batchensemble.layers.base.twin import Twin
from batchensemble.layers.rank_one import arithmetic as rank_one
from batchensemble.layers.rank_one.fast_weights import Layout
from batchensemble.layers.rank_one.forward import is_shared, is_transformed, merged, own_linear
from batchensemble.layers.rank_one.merging import Mergeable
from batchensemble.layers.rank_one.products import stacked_linear


class RankOneLinear(Mergeable):
    """A linear layer whose members share one weight and own two vectors each.

    Shape:
        rows ``[members * batch, ..., in]``, member-major, to ``[members * batch, ..., out]``; or
        ``[members, batch, ..., in]`` to ``[members, batch, ..., out]``, the same rows in memory.

    Args:
        layer: the plain layer; its weight becomes the shared weight, the same ``Parameter``.
        members: how many members (M).
        options: see :class:`batchensemble.layers.rank_one.options.Options`.

    Example:
        >>> twin = RankOneLinear(nn.Linear(3, 2), members=4)
        >>> twin(torch.zeros(4 * 5, 3)).shape
        torch.Size([20, 2])
    """

    matrices = ("weight",)
    any_axis = True
    inputs_first = False
    # For which shape of the input and which options the arithmetic was chosen, which it is, and
    # whether for a weight that is trained. It depends on nothing else, and the members' weights,
    # types and modes are read at each call.
    _chosen: tuple[Any, Any, Any] = (None, None, None)
    _chosen_to_train = True

    def __init__(self, layer: nn.Module, members: int, **options: Any) -> None:
        super().__init__(layer, members, **options)
        self.in_features, self.out_features = self.layouts["weight"].sizes("multiplicative")

    def layout(self, layer: nn.Module, name: str) -> Layout:
        """Return how fast weights lie along the weight."""
        return Layout(tuple(getattr(layer, name).shape), inputs_first=self.inputs_first)

    def forward(self, x: Tensor) -> Tensor:
        """Apply each member's weight to its rows."""
        if self.input_dropout and self.training:
            return self.run_dropped(x)
        if RUNNING.member is not None:
            return self.run_member(RUNNING.member, x)
        return apply_to_rows(self, x, self._product)

    def _product(self, x: Tensor) -> Tensor:
        parameters: Any = self._parameters
        weight = parameters["weight"]
        bias = parameters.get("bias")
        if x.dtype != weight.dtype or is_any_autocast_on() or is_transformed():
            return self._product_watched(x, weight, bias)
        if torch.is_grad_enabled():
            if self._frozen is not None:
                self.forget()  # a step of a fused optimiser may follow, which leaves no trace
            shape, options, function = self._chosen
            same = x.shape == shape and options is self.options
            if same and weight.requires_grad is self._chosen_to_train:
                y: Tensor = function(x, weight, parameters["r"], parameters["s"], bias)
                return y
        elif not self.training:
            weights = self.kept(x)
            if weights is not None:
                return own_linear(x, weights, bias)
        return self._compute(x, weight, parameters["r"], parameters["s"], bias)

    def _product_watched(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the product where autocast, a compiler or the like may look on."""
        if x.dtype != weight.dtype and not autocasts(x.device.type):
            raise ValueError(
                f"{self.name or 'the layer'!r} holds weights of type {weight.dtype}, got an input "
                f"of type {x.dtype}"
            )
        weights = self.merged(x)
        if weights is not None:
            return own_linear(x, weights, bias)
        return in_autocast(self._compute, x, weight, self.r, self.s, bias)

    def merge(self, weight: Tensor, r: Tensor, s: Tensor) -> Tensor:
        """Return the members' weights, ``[members, in, out]``."""
        if self.options.alpha is not None:
            s = s * self.options.scale
        weights = merged(weight.t() if self.inputs_first else weight, r, s).mT
        # The product is quicker with the wider side last in memory.
        return weights.contiguous() if self.in_features <= self.out_features else weights

    def merging_pays(self, x: Tensor, rows: int | None, *, compared: bool) -> bool:
        """Tell whether weights that are kept are cheaper than what the layer does without."""
        options = self.options
        if options.mode == "additive" and is_shared(x):
            return False  # the product with the shared weight is taken once for all members
        if options.space != "auto":
            return options.space == "weight"
        count = x.shape[1] if rows is None else rows
        return rank_one.keeping_pays(
            self.members, count, self.in_features, self.out_features, compared=compared
        )

    def _compute(self, x: Tensor, weight: Tensor, r: Tensor, s: Tensor, bias: Any) -> Tensor:
        options = self.options
        if self.inputs_first:
            weight = weight.t()
        if options.mode == "multiplicative":
            space = options.space
            if torch.is_grad_enabled() and not self.inputs_first and not is_transformed():
                members, batch, inputs = x.shape
                trained = weight.requires_grad
                function = rank_one.with_backward(
                    members, batch, inputs, weight.shape[0], space, frozen=not trained
                )
                self._chosen = x.shape, options, function
                self._chosen_to_train = trained
            return rank_one.multiplicative(x, weight, r, s, bias, space=space)
        if options.alpha is not None:
            s = s * options.scale
        return rank_one.additive(x, weight, r, s, bias)

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        state.pop("_chosen", None)
        return state


class RankOneConv1D(RankOneLinear):
    """The same for the ``Conv1D`` of Hugging Face: a linear layer with its weight ``[in, out]``."""

    inputs_first = True


class StackedLinear(Twin):
    """One linear layer a member, their weights stacked and applied in one batched product.

    Shape:
        rows ``[members * batch, ..., in]``, member-major, to ``[members * batch, ..., out]``; or
        ``[members, batch, ..., in]`` to ``[members, batch, ..., out]``, the same rows in memory.

    Args:
        layers: one plain layer a member, all of the same shape; their weights are copied.
        batch_axis: the axis of the rows.

    Example:
        >>> twin = StackedLinear([nn.Linear(3, 2), nn.Linear(3, 2)])
        >>> twin(torch.zeros(2 * 5, 3)).shape
        torch.Size([10, 2])
    """

    sharing = "independent"
    any_axis = True

    def __init__(self, layers: Sequence[nn.Linear], batch_axis: int = 0) -> None:
        first = layers[0]
        super().__init__(first, len(layers), batch_axis)
        self.in_features, self.out_features = first.in_features, first.out_features
        # [members, in, out] and [members, 1, out]: products and sums take them as they lie.
        self.weight = _stacked([layer.weight.t() for layer in layers])
        self.bias: nn.Parameter | None = None
        if first.bias is not None:
            self.bias = _stacked([layer.bias.unsqueeze(0) for layer in layers])
        self.own = [name for name, _ in self.named_parameters()]

    def forward(self, x: Tensor) -> Tensor:
        """Apply each member's layer to its rows."""
        if RUNNING.member is not None:
            return self.run_member(RUNNING.member, x)
        return apply_to_rows(self, x, self._product)

    def _product(self, x: Tensor) -> Tensor:
        parameters = self._parameters
        weight = parameters["weight"]
        assert weight is not None
        return in_autocast(stacked_linear, x, weight, parameters.get("bias"))

    def tensors(self, index: int) -> dict[str, Tensor]:
        """Return the tensors of member ``index``'s plain layer, by name."""
        tensors = {"weight": self.weight[index].t()}
        if self.bias is not None:
            tensors["bias"] = self.bias[index, 0]
        return tensors


def apply_to_rows(twin: Any, x: Tensor, product: Any) -> Tensor:
    """Apply a product of ``[members, rows of a member, in]`` to rows on whatever axis they are."""
    members = twin.members
    if x.dim() == 3 and x.shape[0] == members and not twin.batch_axis and RUNNING.rows is None:
        return product(x)
    axis = row_axis(twin, x, x.dim() - 1)
    if x.shape[-1] != twin.in_features:
        raise ValueError(
            f"{twin.name or 'the layer'!r} takes {twin.in_features} features, got an input of "
            f"shape {list(x.shape)}"
        )
    x, times = enter(x, axis, members)
    front = x.movedim(axis, 0) if axis else x
    count = math.prod(front.shape[:-1]) // members
    y = product(front.reshape(members, count, twin.in_features))
    y = y.view(*front.shape[:-1], twin.out_features)
    return leave(y.movedim(0, axis) if axis else y, axis, times)


def _stacked(parameters: Sequence[Tensor]) -> nn.Parameter:
    stacked = torch.stack([parameter.detach() for parameter in parameters]).contiguous()
    return nn.Parameter(stacked, requires_grad=parameters[0].requires_grad)


def plain_linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """Return a plain layer with copies of these weights, without a random draw."""
    out_features, in_features = weight.shape
    layer = nn.utils.skip_init(
        nn.Linear,
        in_features,
        out_features,
        bias=bias is not None,
        device=weight.device,
        dtype=weight.dtype,
    )
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer
