"""Does an ensemble hold the weights that it computes with? What a copy of a network may lose.

A network may be copied in ways that leave weights behind: TorchScript has its own, a module may
copy itself, a function that the network keeps is bound to the original. What would not be trained
then is refused by name: what can be told from the network before it is converted, and the rest at
the first batch, where all weights that a forward pass uses have to be the ensemble's.
"""

from __future__ import annotations

import copy
import functools
import types
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from batchensemble.core.pytree import leaves
from batchensemble.layers import Twin
from batchensemble.layers.modes import evaluating
from batchensemble.layers.registry import is_lazy, weight_hook

WRAPPERS = ("DataParallel", "DistributedDataParallel", "FullyShardedDataParallel", "FSDPModule")
QUANTISED = ("torch.ao.nn.quantized", "torch.nn.quantized", "torch.ao.nn.intrinsic.quantized")
CONTAINERS = (list, tuple, dict)
KEPT = (nn.Module, Tensor, functools.partial, types.MethodType)


@dataclass(frozen=True)
class Origin:
    """The network that an ensemble was made from, as far as somebody keeps it alive.

    Attributes:
        modules: their names.
        parameters: by identity, what they are and the module that they are in.
    """

    modules: weakref.WeakKeyDictionary[nn.Module, str]
    parameters: dict[int, tuple[weakref.ref[Tensor], str]]

    @classmethod
    def of(cls, modules: Mapping[nn.Module, str]) -> Origin:
        """Note modules by their names."""
        parameters: dict[int, tuple[weakref.ref[Tensor], str]] = {
            id(parameter): (weakref.ref(parameter), name)
            for module, name in modules.items()
            for parameter in module.parameters(recurse=False)
        }
        return cls(weakref.WeakKeyDictionary(modules), parameters)

    def name_of(self, parameter: Tensor) -> str | None:
        """Return the name of the module that a parameter was in, ``None`` for others."""
        found, name = self.parameters.get(id(parameter), (None, ""))
        return name if found is not None and found() is parameter else None


_ORIGINS: weakref.WeakKeyDictionary[nn.Module, Origin] = weakref.WeakKeyDictionary()
_NOWHERE = Origin.of({})


def check_network(network: Any) -> None:
    """Check that ``network`` is one whose weights can be copied.

    Raises:
        TypeError: it is no module.
        ValueError: a module's weights do not exist yet, are made by a hook, or would be lost by a
            copy; it is named.
    """
    if not isinstance(network, nn.Module):
        raise TypeError(f"network must be a torch.nn.Module, got {type(network).__name__}")
    for name, module in network.named_modules():
        if is_lazy(module):
            raise ValueError(
                f"{name or 'the network'!r} is a {type(module).__name__}, whose weights do not "
                "exist yet; run the network once on an example before converting it"
            )
        hook = weight_hook(module)
        if hook is not None:
            raise ValueError(
                f"{name or 'the network'!r} is a {type(module).__name__} whose weight is made by a "
                f"hook, which torch cannot copy; use torch.nn.utils.parametrizations.{hook} "
                f"instead, or merge it with torch.nn.utils.remove_{hook}"
            )
        _check_copyable(name, module)


def _check_copyable(name: str, module: nn.Module) -> None:
    """Raise ``ValueError`` for a module of whose weights something else keeps track."""
    place = f"{name or 'the network'!r} is a {type(module).__name__}"
    if isinstance(module, torch.jit.ScriptModule):
        raise ValueError(
            f"{place}, a module of TorchScript, and a copy of it loses its weights, so that they "
            "would not be trained; convert the plain module, and script or trace the members that "
            "come out, model.member(i)"
        )
    kinds = {kind.__name__ for kind in type(module).__mro__ if kind.__module__[:6] == "torch."}
    if kinds & {*WRAPPERS}:
        raise ValueError(
            f"{place}, which keeps track of the weights as they are before conversion; convert the "
            "plain network, and wrap the ensemble, or let fit share the training out, as it does "
            "under torchrun"
        )


def check_convertible(name: str, module: nn.Module) -> None:
    """Raise ``ValueError`` for a module in which no twins can be put.

    Args:
        name: of the module.
        module: that is to be converted, with all beneath it.
    """
    place = f"{name or 'the network'!r} is a {type(module).__name__}"
    if type(module).__name__ == "OptimizedModule":
        raise ValueError(
            f"{place}, compiled by torch.compile, where the members' rows are not known; give what "
            "was compiled, ._orig_mod, and compile the ensemble instead: torch.compile(model), or "
            "fit(compile=True)"
        )
    if is_quantised(module):
        raise ValueError(
            f"{place} whose weights are packed as whole numbers, and fast weights are real numbers "
            "that are trained; convert before quantising, or name it in exclude=, so that all "
            "members share it"
        )


def check_twin(name: str, layer: nn.Module, twin: nn.Module) -> None:
    """Raise ``ValueError`` where a twin of the user's own has lost a parameter of its layer.

    Args:
        name: of the layer.
        layer: the plain layer.
        twin: what became of it.
    """
    if type(twin).__module__.startswith("batchensemble.") or not isinstance(twin, Twin):
        return
    with torch.no_grad():
        kept = twin.tensors(0)
    lost = [each for each, _ in layer.named_parameters() if each not in kept]
    if lost:
        raise ValueError(
            f"{type(twin).__name__}, the twin of {name or 'the network'!r}, has lost its "
            f"{', '.join(lost)}: no member could train it; let hold_tensors hold it, and tensors "
            "return it"
        )


def is_quantised(module: nn.Module) -> bool:
    """Tell whether a module keeps its weights packed as whole numbers, where nothing trains them.

    Example:
        >>> is_quantised(nn.Linear(2, 3))
        False
    """
    kind = type(module)
    packed = hasattr(module, "_packed_params") and not kind.__name__.endswith("PackedParams")
    return packed and kind.__module__.startswith(QUANTISED)


def copied(network: nn.Module) -> nn.Module:
    """Return a copy of a network that has all its weights, as weights of its own.

    Raises:
        ValueError: it cannot be copied, or a module copies itself in another way.
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
                "module around it, says by __deepcopy__ or __getstate__ how it is copied; let it "
                "copy its parameters as nn.Module does"
            )
    return result


def relink(network: nn.Module, replaced: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """Let what a network keeps besides its modules name the same ones: lists, bound methods.

    Args:
        network: in which modules were replaced, changed in place.
        replaced: what took the place of each.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3))
        >>> net.order = (net[0],)
        >>> old, net[0] = net[0], nn.Linear(2, 4)
        >>> relink(net, {old: net[0]}).order[0].out_features
        4
    """
    changed = {old: new for old, new in replaced.items() if old is not new}
    for module in network.modules() if changed else ():
        for name, value in _kept_besides(module):
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
    if type(value) not in CONTAINERS or not depth:
        return value
    if type(value) is tuple:
        return tuple(_relinked(each, changed, depth - 1) for each in value)
    for key, each in list(enumerate(value) if type(value) is list else value.items()):
        value[key] = _relinked(each, changed, depth - 1)
    return value


def _kept_besides(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield the attributes of a module that may hold modules or weights without torch's knowing."""
    for name, value in list(module.__dict__.items()):
        if name in nn.Module.__annotations__ or name == "shell":
            continue
        if isinstance(value, KEPT) or (type(value) in CONTAINERS and value):
            yield name, value


def remember_origin(model: nn.Module, network: nn.Module | Mapping[nn.Module, str]) -> None:
    """Note which network an ensemble was made from, to tell whether it goes on using it.

    Args:
        model: the ensemble.
        network: the network, or its modules and their names before it was converted in place.
    """
    if isinstance(network, nn.Module):
        network = {module: name for name, module in network.named_modules()}
    _ORIGINS[model] = Origin.of(network)


def check_weights_held(model: nn.Module, run: Callable[[], Any]) -> list[str]:
    """Check that an ensemble computes with weights of its own.

    Args:
        model: the ensemble.
        run: calls it on a few examples.

    Returns:
        A sentence for each attribute with weights that the forward pass uses and torch does not
        find, so that no optimiser trains them, and none would in the plain network.

    Raises:
        ValueError: it uses modules of the network that it was made from, or plain layers of which
            it has twins.
    """
    called, outputs = _watched(model, run)
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
            f"the ensemble computes with the weights of {min(plain) or 'the network'!r} as they "
            "were in the network that it was made from, not with what became of them, so they "
            "would not be trained: something that the network keeps besides its modules, such as "
            "a lambda in its __init__, goes on using them; make that a method"
        )
    return list(_kept_apart(model, used))


def _kept_apart(model: nn.Module, used: set[Tensor]) -> Iterator[str]:
    """Say of weights that are used where a network keeps them without torch's knowing."""
    said = set()
    for name, module in model.named_modules():
        for kept, value in (pair for part in _with_shell(module) for pair in _kept_besides(part)):
            found = used & {*_weights_in(value)}
            used -= found
            if found and (type(module), kept) not in said:
                said.add((type(module), kept))
                yield (
                    f"{name or 'the network'!r} keeps weights that its forward uses in its "
                    f"attribute {kept!r}, where torch does not find them: no optimiser trains "
                    "them, in the plain network either; keep them in an nn.ParameterList, or their "
                    "modules in an nn.ModuleList"
                )
    for weight in used:
        if isinstance(weight, nn.Parameter):
            yield (
                f"the forward uses a weight of shape {list(weight.shape)} that is none of the "
                "network's parameters: no optimiser trains it, in the plain network either; make "
                "it, or its module, an attribute of the network, or freeze it by "
                "requires_grad_(False)"
            )


def _watched(model: nn.Module, run: Callable[[], Any]) -> tuple[set[nn.Module], Any]:
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
        return called, None  # a network for one size of batch, which the training tells of
    finally:
        handle.remove()


def _leaves_of_graph(outputs: Any) -> Iterator[Tensor]:
    """Yield the tensors at the ends of the graph of some outputs."""
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
    elif type(value) in CONTAINERS and depth:
        for each in value.values() if isinstance(value, dict) else value:
            yield from _weights_in(each, depth - 1)


def _all_modules(model: nn.Module) -> Iterator[nn.Module]:
    for module in model.modules():
        yield from _with_shell(module)


def _with_shell(module: nn.Module) -> Iterator[nn.Module]:
    yield module
    shell = module.__dict__.get("shell")
    if shell is not None:
        yield from shell.modules()
