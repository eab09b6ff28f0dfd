"""Find weights that a forward pass uses and that torch does not know as the model's parameters.

A network may hold references that a copy does not follow: a lambda is bound to the original, a list
hides a parameter from ``parameters()``. No optimiser would train these. What can be seen in the
network itself is refused before conversion, see
:mod:`batchensemble.ensembles.conversion.checks`; the rest is found at the first batch, from the
graph of its outputs.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from batchensemble.core.pytree import leaves
from batchensemble.ensembles.conversion.copies import COPIED_CONTAINERS, plain_attributes
from batchensemble.layers import Twin
from batchensemble.layers.modes import evaluating


@dataclass(frozen=True)
class Origin:
    """The network that an ensemble was made from, by weak references.

    Attributes:
        modules: the name of each module.
        parameters: by ``id``, each parameter and the name of the module that holds it.
    """

    modules: weakref.WeakKeyDictionary[nn.Module, str]
    parameters: dict[int, tuple[weakref.ref[Tensor], str]]

    @classmethod
    def from_modules(cls, modules: Mapping[nn.Module, str]) -> Origin:
        """Record modules and their names."""
        parameters: dict[int, tuple[weakref.ref[Tensor], str]] = {
            id(parameter): (weakref.ref(parameter), name)
            for module, name in modules.items()
            for parameter in module.parameters(recurse=False)
        }
        return cls(weakref.WeakKeyDictionary(modules), parameters)

    def name_of(self, parameter: Tensor) -> str | None:
        """Return the name of the module that held a parameter; ``None`` for other tensors."""
        found, name = self.parameters.get(id(parameter), (None, ""))
        return name if found is not None and found() is parameter else None


_ORIGINS: weakref.WeakKeyDictionary[nn.Module, Origin] = weakref.WeakKeyDictionary()
_NOWHERE = Origin.from_modules({})


def remember_origin(model: nn.Module, network: nn.Module | Mapping[nn.Module, str]) -> None:
    """Record the network that an ensemble was made from, to detect later use of its weights.

    Args:
        model: the ensemble.
        network: the network, or the names of its modules before it was converted in place.
    """
    if isinstance(network, nn.Module):
        network = {module: name for name, module in network.named_modules()}
    _ORIGINS[model] = Origin.from_modules(network)


def check_weights_registered(model: nn.Module, run: Callable[[], Any]) -> list[str]:
    """Check that an ensemble only computes with its own registered parameters.

    Args:
        model: the ensemble.
        run: calls it on a few examples.

    Returns:
        A sentence for each attribute that holds a weight which the forward pass uses and which is
        not registered with torch: no optimiser trains it, in the plain network either.

    Raises:
        ValueError: the forward pass uses weights of the network that the ensemble was made from.
    """
    called, outputs = _record_calls(model, run)
    held, origin = {*_all_modules(model)}, _ORIGINS.get(model, _NOWHERE)
    names = {parameter: name.rpartition(".")[0] for name, parameter in model.named_parameters()}
    used = {leaf for leaf in _leaves_of_graph(outputs) if leaf not in names}
    plain = [name for name in map(origin.name_of, used) if name is not None]
    for module in called - held:
        for parameter in module.parameters(recurse=False):
            name = origin.modules.get(module, names.get(parameter))
            plain += [] if name is None else [name]
    if plain:
        raise ValueError(
            f"the ensemble computes with the weights of {min(plain) or 'the network'!r} of the "
            "network that it was made from, so its own would not be trained: an attribute of the "
            "network, such as a lambda in its __init__, still refers to them; make it a method"
        )
    return list(_describe_unregistered(model, used))


def _describe_unregistered(model: nn.Module, used: set[Tensor]) -> Iterator[str]:
    """Yield a sentence for each used weight that is not registered, saying where it is held."""
    said = set()
    for name, module in model.named_modules():
        attributes = (pair for part in _with_shell(module) for pair in plain_attributes(part))
        for kept, value in attributes:
            found = used & {*_weights_in(value)}
            used -= found
            if found and (type(module), kept) not in said:
                said.add((type(module), kept))
                yield (
                    f"{name or 'the network'!r} holds weights that its forward uses in its "
                    f"attribute {kept!r}, where torch does not find them: no optimiser trains "
                    "them, in the plain network either; put them into an nn.ParameterList, or "
                    "their modules into an nn.ModuleList"
                )
    for weight in used:
        if isinstance(weight, nn.Parameter):
            yield (
                f"the forward uses a weight of shape {list(weight.shape)} that is not a parameter "
                "of the network: no optimiser trains it, in the plain network either; make it, or "
                "its module, an attribute of the network, or freeze it by requires_grad_(False)"
            )


def _record_calls(model: nn.Module, run: Callable[[], Any]) -> tuple[set[nn.Module], Any]:
    """Return the modules that a forward pass calls, and what it returns."""
    called: set[nn.Module] = set()
    handle = nn.modules.module.register_module_forward_pre_hook(
        lambda module, _: called.add(module)
    )
    try:
        with (
            evaluating(model),
            torch.enable_grad(),
            torch.random.fork_rng([]),
            warnings.catch_warnings(),
        ):
            warnings.filterwarnings("ignore", ".*there are global hooks", UserWarning)
            return called, run()
    except Exception:
        return called, None  # the network fails on this batch size, which training reports
    finally:
        handle.remove()


def _leaves_of_graph(outputs: Any) -> Iterator[Tensor]:
    """Yield the leaf tensors of the autograd graph of some outputs."""
    found = [leaf.grad_fn for _, leaf in leaves(outputs) if isinstance(leaf, Tensor)]
    seen = set()
    while found:
        function = found.pop()
        if function is None or function in seen:
            continue
        seen.add(function)
        variable = getattr(function, "variable", None)
        if variable is not None:
            yield variable
        found += [each for each, _ in function.next_functions]


def _weights_in(value: Any, depth: int = 3) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, nn.Module):
        yield from value.parameters()
    elif type(value) in COPIED_CONTAINERS and depth:
        for each in value.values() if isinstance(value, dict) else value:
            yield from _weights_in(each, depth - 1)


def _all_modules(model: nn.Module) -> Iterator[nn.Module]:
    for module in model.modules():
        yield from _with_shell(module)


def _with_shell(module: nn.Module) -> Iterator[nn.Module]:
    yield module
    if isinstance(module, Twin):
        yield from module.shell.modules()
