"""The twin of ``nn.MultiheadAttention``: attention with four rank-one projections."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from batchensemble.layers.base.rows import (
    RUNNING,
    NotPerExampleError,
    find_rows,
    join,
    repeat,
    repeated,
    split,
)
from batchensemble.layers.base.twin import Twin
from batchensemble.layers.independent import Independent
from batchensemble.layers.linear import RankOneLinear, plain_linear

PROJECTIONS = ("q", "k", "v")
SEPARATE = ("q_proj_weight", "k_proj_weight", "v_proj_weight")


class RankOneAttention(Twin):
    """Attention whose members share the four projections and own fast weights for each.

    A packed ``in_proj_weight`` is split into its three weights, and packed again in extracted
    members. ``bias_k`` and ``bias_v`` stay shared.

    Shape:
        as ``nn.MultiheadAttention``, with ``members * batch`` sequences; masks for ``batch``
        sequences apply to all members.

    Args:
        layer: the plain layer.
        members: number of members (M).
        options: by name, see :class:`batchensemble.layers.rank_one.options.Options`.

    Example:
        >>> twin = RankOneAttention(nn.MultiheadAttention(8, 2, batch_first=True), members=3)
        >>> x = torch.zeros(3 * 2, 5, 8)
        >>> [each.shape for each in twin(x, x, x)]
        [torch.Size([6, 5, 8]), torch.Size([6, 5, 5])]
    """

    def __init__(self, layer: nn.MultiheadAttention, members: int, **options: Any) -> None:
        axis = 0 if layer.batch_first else 1
        super().__init__(layer, members, axis)
        options = {**options, "batch_axis": axis}
        packed = layer.in_proj_bias
        biases = (None,) * 3 if packed is None else packed.detach().chunk(3)
        for letter, weight, bias in zip(PROJECTIONS, _weights(layer), biases, strict=True):
            plain = plain_linear(weight.detach(), bias)
            plain.weight.requires_grad_(weight.requires_grad)
            if not layer._qkv_same_embed_dim:
                plain.weight = weight
            if packed is not None:
                plain.bias.requires_grad_(packed.requires_grad)
            setattr(self, f"{letter}_proj", RankOneLinear(plain, members, **options))
        self.out_proj = RankOneLinear(layer.out_proj, members, **options)
        self.bias_k, self.bias_v = layer.bias_k, layer.bias_v
        # Torch's encoder layers check these before taking a fast path that reads the weights.
        self._qkv_same_embed_dim = False
        self.in_proj_bias = self.in_proj_weight = None

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Compute attention with each member's own projections."""
        if query.dim() != 3:
            raise NotPerExampleError(self.name, query.shape, self.members)
        if is_causal and attn_mask is None:
            raise RuntimeError("is_causal=True is a hint about attn_mask, which is missing")
        pairs = zip(self.projections(), (query, key, value), strict=False)
        q, k, v = (projection(x) for projection, x in pairs)
        if not self.batch_first:
            q, k, v = (x.transpose(0, 1) for x in (q, k, v))
        rows, (k, v) = q.shape[0], self._with_extra_keys(k, v)
        q, k, v = (x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in (q, k, v))
        if self.add_zero_attn:
            k, v = (F.pad(x, (0, 0, 0, 1)) for x in (k, v))
        mask = self._mask(attn_mask, key_padding_mask, rows, q, k.shape[2])
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            weights = q @ k.mT / math.sqrt(q.shape[-1])
            weights = (weights if mask is None else weights + mask).softmax(-1)
            weights = F.dropout(weights, dropout)
            attended = weights @ v
        else:
            attended = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        y = attended.transpose(1, 2).flatten(2)
        y = self.out_proj(y if self.batch_first else y.transpose(0, 1))
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        return y, weights

    def _with_extra_keys(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if self.bias_k is None:
            return k, v
        extra = (
            each.expand(k.shape[0], 1, -1)
            for each in (self.bias_k, self.bias_v)
            if each is not None
        )
        return tuple(torch.cat(pair, 1) for pair in zip((k, v), extra, strict=True))  # type: ignore

    def _mask(
        self,
        attention: Tensor | None,
        padding: Tensor | None,
        rows: int,
        q: Tensor,
        keys: int,
    ) -> Tensor | None:
        """Return both masks as one additive mask; additional keys are never masked."""
        total = None
        if attention is not None:
            attention = _additive(attention, q.dtype)
            if attention.dim() == 3:
                if (
                    len(attention) * self.members == rows * self.num_heads
                    and RUNNING.member is None
                ):
                    attention = repeat(attention, self.members, 0)
                attention = attention.unflatten(0, (rows, self.num_heads))
            total = attention
        if padding is not None:
            if len(padding) * self.members == rows and RUNNING.member is None:
                padding = repeat(padding, self.members, 0)
            padding = _additive(padding, q.dtype)[:, None, None]
            total = padding if total is None else total + padding
        if total is not None and total.shape[-1] < keys:
            total = F.pad(total, (0, keys - total.shape[-1]))
        return total

    @property
    def name(self) -> str:
        """Name of the layer in its network, for errors."""
        return self.out_proj.name

    @name.setter
    def name(self, name: str) -> None:
        for twin in self.projections():
            twin.name = name

    def projections(self) -> list[RankOneLinear]:
        """Return the twins of the four projections."""
        return [self.q_proj, self.k_proj, self.v_proj, self.out_proj]

    def tensors(self, index: int) -> dict[str, Tensor]:
        """Return the tensors of member ``index``'s plain layer, by name."""
        parts = [twin.tensors(index) for twin in self.projections()]
        weights = [part["weight"] for part in parts[:3]]
        if self.shell._qkv_same_embed_dim:
            tensors = {"in_proj_weight": torch.cat(weights)}
        else:
            tensors = dict(zip(SEPARATE, weights, strict=True))
        if "bias" in parts[0]:
            tensors["in_proj_bias"] = torch.cat([part["bias"] for part in parts[:3]])
        tensors.update({f"out_proj.{name}": tensor for name, tensor in parts[3].items()})
        return tensors | self._extra()

    def _extra(self) -> dict[str, Tensor]:
        """Return the shared parameters other than the projections."""
        extra = {"bias_k": self.bias_k, "bias_v": self.bias_v}
        return {name: tensor for name, tensor in extra.items() if tensor is not None}

    def roles(self) -> dict[str, str]:
        """Return the role of each parameter."""
        roles = dict.fromkeys(self._extra(), "bias")
        for name in (f"{letter}_proj" for letter in (*PROJECTIONS, "out")):
            twin: RankOneLinear = getattr(self, name)
            roles.update({f"{name}.{each}": role for each, role in twin.roles().items()})
        return roles

    def keep(self, indices: list[int]) -> None:
        """Keep only these members, in this order, in place."""
        for twin in self.projections():
            twin.keep(indices)
        self.members = len(indices)

    def average(self) -> None:
        """Replace all members by one with the mean of their parameters, in place."""
        for twin in self.projections():
            twin.average()
        self.members = 1

    def put(self, index: int, layer: Any) -> None:
        """Set member ``index`` to the plain ``layer``, in place."""
        for name, shared in self._extra().items():
            self.check_shared(name, shared, getattr(layer, name))
        packed = layer.in_proj_bias
        biases = (None,) * 3 if packed is None else packed.chunk(3)
        for twin, weight, bias in zip(self.projections(), _weights(layer), biases, strict=False):
            twin.put(index, plain_linear(weight, bias))
        self.out_proj.put(index, layer.out_proj)


class IndependentAttention(Independent):
    """One attention layer for each member."""

    def __init__(self, modules: Sequence[nn.MultiheadAttention], batch_axis: int = 0) -> None:
        super().__init__(modules, 0 if modules[0].batch_first else 1)
        self._qkv_same_embed_dim = False  # see RankOneAttention
        self.in_proj_bias = self.in_proj_weight = None

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Compute attention with each member's own copy."""
        named = {
            "need_weights": need_weights,
            "average_attn_weights": average_attn_weights,
            "is_causal": is_causal,
        }
        if RUNNING.member is not None:
            masks = {"key_padding_mask": key_padding_mask, "attn_mask": attn_mask}
            return self.copies[RUNNING.member](query, key, value, **masks, **named)
        axis, times = find_rows(self, (query, key, value), (self.batch_axis,))
        qkv = split((query, key, value), self.members, axis)
        rows = query.shape[axis] * (self.members if times else 1)
        outputs = []
        copies: list[Any] = list(self.copies)
        for index, (copy, own) in enumerate(zip(copies, qkv, strict=True)):
            masks = {
                "key_padding_mask": self._own(key_padding_mask, index, rows),
                "attn_mask": attn_mask,
            }
            if attn_mask is not None and attn_mask.dim() == 3:
                masks["attn_mask"] = self._own(attn_mask, index, rows * copy.num_heads)
            outputs.append(copy(*own, **masks, **named))
        ys, weights = zip(*outputs, strict=True)
        y, weights = join(ys, axis), join(weights, 0)
        return repeated(self, y, axis, times), repeated(self, weights, 0, times)

    def _own(self, mask: Tensor | None, index: int, rows: int) -> Tensor | None:
        """Return a member's part of a mask; a mask for ``batch`` sequences applies to all."""
        return mask if mask is None or len(mask) < rows else mask.chunk(self.members)[index]


def _weights(layer: nn.MultiheadAttention) -> tuple[Tensor, ...]:
    """Return the weights of the queries, keys and values."""
    if layer._qkv_same_embed_dim:
        return layer.in_proj_weight.chunk(3)
    return tuple(getattr(layer, name) for name in SEPARATE)


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return an additive mask; in a boolean mask true means excluded."""
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask, -math.inf)
