"""Autocast: what torch's layers compute in a lower precision, so do their twins."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# One look at the state of this thread, whatever the device.
is_any_autocast_on: Callable[[], bool] = torch._C._is_any_autocast_enabled


def autocasts(device: str) -> bool:
    """Tell whether autocast is on for a type of device; some, such as ``meta``, have none.

    Example:
        >>> autocasts("cpu"), autocasts("meta")
        (False, False)
    """
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def lowered(x: Tensor) -> Tensor:
    """Return ``x`` in the type of autocast, where that is on; float64 stays float64."""
    kind = x.device.type
    if x.dtype == torch.float64 or not autocasts(kind):
        return x
    return x.to(torch.get_autocast_dtype(kind))


def in_autocast(function: Callable[..., Tensor], x: Tensor, *tensors: Tensor | None) -> Tensor:
    """Call a function that has a backward of its own, which wants one type, as autocast would."""
    if not autocasts(x.device.type):
        return function(x, *tensors)
    low = [tensor if tensor is None else lowered(tensor) for tensor in (x, *tensors)]
    with torch.autocast(x.device.type, enabled=False):
        return function(*low)
