"""Rank-one arithmetic: a linear layer for all members at once.

Member ``m`` owns two vectors, ``r_m`` on the inputs and ``s_m`` on the outputs; all members share
the weight ``W`` of shape ``[out, in]``.

Multiplicative (BatchEnsemble, Wen et al. 2020, arXiv 2002.06715), ``W_m = W ∘ (s_m r_mᵀ)``::

    activation space   y_m = ((x_m ∘ r_m) Wᵀ) ∘ s_m + b_m
    weight space       y_m = x_m W_mᵀ + b_m

Both are the same numbers. The first bends the activations, the second the weight; which of them
touches less memory depends on the shapes alone (:func:`cheaper_space`). Each has a backward of its
own, which saves nothing but its inputs (one exception below). With ``G_m = (dL/dy_m)ᵀ x_m``::

    dW = Σ_m G_m ∘ s_m r_mᵀ    ds_m = (G_m ∘ W) r_m    dr_m = (G_m ∘ W)ᵀ s_m    dx_m = dL/dy_m W_m

``G`` is as large as the members' weights. Where a batch is small beside them, or all is small, it
pays to keep ``x_m ∘ r_m`` and the product ``p_m = (x_m ∘ r_m) Wᵀ``, and to reduce activations::

    dW = Σ_m (dL/dy_m ∘ s_m)ᵀ (x_m ∘ r_m)    ds_m = Σ_batch dL/dy_m ∘ p_m
    dr_m = Σ_batch ((dL/dy_m ∘ s_m) W) ∘ x_m

New memory costs as much as arithmetic on CPU, so what nobody else sees is written in place.

Where the members' weights are few, ``W_m`` is merged and left to autograd, in both modes.

Additive of rank k (LoRA-Ensemble, arXiv 2405.14438; k = 1 is the notebook's layer)::

    W_m = W + S_mᵀ R_m         y_m = x_m Wᵀ + (x_m R_mᵀ) S_m + b_m

Each member has its own input: ``x`` is ``[members, batch, in]``.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from batchensemble.products import weight_gradient

Space = Literal["auto", "activation", "weight"]

# How many times cheaper an element of a weight must be than an element of an activation before
# weight space pays: its backward makes four passes over the members' weights.
WEIGHT_SPACE_FACTOR = 4

# How many numbers the gradients of all members' weights may have to be made at once on CPU; beyond
# that they leave the cache, and one member after the other is quicker, unless a weight is small.
CACHED_NUMBERS = 2**19
SMALL_WEIGHT = 2**16

# How many numbers are too few to save memory with.
SMALL_PRODUCT = 2**17


def multiplicative(
    x: Float[Tensor, "members batch in"],
    weight: Float[Tensor, "out in"],
    r: Float[Tensor, "members in"],
    s: Float[Tensor, "members out"],
    bias: Float[Tensor, "members out"] | Float[Tensor, "out"] | None = None,
    *,
    space: Space = "auto",
) -> Float[Tensor, "members batch out"]:
    """Apply ``W ∘ (s_m r_mᵀ)`` to each member's input.

    Args:
        x: each member's input.
        weight: the shared weight ``W``.
        r: fast weights on the inputs.
        s: fast weights on the outputs.
        bias: one a member, one for all, or none.
        space: force one of the two ways to compute it; ``"auto"`` is the cheaper one.

    Example:
        >>> W, r, s = torch.eye(2), torch.tensor([[1.0, 1], [1, -1]]), torch.ones(2, 2)
        >>> multiplicative(torch.tensor([[[3.0, 4]], [[3, 4]]]), W, r, s)
        tensor([[[ 3.,  4.]],
        <BLANKLINE>
                [[ 3., -4.]]])
    """
    members, batch, inputs = x.shape
    if space == "auto":
        space = cheaper_space(batch, inputs, len(weight))
    if not torch.is_grad_enabled():
        bend = _bent_weight if space == "weight" else _bent
        return bend(x, weight, r, s, bias)
    if space == "weight" and _merge_before(members, batch, inputs, len(weight)):
        factor = torch.bmm(s.unsqueeze(2), r.unsqueeze(1))
        return _each_own(x, weight * factor, bias)
    function: Any = _WeightSpace
    if space == "activation":
        kept = _keeps_more(members, batch, inputs, len(weight))
        function = _FewRows if kept else _ActivationSpace
    result: Tensor = function.apply(x, weight, r, s, bias)
    return result


def additive(
    x: Float[Tensor, "members batch in"],
    weight: Float[Tensor, "out in"],
    r: Float[Tensor, "members rank in"],
    s: Float[Tensor, "members rank out"],
    bias: Float[Tensor, "members out"] | Float[Tensor, "out"] | None = None,
) -> Float[Tensor, "members batch out"]:
    """Apply ``W + S_mᵀ R_m`` to each member's input.

    Args:
        x: each member's input.
        weight: the shared weight ``W``.
        r: fast weights on the inputs, ``rank`` vectors a member.
        s: fast weights on the outputs, ``rank`` vectors a member.
        bias: one a member, one for all, or none.

    Example:
        >>> W, r, s = torch.eye(2), torch.tensor([[[1.0, 0]]]), torch.tensor([[[0.0, 1]]])
        >>> additive(torch.tensor([[[3.0, 4]]]), W, r, s)
        tensor([[[3., 7.]]])
    """
    members, batch, inputs = x.shape
    space = cheaper_space(batch, inputs, len(weight))
    if space == "weight" and _merge_before(members, batch, inputs, len(weight)):
        return _each_own(x, torch.baddbmm(weight, s.mT, r), bias)
    per_member = bias is not None and bias.dim() == 2
    # The product is nobody else's, and no backward asks for it: the rest is added in place.
    y = F.linear(x, weight, None if per_member else bias)
    if bias is not None and per_member:
        y = y.add_(bias.unsqueeze(1))
    return y.baddbmm_(torch.bmm(x, r.mT), s)


def cheaper_space(batch: int, inputs: int, outputs: int) -> Space:
    """Choose the space that touches fewer numbers besides the matrix products.

    Args:
        batch: rows of one member.
        inputs: width of ``W``.
        outputs: height of ``W``.

    Example:
        >>> cheaper_space(128, 2, 128), cheaper_space(128, 512, 512)
        ('weight', 'activation')
    """
    by_activations = batch * (inputs + outputs)
    by_weights = WEIGHT_SPACE_FACTOR * inputs * outputs
    return "weight" if by_weights <= by_activations else "activation"


def _merge_before(members: int, batch: int, inputs: int, outputs: int) -> bool:
    """Tell whether the members' weights are few enough to be merged, and kept, by plain autograd.

    It has less to do for each operation than a backward written in Python.
    """
    return members * inputs * outputs <= SMALL_PRODUCT or 16 * outputs <= batch


def _keeps_more(members: int, batch: int, inputs: int, outputs: int) -> bool:
    """Tell whether to keep more than ``x``: it is small anyway, or beside the weights."""
    small = members * batch * outputs <= SMALL_PRODUCT
    return small or inputs * outputs > batch * (inputs + outputs)


def _bent(
    x: Tensor, weight: Tensor, r: Tensor, s: Tensor, bias: Tensor | None
) -> Float[Tensor, "members batch out"]:
    """Return ``((x_m ∘ r_m) Wᵀ) ∘ s_m + b_m``."""
    y = _product(x, weight, r)
    if bias is None:
        return y.mul_(s.unsqueeze(1))
    # An exported graph may run with gradients, which out= does not know.
    out = None if torch.compiler.is_compiling() else y
    return torch.addcmul(bias.unsqueeze(-2), y, s.unsqueeze(1), out=out)


def _bent_weight(
    x: Tensor, weight: Tensor, r: Tensor, s: Tensor, bias: Tensor | None
) -> Float[Tensor, "members batch out"]:
    """Return ``x_m (W ∘ s_m r_mᵀ)ᵀ + b_m``."""
    return _each_own(x, _factor(r, s).mul_(weight), bias)


def _each_own(
    x: Tensor, merged: Float[Tensor, "members out in"], bias: Tensor | None
) -> Float[Tensor, "members batch out"]:
    """Return ``x_m W_mᵀ + b_m``."""
    if bias is None:
        return torch.bmm(x, merged.mT)
    return torch.baddbmm(bias.unsqueeze(-2), x, merged.mT)


class _WeightSpace(torch.autograd.Function):
    """One batched product of the members' weights, for many rows beside the weight."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, r: Tensor, s: Tensor, bias: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(x, weight, r, s)
        ctx.bias_dim = None if bias is None else bias.dim()
        return _bent_weight(x, weight, r, s, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, r, s = ctx.saved_tensors
        factor = _factor(r, s)
        dx = torch.bmm(dy, factor * weight) if ctx.needs_input_grad[0] else None
        gradients = _weight_gradients(dy, x, weight, r, s, factor)
        return dx, *gradients, _bias_gradient(dy, ctx.bias_dim)


class _ActivationSpace(torch.autograd.Function):
    """One product for all members, and the gradients of the weights in weight space."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, r: Tensor, s: Tensor, bias: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(x, weight, r, s)
        ctx.bias_dim = None if bias is None else bias.dim()
        return _bent(x, weight, r, s, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, r, s = ctx.saved_tensors
        dx = None
        if ctx.needs_input_grad[0]:
            dx = _product(dy, weight.t(), s).mul_(r.unsqueeze(1))
        return dx, *_weight_gradients(dy, x, weight, r, s), _bias_gradient(dy, ctx.bias_dim)


class _FewRows(torch.autograd.Function):
    """One product for all members; what the backward needs is kept: see :func:`_keeps_more`."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, r: Tensor, s: Tensor, bias: Tensor | None
    ) -> Tensor:
        members, batch, inputs = x.shape
        bent = (x * r.unsqueeze(1)).reshape(members * batch, inputs)
        product = torch.mm(bent, weight.t()).view(members, batch, len(weight))
        ctx.save_for_backward(x, bent, product, weight, r, s)
        ctx.bias_dim = None if bias is None else bias.dim()
        if bias is None:
            return product * s.unsqueeze(1)
        return torch.addcmul(bias.unsqueeze(-2), product, s.unsqueeze(1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, bent, product, weight, r, s = ctx.saved_tensors
        dproduct = (dy * s.unsqueeze(1)).reshape(len(bent), len(weight))
        dbent = torch.mm(dproduct, weight).view(x.shape)
        dweight = torch.mm(dproduct.t(), bent)
        dr = (dbent * x).sum(1)
        ds = (dy * product).sum(1)
        dx = dbent.mul_(r.unsqueeze(1)) if ctx.needs_input_grad[0] else None
        return dx, dweight, dr, ds, _bias_gradient(dy, ctx.bias_dim)


def _product(x: Tensor, weight: Tensor, r: Tensor) -> Float[Tensor, "members batch out"]:
    """Return ``(x_m ∘ r_m) Wᵀ``."""
    bent = (x * r.unsqueeze(1)).reshape(x.shape[:2].numel(), x.shape[2])
    return torch.mm(bent, weight.t()).view(*x.shape[:2], len(weight))


def _weight_gradients(
    dy: Tensor, x: Tensor, weight: Tensor, r: Tensor, s: Tensor, factor: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``dW``, ``dr`` and ``ds`` from ``G_m``; all members at once if they fit in cache.

    Args:
        dy: the gradient of the output.
        x: each member's input.
        weight: the shared weight.
        r: fast weights on the inputs.
        s: fast weights on the outputs.
        factor: ``s_m r_mᵀ``, if it is there already.
    """
    members = len(x)
    size = weight.numel()
    if size > SMALL_WEIGHT and members * size > CACHED_NUMBERS and weight.device.type == "cpu":
        dweight, dr, ds = torch.zeros_like(weight), torch.empty_like(r), torch.empty_like(s)
        product, weighted = torch.empty_like(weight), torch.empty_like(weight)
        for m in range(members):
            torch.mm(dy[m].t(), x[m], out=product)
            torch.mul(product, weight, out=weighted)
            torch.mv(weighted, r[m], out=ds[m])
            torch.mv(weighted.t(), s[m], out=dr[m])
            dweight.addcmul_(product, torch.outer(s[m], r[m], out=weighted))
        return dweight, dr, ds
    product = weight_gradient(dy, x)
    weighted = product * weight
    ds = torch.bmm(weighted, r.unsqueeze(2)).squeeze(2)
    dr = torch.bmm(s.unsqueeze(1), weighted).squeeze(1)
    return product.mul_(_factor(r, s) if factor is None else factor).sum(0), dr, ds


def _factor(r: Tensor, s: Tensor) -> Tensor:
    return s.unsqueeze(2) * r.unsqueeze(1)


def _bias_gradient(dy: Tensor, bias_dim: int | None) -> Tensor | None:
    if bias_dim is None:
        return None
    return dy.sum(1) if bias_dim == 2 else dy.sum((0, 1))
