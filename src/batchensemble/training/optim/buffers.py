"""All parameters of a group in one buffer, so that an elementwise optimiser takes one kernel."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Group = dict[str, Any]  # "params", "lr" and "weight_decay", as torch's optimisers take them


@dataclass
class Buffer:
    """Parameters of one group that lie in one piece of memory.

    Attributes:
        values: the values of all parameters, flat.
        parameters: the parameters, which are views of ``values``.
        sizes: number of values of each parameter.
        lr: the highest learning rate of the group.
        weight_decay: the weight decay of the group.
    """

    values: Tensor
    parameters: list[nn.Parameter]
    sizes: list[int]
    lr: float
    weight_decay: float

    def gradient(self) -> Tensor:
        """Return the gradients of all parameters, flat; 0 for a parameter that was not used."""
        parts = [
            parameter.new_zeros(size) if parameter.grad is None else parameter.grad.flatten()
            for parameter, size in zip(self.parameters, self.sizes, strict=True)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


@contextmanager
def in_buffers(groups: list[Group]) -> Iterator[list[Buffer]]:
    """Move the trainable parameters of each group into one buffer for a while.

    Elementwise optimisers do the same to the buffer as to the parameters one by one, in one kernel
    instead of one a parameter. There is a buffer for each group, dtype and device. On leaving, also
    by an error, each parameter owns its memory again and has no gradient.
    """
    found = by_buffer(groups)
    try:
        yield [_buffer(parameters, *key[:2]) for key, parameters in found.items()]
    finally:
        for parameters in found.values():
            for parameter in parameters:
                parameter.data = parameter.data.clone()
                parameter.grad = None


def by_buffer(groups: list[Group]) -> dict[Any, list[nn.Parameter]]:
    """Return the trainable parameters that belong into one buffer, by what they have in common."""
    found: dict[Any, list[nn.Parameter]] = defaultdict(list)
    for group in groups:
        for parameter in group["params"]:
            if parameter.requires_grad:
                key = group["lr"], group["weight_decay"], parameter.dtype, parameter.device
                found[key].append(parameter)
    return found


def _buffer(parameters: list[nn.Parameter], lr: float, weight_decay: float) -> Buffer:
    values = torch.cat([parameter.detach().flatten() for parameter in parameters])
    sizes = [parameter.numel() for parameter in parameters]
    for parameter, value in zip(parameters, values.split(sizes), strict=True):
        parameter.data = value.view_as(parameter)
        parameter.grad = None
    return Buffer(values, parameters, sizes, lr, weight_decay)
