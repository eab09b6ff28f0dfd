"""Twins of the convolutions: scale the channels before and after, or the kernels themselves.

As in :mod:`batchensemble.layers.rank_one.arithmetic` both give the same results, and the shapes
decide which is cheaper: early layers have few kernels and large images, late layers the opposite.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from batchensemble.layers.base.any_batch import is_exported
from batchensemble.layers.base.rows import (
    RUNNING,
    NotPerExampleError,
    enter,
    leave,
    row_axis,
    unfold,
)
from batchensemble.layers.rank_one.fast_weights import Layout
from batchensemble.layers.rank_one.forward import is_transformed
from batchensemble.layers.rank_one.merging import Mergeable

# Scaling the kernels, which needs a call for each member, pays if they have this many times fewer
# elements than the activations.
KERNEL_FACTOR = 8

TRANSPOSED = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)


class RankOneConvolution(Mergeable):
    """A convolution of 1, 2 or 3 dimensions whose members share its kernels.

    With many kernels, one convolution with the shared kernels runs on the rows of all members,
    whose channels are scaled before and after. With few, and in additive mode, the members run one
    after the other with merged kernels. All settings of the layer are kept.

    Shape:
        rows ``[members * batch, in channels, ...]`` to ``[members * batch, out channels, ...]``.

    Example:
        >>> twin = RankOneConvolution(nn.Conv1d(4, 6, 3, groups=2), members=5)
        >>> twin(torch.zeros(5 * 2, 4, 10)).shape
        torch.Size([10, 6, 8])
    """

    matrices = ("weight",)

    def __init__(self, layer: nn.Module, members: int, **options: Any) -> None:
        super().__init__(layer, members, **{**options, "batch_axis": 0})

    def layout(self, layer: nn.Module, name: str) -> Layout:
        """Return how fast weights lie along the kernels."""
        return Layout(tuple(getattr(layer, name).shape), groups=layer.groups)  # type: ignore[arg-type]

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Apply each member's kernels to its rows."""
        if self.input_dropout and self.training:
            return self.run_dropped(x, *args, **kwargs)
        if RUNNING.member is not None:
            return self.run_member(RUNNING.member, x, *args, **kwargs)
        if x.dim() != self.weight.dim():
            raise NotPerExampleError(self.name, x.shape, self.members)
        row_axis(self, x, 1)
        x, times = enter(x, 0, self.members)
        kernels: Any = self.merged(x)
        if kernels is None and (self.options.mode == "additive" or self._few_kernels(x)):
            kernels = (self.merged_weight(index) for index in range(self.members))
        if kernels is not None:
            y = self._convolve_each(unfold(x, self.members, 0), kernels, *args, **kwargs)
            return leave(y, 0, times)
        y = unfold(self._convolve_scaled(x, *args, **kwargs), self.members, 0)
        scale = _channels(self.s, y[0])
        if self.bias is None:
            y = y * scale
        else:
            bias = self.bias if self.bias.dim() == 2 else self.bias.unsqueeze(0)
            y = torch.addcmul(_channels(bias, y[0]), y, scale)
        return leave(y.flatten(0, 1), 0, times)

    def merge(self, weight: Tensor, r: Tensor, s: Tensor) -> Tensor:
        """Return the members' merged kernels, ``[members, ...]``."""
        fast = replace(self.fast_weights(), weight=weight, r=r, s=s)
        return torch.stack([fast.merged(index) for index in range(self.members)])

    def merging_pays(self, x: Tensor, rows: int | None, *, compared: bool) -> bool:
        """Return whether cached merged kernels are cheaper than computing without them."""
        del compared  # a kernel is small compared with its images
        return self.options.mode == "additive" or self._few_kernels(x, rows)

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Apply kernels to rows."""
        return self.shell._conv_forward(x, weight, bias)

    def _convolve_each(
        self, parts: Tensor, kernels: Iterable[Tensor], *args: Any, **kwargs: Any
    ) -> Tensor:
        """Apply each member's kernels to its rows, one member after the other."""
        biases: Any = [self.bias] * self.members if "bias" not in self.own else self.bias
        outputs = [
            self.convolve(part, kernel, bias, *args, **kwargs)
            for part, kernel, bias in zip(parts, kernels, biases, strict=True)
        ]
        return torch.cat(outputs)

    def _convolve_scaled(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Apply the shared kernels to scaled channels, which are computed again for backward.

        Where the kernels are frozen nobody needs their values again.
        """
        r = self.r
        scaled = self._scaled(x, r)
        if is_transformed():
            return self.convolve(scaled, self.weight, None, *args, **kwargs)
        if not self.weight.requires_grad:
            with torch.autograd.graph.saved_tensors_hooks(self._without_values, lambda kept: kept):
                return self.convolve(scaled, self.weight, None, *args, **kwargs)

        version = None if x.is_inference() else x._version

        def pack(saved: Tensor) -> Tensor | None:
            return None if saved is scaled else saved

        def unpack(saved: Tensor | None) -> Tensor:
            if saved is None and version is not None and x._version != version:
                raise RuntimeError(
                    f"the input of {self.name or 'a convolution'!r} was written into after the "
                    "call, and the gradient needs its original values; let the next module work "
                    "out of place (inplace=False)"
                )
            return self._scaled(x, r) if saved is None else saved

        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            return self.convolve(scaled, self.weight, None, *args, **kwargs)

    def _without_values(self, saved: Tensor) -> Tensor:
        """Return what torch keeps of a convolution with frozen kernels: of its input the shape."""
        if saved.shape == self.weight.shape:
            return saved
        return saved.new_zeros(()).expand(saved.shape)

    def _few_kernels(self, x: Tensor, rows: int | None = None) -> bool:
        """Return whether to scale the kernels: if that is cheaper, or ``space="weight"``."""
        if self.options.space != "auto":
            return self.options.space == "weight"
        if is_exported():  # for batches of any size
            return False
        numbers = x.numel() // self.members
        if rows is not None:
            numbers = rows * math.prod(x.shape[1:])
        scaled = numbers * (1 + self.out_channels / (self.in_channels * math.prod(self.stride)))
        return KERNEL_FACTOR * self.weight.numel() <= scaled

    def _scaled(self, x: Tensor, vectors: Tensor) -> Tensor:
        return (unfold(x, self.members, 0) * _channels(vectors, x)).flatten(0, 1)


class RankOneTransposedConvolution(RankOneConvolution):
    """The same for the transposed convolutions.

    Example:
        >>> twin = RankOneTransposedConvolution(nn.ConvTranspose1d(4, 6, 2, stride=2), members=5)
        >>> twin(torch.zeros(5 * 2, 4, 10)).shape
        torch.Size([10, 6, 20])
    """

    def layout(self, layer: nn.Module, name: str) -> Layout:
        """Return how fast weights lie along the kernels."""
        shape = tuple(getattr(layer, name).shape)
        return Layout(shape, inputs_first=True, groups=layer.groups)  # type: ignore[arg-type]

    def convolve(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        output_size: list[int] | None = None,
    ) -> Tensor:
        """Apply kernels to rows."""
        layer, dimensions = self.shell, self.weight.dim() - 2
        output_padding = layer._output_padding(
            x,
            output_size,
            layer.stride,
            layer.padding,
            layer.kernel_size,
            dimensions,
            layer.dilation,
        )
        return TRANSPOSED[dimensions - 1](
            x,
            weight,
            bias,
            layer.stride,
            layer.padding,
            output_padding,
            layer.groups,
            layer.dilation,
        )


def _channels(vectors: Tensor, x: Tensor) -> Tensor:
    """Return ``[members, channels]`` in a shape that broadcasts to unfolded rows, in their type."""
    return vectors.to(x.dtype).view(len(vectors), 1, -1, *[1] * (x.dim() - 2))
