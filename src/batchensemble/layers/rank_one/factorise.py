"""The fast weights that take one weight to another, where there are any."""

from __future__ import annotations

import torch
from torch import Tensor


def fit_rank_one(weight: Tensor, target: Tensor, groups: int = 1) -> tuple[Tensor, Tensor]:
    """Return ``a`` and ``b`` with ``target = weight ∘ (a bᵀ)``, as nearly as may be.

    Args:
        weight: ``[first, second, ...]``; further axes are bent alike.
        target: the same shape.
        groups: blocks of the first axis, each with a ``b`` of its own.

    Returns:
        ``a`` ``[first]`` and ``b`` ``[groups * second]``, float64, of the same mean size. It is
        for the caller to check that they fit.

    Example:
        >>> W = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
        >>> a, b = fit_rank_one(W, W * torch.tensor([[2.0, 4.0], [4.0, 8.0]]))
        >>> torch.outer(a, b).tolist()
        [[2.0, 4.0], [4.0, 8.0]]
    """
    shape = (*weight.shape[:2], -1)
    old, new = weight.double().reshape(shape), target.double().reshape(shape)
    size = (old * old).sum(-1)
    known = size > 0
    ratio = (old * new).sum(-1) / size.where(known, 1.0)
    pairs = [
        _outer_factors(part, mask)
        for part, mask in zip(ratio.chunk(groups), known.chunk(groups), strict=True)
    ]
    return torch.cat([a for a, _ in pairs]), torch.cat([b for _, b in pairs])


def fit_low_rank(added: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return ``A`` and ``B`` with ``added = Aᵀ B``, as nearly as ``rank`` allows.

    Args:
        added: ``[first, second]``.
        rank: how many pairs of vectors.

    Returns:
        ``[rank, first]`` and ``[rank, second]``, float64 (Eckart and Young 1936).
    """
    u, sizes, v = torch.linalg.svd(added.double(), full_matrices=False)
    root = sizes[:rank].sqrt()
    a, b = (u[:, :rank] * root).mT, v[:rank] * root.unsqueeze(1)
    missing = rank - len(root)
    if missing > 0:
        a, b = (torch.cat([part, part.new_zeros(missing, part.shape[1])]) for part in (a, b))
    return a, b


def _outer_factors(ratio: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``a`` and ``b`` with ``ratio = a bᵀ`` where it is ``known``.

    The factors spread from one entry along rows and columns; where zeros of the weight cut the
    matrix into parts, each part starts anew, since any scale does there.
    """
    ratio = ratio.where(known, 0.0)
    a, b = ratio.new_full((len(ratio),), torch.nan), ratio.new_full((ratio.shape[1],), torch.nan)
    while b.isnan().any():
        # A column of zeros would say nothing of its rows; the largest one says most.
        b[ratio.abs().sum(0).where(b.isnan(), -1.0).argmax()] = 1.0
        for _ in range(len(ratio) + ratio.shape[1]):
            before = a.isnan().sum() + b.isnan().sum()
            a = _spread(a, ratio, known, b)
            b = _spread(b, ratio.mT, known.mT, a)
            if a.isnan().sum() + b.isnan().sum() == before:
                break
    a = a.nan_to_num(1.0)
    scale = (b.abs().mean() / a.abs().mean()).sqrt() if a.any() and b.any() else 1.0
    return a * scale, b / scale


def _spread(unknown: Tensor, ratio: Tensor, known: Tensor, other: Tensor) -> Tensor:
    """Fill the entries of one factor that the other determines."""
    weights = other.nan_to_num(0.0) * known
    size = (weights * weights).sum(1)
    found = (ratio * weights).sum(1) / size.where(size > 0, 1.0)
    return unknown.where(~unknown.isnan() | (size == 0), found)
