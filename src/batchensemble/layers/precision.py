"""Autocast: what torch's layers compute in a lower precision, so do their twins."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def lowered(x: Tensor) -> Tensor:
    """Return ``x`` in the type of autocast, where that is on; float64 stays float64."""
    kind = x.device.type
    if x.dtype == torch.float64 or not torch.is_autocast_enabled(kind):
        return x
    return x.to(torch.get_autocast_dtype(kind))


def in_autocast(function: Callable[..., Tensor], x: Tensor, *tensors: Tensor | None) -> Tensor:
    """Call a function that has a backward of its own, which wants one type, as autocast would."""
    if not torch.is_autocast_enabled(x.device.type):
        return function(x, *tensors)
    low = [tensor if tensor is None else lowered(tensor) for tensor in (x, *tensors)]
    with torch.autocast(x.device.type, enabled=False):
        return function(*low)
