"""Twins of ``nn.Linear``: one weight bent for each member, or one weight a member."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from batchensemble import rank_one
from batchensemble.layers.initialisation import Initialisation, Mode, initialise
from batchensemble.products import stacked_linear

Bias = Literal["member", "shared"]


class RankOneLinear(nn.Module):
    """A linear layer whose members share one weight and own two vectors each.

    Shape:
        rows ``[members * batch, ..., in]``, member-major, to ``[members * batch, ..., out]``; or
        ``[members, batch, ..., in]`` to ``[members, batch, ..., out]``, the same rows in memory.

    Args:
        layer: the plain layer; its weight becomes the shared weight, the same ``Parameter``.
        members: how many members (M).
        mode: ``"multiplicative"``: ``W ∘ (s_m r_mᵀ)``; ``"additive"``: ``W + S_mᵀ R_m``.
        rank: vectors a member and side; more than 1 only in additive mode.
        init: how the fast weights start, see :mod:`batchensemble.layers.initialisation`.
        bias: ``"member"``: one a member, all starting as the layer's; ``"shared"``: the layer's.

    Example:
        >>> twin = RankOneLinear(nn.Linear(3, 2), members=4)
        >>> twin(torch.zeros(4 * 5, 3)).shape
        torch.Size([20, 2])
    """

    def __init__(
        self,
        layer: nn.Linear,
        members: int,
        *,
        mode: Mode = "multiplicative",
        rank: int = 1,
        init: Initialisation | None = None,
        bias: Bias = "member",
    ) -> None:
        super().__init__()
        self.members, self.mode, self.rank = members, mode, rank
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight = layer.weight
        vectors = (members,) if mode == "multiplicative" else (members, rank)
        like = layer.weight
        self.r = nn.Parameter(like.new_empty(*vectors, self.in_features))
        self.s = nn.Parameter(like.new_empty(*vectors, self.out_features))
        self.bias: nn.Parameter | None = layer.bias
        if layer.bias is not None and bias == "member":
            self.bias = nn.Parameter(layer.bias.detach().repeat(members, 1))
        initialise(self, init)

    def forward(self, rows: Tensor) -> Tensor:
        """Apply each member's weight to its rows."""
        x = _stacked_rows(rows, self.members, self.in_features)
        apply = rank_one.multiplicative if self.mode == "multiplicative" else rank_one.additive
        y = apply(x, self.weight, self.r, self.s, self.bias)
        return y if x is rows else y.view(*rows.shape[:-1], self.out_features)

    def merged_weight(self, index: int) -> Float[Tensor, "out in"]:
        """Return member ``index``'s weight, fast weights merged in."""
        r, s = self.r[index], self.s[index]
        if self.mode == "multiplicative":
            return self.weight * torch.outer(s, r)
        return self.weight + s.mT @ r

    def member(self, index: int) -> nn.Linear:
        """Return the plain layer that member ``index`` is."""
        bias = self.bias
        own = bias[index] if bias is not None and bias.dim() == 2 else bias
        return plain_linear(self.merged_weight(index), own)

    def extra_repr(self) -> str:
        """Describe the layer in one line."""
        rank = f", rank={self.rank}" if self.mode == "additive" else ""
        return f"{self.in_features}, {self.out_features}, members={self.members}, {self.mode}{rank}"


class StackedLinear(nn.Module):
    """One linear layer a member, their weights stacked and applied in one batched product.

    Shape:
        rows ``[members * batch, ..., in]``, member-major, to ``[members * batch, ..., out]``; or
        ``[members, batch, ..., in]`` to ``[members, batch, ..., out]``, the same rows in memory.

    Args:
        layers: one plain layer a member, all of the same shape; their weights are copied.

    Example:
        >>> twin = StackedLinear([nn.Linear(3, 2), nn.Linear(3, 2)])
        >>> twin(torch.zeros(2 * 5, 3)).shape
        torch.Size([10, 2])
    """

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        first = layers[0]
        self.members = len(layers)
        self.in_features, self.out_features = first.in_features, first.out_features
        # [members, in, out] and [members, 1, out]: products and sums take them as they lie.
        self.weight = _stacked([layer.weight.t() for layer in layers])
        self.bias: nn.Parameter | None = None
        if first.bias is not None:
            self.bias = _stacked([layer.bias.unsqueeze(0) for layer in layers])

    def forward(self, rows: Tensor) -> Tensor:
        """Apply each member's layer to its rows."""
        x = _stacked_rows(rows, self.members, self.in_features)
        y = stacked_linear(x, self.weight, self.bias)
        return y if x is rows else y.view(*rows.shape[:-1], self.out_features)

    def member(self, index: int) -> nn.Linear:
        """Return the plain layer of member ``index``."""
        bias = None if self.bias is None else self.bias[index, 0]
        return plain_linear(self.weight[index].t(), bias)

    def extra_repr(self) -> str:
        """Describe the layer in one line."""
        return f"{self.in_features}, {self.out_features}, members={self.members}"


def _stacked_rows(rows: Tensor, members: int, features: int) -> Tensor:
    """Return member-major rows as ``[members, rows of a member, features]``."""
    if rows.dim() == 3 and len(rows) == members:
        return rows
    return rows.reshape(members, rows.shape[:-1].numel() // members, features)


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
