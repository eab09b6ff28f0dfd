"""Rank-one arithmetic: a linear layer for all members at once.

Member ``m`` owns two vectors, ``r_m`` on the inputs and ``s_m`` on the outputs; all members share
the weight ``W`` of shape ``[out, in]``.

Multiplicative (BatchEnsemble, Wen et al. 2020, arXiv 2002.06715), ``W_m = W ∘ (s_m r_mᵀ)``::

    activation space   y_m = ((x_m ∘ r_m) Wᵀ) ∘ s_m + b_m
    weight space       y_m = x_m W_mᵀ + b_m

Both are the same numbers. The first bends the activations, the second the weight; which of them
touches less memory depends on the shapes alone (:func:`cheaper_space`). Each has a backward of its
own, which saves nothing but its inputs where these are large. With ``G_m = (dL/dy_m)ᵀ x_m``::

    dW = Σ_m G_m ∘ s_m r_mᵀ    ds_m = (G_m ∘ W) r_m    dr_m = (G_m ∘ W)ᵀ s_m    dx_m = dL/dy_m W_m

New memory costs as much as arithmetic on CPU, so what nobody else sees is written in place.

Where saving memory is not worth it, more is kept for the backward, which then has less to do:

- in activation space where all is small, or the rows are few beside the weight, ``x_m ∘ r_m`` and
  ``p_m = (x_m ∘ r_m) Wᵀ``. It reduces activations, which are fewer than ``G``:
  ``ds_m = Σ_batch dL/dy_m ∘ p_m``;
- in weight space where the members' weights are few, ``W_m``.

Where ``W`` is frozen, activation space always keeps ``p_m``, and not ``x_m ∘ r_m``: without ``dW``
nobody needs ``G``, and the product for ``dx_m`` is the only one of the backward.

Plain autograd takes a node for each operation and each view, and a node costs as much as an
elementwise operation on a small layer. It does what our backward cannot: second derivatives of
small layers, forward mode, ``torch.func``, graphs of compilers and tracers.

Additive of rank k (LoRA-Ensemble, arXiv 2405.14438; k = 1 is the notebook's layer)::

    W_m = W + S_mᵀ R_m         y_m = x_m Wᵀ + (x_m R_mᵀ) S_m + b_m

Each member has its own input: ``x`` is ``[members, batch, in]``. Where that is a view which repeats
one input for all, as at the first layer of a network, ``x Wᵀ`` is computed once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from batchensemble.layers.base.any_batch import is_exported
from batchensemble.layers.rank_one.forward import (
    activation_space,
    bent_product,
    is_shared,
    is_transformed,
    merged,
    outer,
    own_linear,
    weight_space,
)
from batchensemble.layers.rank_one.gradients import (
    bias_gradient,
    gradients_to_differentiate,
    weight_gradients_in_cache,
)
from batchensemble.layers.rank_one.products import (
    shared_linear,
    shared_linear_backward,
    weight_gradient,
)

Space = Literal["auto", "activation", "weight"]

# How many times cheaper an element of a weight must be than an element of an activation before
# weight space pays: its backward makes four passes over the members' weights.
WEIGHT_SPACE_FACTOR = 4

# How many numbers the gradients of all members' weights may have to be taken apart at once on CPU;
# beyond that they leave the cache, and it is quicker member by member, unless a weight is small.
# The product itself is quicker for a few members together.
CACHED_NUMBERS = 2**19
SMALL_WEIGHT = 2**16
PRODUCT_NUMBERS = 2**21

# How many numbers are too few to save memory with: in the members' weights, or in a product.
MERGED_NUMBERS = 2**17
SMALL_PRODUCT = 2**20


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
    if torch.is_grad_enabled() and not is_transformed():
        frozen = not weight.requires_grad
        function = with_backward(members, batch, inputs, weight.shape[0], space, frozen=frozen)
        return function(x, weight, r, s, bias)
    if space == "auto":
        space = cheaper_space(batch, inputs, weight.shape[0])
    return (activation_space if space == "activation" else weight_space)(x, weight, r, s, bias)


def with_backward(
    members: int,
    batch: int,
    inputs: int,
    outputs: int,
    space: Space = "auto",
    *,
    frozen: bool = False,
) -> Callable[..., Tensor]:
    """Return what computes :func:`multiplicative` where gradients are asked for.

    It depends on nothing but these numbers, so that a layer may keep it.

    Args:
        members: how many there are.
        batch: rows of one member.
        inputs: width of ``W``.
        outputs: height of ``W``.
        space: as in :func:`multiplicative`.
        frozen: whether ``W`` needs no gradient.

    Returns:
        A function of ``x``, ``weight``, ``r``, ``s`` and ``bias``.
    """
    if space == "auto":
        space = cheaper_space(batch, inputs, outputs)
    function: Any
    if space == "activation":
        keeps = frozen or _keep_products(members, batch, inputs, outputs)
        function = _KeptProducts if keeps else _ActivationSpace
    else:
        keeps = _merge_first(members, batch, inputs, outputs)
        function = _KeptWeights if keeps else _WeightSpace
    # Past what Function.apply does for torch.func, which is not there: it takes as long as two
    # operations on small tensors.
    chosen: Callable[..., Tensor] = super(torch.autograd.Function, function).apply
    return chosen


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
    if space == "weight" and _merge_first(members, batch, inputs, len(weight)):
        return own_linear(x, merged(weight, r, s).mT, bias)
    per_member = bias is not None and bias.dim() == 2
    if is_shared(x):
        y = shared_linear(x[0], weight, None if per_member else bias).expand(members, -1, -1)
        y = torch.baddbmm(y, torch.bmm(x, r.mT), s)
        return y + bias.unsqueeze(1) if bias is not None and per_member else y
    y = shared_linear(x, weight, None if per_member else bias)
    if is_transformed():
        y = y if bias is None or not per_member else y + bias.unsqueeze(1)
        return torch.baddbmm(y, torch.bmm(x, r.mT), s)
    # The product is nobody else's, and no backward asks for it: the rest is added in place.
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
    if is_exported():  # for batches of any size
        return "activation"
    by_activations = batch * (inputs + outputs)
    by_weights = WEIGHT_SPACE_FACTOR * inputs * outputs
    return "weight" if by_weights <= by_activations else "activation"


def keeping_pays(members: int, batch: int, inputs: int, outputs: int, *, compared: bool) -> bool:
    """Tell whether merged weights that are kept between calls pay without gradients.

    They save all passes over activations, and read a weight a member instead of one.

    Args:
        members: how many there are.
        batch: rows of one member.
        inputs: width of ``W``.
        outputs: height of ``W``.
        compared: whether each call also reads ``W`` to compare it with a copy.

    Example:
        >>> keeping_pays(4, 256, 512, 512, compared=True)
        True
        >>> keeping_pays(4, 96, 768, 3072, compared=True)
        False
    """
    size = inputs * outputs
    if members * size <= MERGED_NUMBERS or (members == 1 and not compared):
        return True
    return size <= batch * (inputs + outputs) * (1 if compared else 2)


def _merge_first(members: int, batch: int, inputs: int, outputs: int) -> bool:
    """Tell whether the members' weights are few enough to be merged, and kept for the backward."""
    return members * inputs * outputs <= MERGED_NUMBERS or 16 * outputs <= batch


def _keep_products(members: int, batch: int, inputs: int, outputs: int) -> bool:
    """Tell whether products are kept for the backward: they are small, or so beside the weights."""
    small = members * batch * outputs <= SMALL_PRODUCT
    return small or inputs * outputs > batch * (inputs + outputs)


class _WeightSpace(torch.autograd.Function):
    """One batched product of the members' weights, for many rows beside the weight."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, r: Tensor, s: Tensor, bias: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(x, weight, r, s)
        ctx.bias_dim = None if bias is None else bias.dim()
        return weight_space(x, weight, r, s, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, r, s = ctx.saved_tensors
        factor = outer(r, s)
        dx = torch.bmm(dy, factor * weight) if ctx.needs_input_grad[0] else None
        gradients = _weight_gradients(ctx, dy, x, weight, r, s, factor)
        return dx, *gradients, bias_gradient(ctx, dy, ctx.bias_dim)


class _ActivationSpace(torch.autograd.Function):
    """One product for all members, and the gradients of the weights in weight space."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, r: Tensor, s: Tensor, bias: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(x, weight, r, s)
        ctx.bias_dim = None if bias is None else bias.dim()
        return activation_space(x, weight, r, s, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, r, s = ctx.saved_tensors
        dx = None
        if ctx.needs_input_grad[0]:
            dx = bent_product(dy, weight.t(), s).mul_(r.unsqueeze(1))
        gradients = _weight_gradients(ctx, dy, x, weight, r, s)
        return dx, *gradients, bias_gradient(ctx, dy, ctx.bias_dim)


class _KeptWeights(torch.autograd.Function):
    """The same as :class:`_WeightSpace`, with the members' weights kept for the backward."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, r: Tensor, s: Tensor, bias: Tensor | None
    ) -> Tensor:
        factor = outer(r, s)
        weights = factor * weight
        kept = factor if ctx.needs_input_grad[1] else None
        ctx.save_for_backward(x, weight, r, s, bias, kept, weights)
        return own_linear(x, weights.mT, bias)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, factor, weights = ctx.saved_tensors
        if torch.is_grad_enabled():
            return gradients_to_differentiate(weight_space, tensors, dy)
        x, weight, r, s, bias = tensors
        dx = torch.bmm(dy, weights) if ctx.needs_input_grad[0] else None
        gradients = _weight_gradients(ctx, dy, x, weight, r, s, factor)
        return dx, *gradients, bias_gradient(ctx, dy, None if bias is None else bias.dim())


class _KeptProducts(torch.autograd.Function):
    """One product for all members, kept for the backward as ``x_m ∘ r_m`` is."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, r: Tensor, s: Tensor, bias: Tensor | None
    ) -> Tensor:
        bent = x * r.unsqueeze(1)
        y = shared_linear(bent, weight)
        kept = bent if ctx.needs_input_grad[1] else None
        ctx.save_for_backward(x, weight, r, s, bias, kept, y if ctx.needs_input_grad[3] else None)
        if bias is None:
            return y * s.unsqueeze(1)
        return torch.addcmul(bias.unsqueeze(-2), y, s.unsqueeze(1))

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, bent, y = ctx.saved_tensors
        if torch.is_grad_enabled():
            return gradients_to_differentiate(activation_space, tensors, dy)
        x, weight, r, s, bias = tensors
        for_x, for_weight, for_r, for_s, _ = ctx.needs_input_grad
        # What has been read is in the cache, and so is memory that was written: both go on at once.
        scratch = dy * y if for_s else None
        ds = None if scratch is None else scratch.sum(1)
        scaled = scratch = torch.mul(dy, s.unsqueeze(1), out=scratch)
        dbias = bias_gradient(ctx, dy, None if bias is None else bias.dim())
        dx: Any = shared_linear_backward(scaled, weight) if for_x or for_r else None
        dweight = None
        if for_weight:
            dweight = torch.mm(scaled.flatten(0, 1).t(), bent.flatten(0, 1))
        dr = (
            torch.mul(dx, x, out=scratch if x.shape == dy.shape else None).sum(1) if for_r else None
        )
        return dx.mul_(r.unsqueeze(1)) if for_x else None, dweight, dr, ds, dbias


def _weight_gradients(
    ctx: Any,
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    r: Tensor,
    s: Tensor,
    factor: Tensor | None = None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return ``dW``, ``dr`` and ``ds`` from ``G_m``; all members at once if they fit in cache.

    Args:
        ctx: tells which gradients are asked for.
        dy: the gradient of the output.
        x: each member's input.
        weight: the shared weight.
        r: fast weights on the inputs.
        s: fast weights on the outputs.
        factor: ``s_m r_mᵀ``, if it is there already.
    """
    for_weight = ctx.needs_input_grad[1]
    if not any(ctx.needs_input_grad[1:4]):
        return None, None, None
    members, size = len(x), weight.numel()
    if size > SMALL_WEIGHT and members * size > CACHED_NUMBERS and weight.device.type == "cpu":
        few = max(1, PRODUCT_NUMBERS // size)
        return weight_gradients_in_cache(dy, x, weight, r, s, few, for_weight=for_weight)
    product = weight_gradient(dy, x)
    weighted = product * weight
    ds = torch.bmm(weighted, r.unsqueeze(2)).squeeze(2)
    dr = torch.bmm(s.unsqueeze(1), weighted).squeeze(1)
    if not for_weight:
        return None, dr, ds
    return product.mul_(outer(r, s) if factor is None else factor).sum(0), dr, ds
