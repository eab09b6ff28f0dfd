"""More outputs for a network: further rows of the weight of its last layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def widen_outputs(network: nn.Module, more: int) -> None:
    """Give a network further outputs, in place; those that it has stay as they are.

    The new outputs come last and are 0: their weights are zeros, which train as any others do.

    Args:
        network: a plain network whose last layer with weights, in the order in which its modules
            are defined, is linear or a convolution and gives the outputs.
        more: number of new outputs.

    Raises:
        ValueError: the last layer is another one, or its weight is used elsewhere, too.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> widen_outputs(net, 1)
        >>> net(torch.zeros(5, 2)).shape
        torch.Size([5, 4])
    """
    name, layer = last_layer(network)
    held = [each for module in network.modules() for each in module._parameters.values()]
    tied = sum(each is layer.weight for each in held) > 1
    if tied or getattr(layer, "groups", 1) > 1:
        reason = "shares its weight with another layer" if tied else "has groups"
        raise ValueError(
            f"the last layer, {name!r}, {reason} and cannot have further outputs; give a network "
            f"with {more} more outputs"
        )
    layer.weight = _with_zeros(layer.weight, more)
    if layer.bias is not None:
        layer.bias = _with_zeros(layer.bias, more)
    if isinstance(layer, nn.Linear):
        layer.out_features += more
    else:
        layer.out_channels += more


def last_layer(network: nn.Module) -> tuple[str, Any]:
    """Return the last layer with weights of a network and its name.

    Raises:
        ValueError: there is none, or it is neither linear nor a convolution.
    """
    held = [
        (name, module)
        for name, module in network.named_modules()
        if next(module.parameters(recurse=False), None) is not None
    ]
    if not held or not isinstance(held[-1][1], LAYERS):
        what = f"{held[-1][0]!r}, a {type(held[-1][1]).__name__}" if held else "none with weights"
        raise ValueError(
            "the last layer of the network must be linear or a convolution, to be given further "
            f"outputs, got {what}; give a network that has them already"
        )
    return held[-1]


def _with_zeros(values: Tensor, rows: int) -> nn.Parameter:
    zeros = values.new_zeros(rows, *values.shape[1:])
    return nn.Parameter(torch.cat([values.detach(), zeros]), requires_grad=values.requires_grad)
