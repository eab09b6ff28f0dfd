"""Fit fast weights that change one weight into another."""

from __future__ import annotations

import torch
from torch import Tensor


def fit_rank_one(weight: Tensor, target: Tensor, groups: int = 1) -> tuple[Tensor, Tensor]:
    """Return ``a`` and ``b`` with ``target ≈ weight ∘ (a bᵀ)``.

    Args:
        weight: ``[first, second, ...]``; the factors are constant along further axes.
        target: a weight of the same shape.
        groups: number of blocks of the first axis, each with its own ``b``; by default 1.

    Returns:
        ``a`` ``[first]`` and ``b`` ``[groups * second]``, float64, of the same mean magnitude. They
        are exact if any factors are; the caller has to check.

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
    """Return ``A`` and ``B`` such that ``Aᵀ B`` is the best approximation of a matrix.

    Args:
        added: the matrix, ``[first, second]``.
        rank: rank of the approximation.

    Returns:
        ``A`` ``[rank, first]`` and ``B`` ``[rank, second]``, float64 (Eckart and Young 1936).
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

    Factors propagate from one entry along rows and columns. If zeros of the weight separate the
    matrix into parts, each part starts with its own scale, which is arbitrary.
    """
    ratio = ratio.where(known, 0.0)
    a, b = ratio.new_full((len(ratio),), torch.nan), ratio.new_full((ratio.shape[1],), torch.nan)
    while b.isnan().any():
        # A column of zeros would determine no rows; the largest one determines most.
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
    """Return one factor with the entries that the other determines."""
    weights = other.nan_to_num(0.0) * known
    size = (weights * weights).sum(1)
    found = (ratio * weights).sum(1) / size.where(size > 0, 1.0)
    return unknown.where(~unknown.isnan() | (size == 0), found)
