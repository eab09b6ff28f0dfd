"""Matrix products of linear layers: one weight for all members, or one a member, stacked."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

FEW_COLUMNS = 64

# Where reading the weight dominates a product: rows at most, and numbers at least; in double
# precision the transpose is slower.
FEW_ROWS = 128
LARGE_WEIGHT = 2**21
TRANSPOSED_TYPES = (torch.float32,)


def shared_linear(
    x: Float[Tensor, "*rows in"],
    weight: Float[Tensor, "out in"],
    bias: Float[Tensor, "out"] | None = None,
) -> Float[Tensor, "*rows out"]:
    """Return ``x Wᵀ + b``, as ``F.linear`` does.

    For few rows and a large weight, CPUs compute the transpose, ``(W xᵀ)ᵀ``, faster.

    Example:
        >>> shared_linear(torch.ones(1, 3), torch.ones(2, 3), torch.tensor([0.0, 1.0])).tolist()
        [[3.0, 4.0]]
    """
    if weight.numel() < LARGE_WEIGHT or not _turns(x, weight):
        return F.linear(x, weight, bias)
    y = torch.mm(weight, x.reshape(-1, x.shape[-1]).t()).t()
    # Later operations may rely on contiguous rows.
    y = y.contiguous() if bias is None else torch.add(y.contiguous(), bias)
    return y.view(*x.shape[:-1], len(weight))


def shared_linear_backward(
    dy: Float[Tensor, "*rows out"], weight: Float[Tensor, "out in"]
) -> Float[Tensor, "*rows in"]:
    """Return the gradient of the input of :func:`shared_linear`, ``dy W``.

    Example:
        >>> shared_linear_backward(torch.ones(1, 2), torch.ones(2, 3)).tolist()
        [[2.0, 2.0, 2.0]]
    """
    if weight.numel() < LARGE_WEIGHT:
        return torch.matmul(dy, weight)
    return shared_linear(dy, weight.t())


def _turns(x: Tensor, weight: Tensor) -> bool:
    """Return whether the transpose of the product with a large weight is faster."""
    return (
        not torch.compiler.is_compiling()
        and weight.dtype in TRANSPOSED_TYPES
        and weight.is_cpu
        and 1 < x.shape[:-1].numel() <= FEW_ROWS
    )


def stacked_linear(
    x: Float[Tensor, "members batch in"],
    weight: Float[Tensor, "members in out"],
    bias: Float[Tensor, "members 1 out"] | None = None,
) -> Float[Tensor, "members batch out"]:
    """Apply each member's own linear layer, ``y_m = x_m W_m + b_m``.

    The weights are the transposes of ``nn.Linear``'s, so that the product needs no copy.

    Example:
        >>> stacked_linear(torch.ones(2, 1, 3), torch.ones(2, 3, 1), torch.zeros(2, 1, 1)).tolist()
        [[[3.0]], [[3.0]]]
    """
    if weight.shape[2] < weight.shape[1]:
        result: Tensor = _NarrowLinear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        return result
    return torch.bmm(x, weight) if bias is None else torch.baddbmm(bias, x, weight)


def weight_gradient(
    dy: Float[Tensor, "members batch out"], x: Float[Tensor, "members batch in"]
) -> Float[Tensor, "members out in"]:
    """Return ``dy_mᵀ x_m`` of each member.

    With few columns the transpose is computed, with the wider side last: on CPU it is up to five
    times faster. Elsewhere the gradient has the memory layout of the weight.
    """
    if x.shape[2] < min(dy.shape[2], FEW_COLUMNS):
        return torch.bmm(x.mT, dy).mT
    return torch.bmm(dy.mT, x)


class _NarrowLinear(torch.autograd.Function):
    """The layer where it has fewer outputs than inputs, with the wider side last everywhere."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        narrow = weight.mT.contiguous().mT
        return torch.bmm(x, narrow) if bias is None else torch.baddbmm(bias, x, narrow)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        return (
            torch.bmm(dy, weight.mT.contiguous()) if for_x else None,
            weight_gradient(dy, x).mT if for_weight else None,
            dy.sum(1, keepdim=True) if for_bias else None,
        )
