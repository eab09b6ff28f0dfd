"""Networks of the command line: multilayer perceptrons, and those imported by path."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from itertools import pairwise
from types import ModuleType
from typing import Any

from torch import nn

from batchensemble.core.arguments import nearest

MOST_LAYERS = 1_000  # that a saved perceptron may have


def multilayer_perceptron(features: int, hidden: Sequence[int], classes: int) -> nn.Sequential:
    """Return a multilayer perceptron with ReLU between linear layers.

    Args:
        features: number of inputs.
        hidden: widths of the hidden layers.
        classes: number of outputs.

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
    """Return the widths of a :func:`multilayer_perceptron`; ``None`` for other networks.

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


def find_network(path: str) -> nn.Module:
    """Import the network ``package.module:name``: a module, or a function that returns one.

    Only for paths that the user typed: it imports from the working directory, too, and runs code.

    Raises:
        ImportError: there is no such module, or its import fails.
        ValueError: ``path`` does not have that form, or there is no such name.
        TypeError: it is not a network, or the function takes arguments.
    """
    module_name, colon, name = path.partition(":")
    if not (module_name and colon and name):
        raise ValueError(f"give a network as package.module:function, got {path!r}")
    if "" not in sys.path:
        sys.path.insert(0, "")  # the working directory, as with ``python -m``
    return network_of(path, attribute_of(imported(module_name), name)[-1])


def imported(module_name: str) -> ModuleType:
    """Import a module by name.

    Raises:
        ImportError: there is no such module, or its import fails.
    """
    try:
        return importlib.import_module(module_name)
    except ImportError:
        raise
    except Exception as error:
        raise ImportError(f"{module_name} fails with {type(error).__name__}: {error}") from error


def attribute_of(module: ModuleType, name: str) -> list[Any]:
    """Return the objects along a dotted ``name`` in a module, the module first.

    Raises:
        ValueError: there is no such name.
    """
    way: list[Any] = [module]
    for part in name.split("."):
        if not hasattr(way[-1], part):
            raise ValueError(
                f"{module.__name__} has no {name!r}"
                f"{nearest(part, dir(way[-1])) or '; check the name'}"
            )
        way.append(getattr(way[-1], part))
    return way


def network_of(path: str, found: Any) -> nn.Module:
    """Return ``found`` if it is a network, or the network that it returns as a function.

    Raises:
        TypeError: it is not a network, or the function takes arguments.
    """
    if isinstance(found, nn.Module):
        return found
    try:
        network = found()
    except TypeError as error:
        raise TypeError(f"{path} must work without arguments: {error}") from error
    if not isinstance(network, nn.Module):
        raise TypeError(f"{path} must return a torch.nn.Module, got {type(network).__name__}")
    return network
