"""Copy a network with all its weights, and redirect the references that it holds to its modules."""

from __future__ import annotations

import copy
import functools
import types
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

COPIED_CONTAINERS = (list, tuple, dict)
REFERENCES = (nn.Module, Tensor, functools.partial, types.MethodType)


def copied(network: nn.Module) -> nn.Module:
    """Return a deep copy of a network, with its own copy of every weight.

    Raises:
        ValueError: it cannot be copied, or a module overrides how it is copied and loses a weight.
    """
    try:
        result = copy.deepcopy(network)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"the network cannot be copied ({str(error).splitlines()[0]}); give inplace=True to "
            "convert it in place"
        ) from error
    own = dict(result.named_parameters())
    for name, parameter in network.named_parameters():
        lost = name not in own or own[name].shape != parameter.shape
        if lost or (own[name] is parameter and parameter.requires_grad):
            owner = network.get_submodule(name.rpartition(".")[0])
            how = "not there" if lost else "the same parameter, and so not its own,"
            raise ValueError(
                f"{name!r} is {how} in a copy of the network: a {type(owner).__name__}, or a "
                "module around it, defines __deepcopy__ or __getstate__; let it copy its "
                "parameters as nn.Module does"
            )
    return result


def relink(network: nn.Module, replaced: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """Redirect lists, bound methods and other references to modules that were replaced.

    Args:
        network: the network in which modules were replaced, changed in place.
        replaced: the replacement of each module.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3))
        >>> net.order = (net[0],)
        >>> old, net[0] = net[0], nn.Linear(2, 4)
        >>> relink(net, {old: net[0]}).order[0].out_features
        4
    """
    changed = {old: new for old, new in replaced.items() if old is not new}
    for module in network.modules() if changed else ():
        for name, value in plain_attributes(module):
            module.__dict__[name] = _relinked(value, changed)
    return network


def _relinked(value: Any, changed: Mapping[nn.Module, nn.Module], depth: int = 3) -> Any:
    if isinstance(value, nn.Module):
        return changed.get(value, value)
    if isinstance(value, types.MethodType):
        owner: Any = value.__self__
        new = changed.get(owner) if isinstance(owner, nn.Module) else None
        return value if new is None else getattr(new, value.__name__, value)
    if isinstance(value, functools.partial):
        function = _relinked(value.func, changed, depth)
        same = function is value.func
        return value if same else functools.partial(function, *value.args, **value.keywords)
    if type(value) not in COPIED_CONTAINERS or not depth:
        return value
    if type(value) is tuple:
        return tuple(_relinked(each, changed, depth - 1) for each in value)
    for key, each in list(enumerate(value) if type(value) is list else value.items()):
        value[key] = _relinked(each, changed, depth - 1)
    return value


def plain_attributes(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield the attributes of a module that may hold modules or weights unknown to torch."""
    for name, value in list(module.__dict__.items()):
        if name in nn.Module.__annotations__ or name == "shell":
            continue
        if isinstance(value, REFERENCES) or (type(value) in COPIED_CONTAINERS and value):
            yield name, value
