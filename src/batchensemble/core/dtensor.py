"""Tensors that may be sharded over processes (``DTensor``): gathered, and sharded again."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def whole(tensor: Tensor) -> Tensor:
    """Return the full tensor of one that may be sharded; all processes must call it."""
    full_tensor = getattr(tensor, "full_tensor", None)
    return tensor if full_tensor is None else full_tensor()


def whole_on_first(tensor: Tensor) -> Tensor:
    """Return the full tensor on the first process, for writing it.

    All processes must call it; the others get an empty tensor, which saves their memory.
    """
    found = whole(tensor)
    if found is tensor:
        return tensor
    return found.cpu() if torch.distributed.get_rank() == 0 else torch.empty(0)


def as_held(value: Any, other: Any) -> Any:
    """Return a tensor sharded like ``other``, which has the same shape.

    Anything else than a full tensor of that shape is returned as it is.

    Args:
        value: the same on all processes, which must all call it.
        other: a tensor that may be sharded.
    """
    if not hasattr(other, "full_tensor") or not isinstance(value, Tensor):
        return value
    if hasattr(value, "full_tensor") or value.shape != other.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(other.device), other.device_mesh, other.placements)
