"""The network that ``compare`` and ``train`` build themselves: a multilayer perceptron."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

MOST_LAYERS = 1_000  # that a saved perceptron may have


def multilayer_perceptron(features: int, hidden: Sequence[int], classes: int) -> nn.Sequential:
    """Return linear layers of these widths with ReLU between.

    Example:
        >>> len(multilayer_perceptron(2, (128, 128), 2))
        5
    """
    layers: list[nn.Module] = []
    widths = [features, *hidden, classes]
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def widths_of(network: nn.Module) -> list[int] | None:
    """Return the widths of a network that :func:`multilayer_perceptron` makes, else ``None``.

    Example:
        >>> widths_of(multilayer_perceptron(2, (128, 64), 3)), widths_of(nn.Linear(2, 3))
        ([2, 128, 64, 3], None)
    """
    if type(network) is not nn.Sequential or not len(network) % 2:
        return None
    linear, between = list(network)[::2], list(network)[1::2]
    if len(linear) > MOST_LAYERS:
        return None
    if any(type(layer) is not nn.ReLU for layer in between) or not all(map(_plain, linear)):
        return None
    widths = [linear[0].in_features, *(layer.out_features for layer in linear)]
    made = multilayer_perceptron(widths[0], widths[1:-1], widths[-1])  # type: ignore[arg-type]
    same = _shapes(made) == _shapes(network)
    return [int(width) for width in widths] if same else None  # type: ignore[arg-type]


def _plain(layer: nn.Module) -> bool:
    return type(layer) is nn.Linear and layer.bias is not None


def _shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(each.shape) for name, each in network.state_dict().items()}
