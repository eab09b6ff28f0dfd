"""Tensors of which each process may hold a piece: the whole of them, and the piece of a whole."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def whole(tensor: Tensor) -> Tensor:
    """Return the whole of a tensor that may be in pieces; all processes must ask for it."""
    full_tensor = getattr(tensor, "full_tensor", None)
    return tensor if full_tensor is None else full_tensor()


def whole_on_first(tensor: Tensor) -> Tensor:
    """Return the whole of a tensor that may be in pieces, to be written by the first process.

    The others, which must ask for it too, get an empty one, so that only one of them holds all.
    """
    found = whole(tensor)
    if found is tensor:
        return tensor
    return found.cpu() if torch.distributed.get_rank() == 0 else torch.empty(0)


def as_held(value: Any, other: Any) -> Any:
    """Return a whole tensor as ``other``, of the same shape, is held: whole, or this one's piece.

    What is no such tensor is returned as it is.

    Args:
        value: the same on all processes, which must all ask.
        other: a tensor that may be in pieces.
    """
    if not hasattr(other, "full_tensor") or not isinstance(value, Tensor):
        return value
    if hasattr(value, "full_tensor") or value.shape != other.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(other.device), other.device_mesh, other.placements)
