"""The forward pass of rank-one layers, in either space; ``arithmetic.py`` chooses.

What nobody else sees is written in place.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad

from batchensemble.layers.base.any_batch import is_exported
from batchensemble.layers.rank_one.products import shared_linear


def merged(
    weight: Float[Tensor, "out in"], r: Float[Tensor, "..."], s: Float[Tensor, "..."]
) -> Float[Tensor, "members out in"]:
    """Return the members' weights: ``W ∘ (s_m r_mᵀ)``, or ``W + S_mᵀ R_m``.

    Args:
        weight: the shared weight ``W``.
        r: fast weights on the inputs, ``[members, in]`` or, to be added, ``[members, rank, in]``.
        s: fast weights on the outputs alike. The product is bent in place: without gradients.

    Example:
        >>> merged(torch.ones(1, 2), torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0]]))
        tensor([[[3., 6.]]])
    """
    return torch.baddbmm(weight, s.mT, r) if r.dim() == 3 else outer(r, s).mul_(weight)


def own_linear(
    x: Float[Tensor, "members batch in"],
    weights: Float[Tensor, "members in out"],
    bias: Float[Tensor, "members out"] | Float[Tensor, "out"] | None = None,
) -> Float[Tensor, "members batch out"]:
    """Return ``x_m W_mᵀ + b_m`` for weights that are merged, given as ``W_mᵀ``."""
    if bias is None:
        return torch.bmm(x, weights)
    return torch.baddbmm(bias.unsqueeze(-2), x, weights)


def activation_space(
    x: Tensor, weight: Tensor, r: Tensor, s: Tensor, bias: Tensor | None
) -> Float[Tensor, "members batch out"]:
    """Return ``((x_m ∘ r_m) Wᵀ) ∘ s_m + b_m``."""
    y = bent_product(x, weight, r)
    out = y if in_place() else None
    if bias is None:
        return torch.mul(y, s.unsqueeze(1), out=out)
    if is_exported():  # where addcmul has a factor of 1, for which a runtime goes through it again
        return y * s.unsqueeze(1) + bias.unsqueeze(-2)
    return torch.addcmul(bias.unsqueeze(-2), y, s.unsqueeze(1), out=out)


def weight_space(
    x: Tensor, weight: Tensor, r: Tensor, s: Tensor, bias: Tensor | None
) -> Float[Tensor, "members batch out"]:
    """Return ``x_m (W ∘ s_m r_mᵀ)ᵀ + b_m``."""
    if in_place():
        return own_linear(x, merged(weight, r, s).mT, bias)
    return own_linear(x, (weight * torch.bmm(s.unsqueeze(2), r.unsqueeze(1))).mT, bias)


def bent_product(x: Tensor, weight: Tensor, r: Tensor) -> Float[Tensor, "members batch out"]:
    """Return ``(x_m ∘ r_m) Wᵀ``."""
    bent = (x * r.unsqueeze(1)).reshape(x.shape[0] * x.shape[1], x.shape[2])
    return shared_linear(bent, weight).view(*x.shape[:2], len(weight))


def outer(r: Tensor, s: Tensor) -> Float[Tensor, "members out in"]:
    """Return what each member multiplies the weight by, ``s_m r_mᵀ``."""
    return s.unsqueeze(2) * r.unsqueeze(1)


def is_transformed() -> bool:
    """Tell whether somebody looks on who takes no backward of ours and nothing done in place.

    That is the compiler, ``torch.func``, forward mode and ``torch.jit.trace``.
    """
    return (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or torch._C._is_tracing()
        or forward_ad._current_level >= 0
    )


def is_shared(x: Tensor) -> bool:
    """Tell whether all members see one input, as at the first layer: a view that repeats it.

    Where its gradient is asked for, each member's is.
    """
    return len(x) > 1 and x.stride(0) == 0 and not x.requires_grad


def in_place() -> bool:
    """Tell whether nobody asks for what a product was before it is bent."""
    return not torch.is_grad_enabled() and not is_transformed()
