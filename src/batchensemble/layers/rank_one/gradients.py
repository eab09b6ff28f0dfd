"""Gradients that the backward of rank-one layers shares, whichever space they compute in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def gradients_to_differentiate(
    bend: Any, tensors: Sequence[Tensor | None], dy: Tensor
) -> tuple[Tensor | None, ...]:
    """Return the gradients by plain autograd, which can take theirs."""
    # Of views, so that the gradient of a weight leaves out the way through what is made from it.
    views = [each if each is None else each.view_as(each) for each in tensors]
    wanted = [each for each in views if each is not None and each.requires_grad]
    found = iter(torch.autograd.grad(bend(*views), wanted, dy, create_graph=True))
    return tuple(next(found) if each is not None and each.requires_grad else None for each in views)


def bias_gradient(ctx: Any, dy: Tensor, bias_dim: int | None) -> Tensor | None:
    """Return the gradient of the bias, the last input; ``None`` where nobody asks for it.

    Args:
        ctx: tells which gradients are asked for.
        dy: the gradient of the output, ``[members, batch, out]``.
        bias_dim: 2 for a bias of each member's own, 1 for one for all, ``None`` for none.
    """
    if bias_dim is None or not ctx.needs_input_grad[4]:
        return None
    return dy.sum(1) if bias_dim == 2 else dy.sum((0, 1))


def weight_gradients_in_cache(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    r: Tensor,
    s: Tensor,
    at_a_time: int,
    *,
    for_weight: bool,
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Return ``dW``, ``dr`` and ``ds`` from ``G_m``, each read while it is in the cache.

    Args:
        dy: the gradient of the output.
        x: each member's input.
        weight: the shared weight.
        r: fast weights on the inputs.
        s: fast weights on the outputs.
        at_a_time: how many members' products are taken together.
        for_weight: whether ``dW`` is asked for.
    """
    dr, ds = torch.empty_like(r), torch.empty_like(s)
    dweight = torch.zeros_like(weight) if for_weight else None
    scratch = torch.empty_like(weight)
    for start in range(0, len(x), at_a_time):
        few = slice(start, start + at_a_time)
        for m, product in enumerate(torch.bmm(dy[few].mT, x[few]), start):
            torch.mul(product, weight, out=scratch)
            torch.mv(scratch, r[m], out=ds[m])
            torch.mv(scratch.t(), s[m], out=dr[m])
            if dweight is not None:
                dweight.addcmul_(product, torch.outer(s[m], r[m], out=scratch))
    return dweight, dr, ds
