"""Convert any network into one that computes all members, and extract members as plain networks.

Conversion walks the module tree once. Modules that hold weights, or mix the rows of a batch, are
replaced by their twins according to the rules and the registry. All other modules are unchanged,
and parameters that a user's own module holds directly stay shared.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn

from batchensemble.ensembles.conversion.checks import (
    check_convertible,
    check_network,
    check_twin,
    is_quantised,
)
from batchensemble.ensembles.conversion.copies import copied, relink
from batchensemble.ensembles.conversion.rules import Rules, Selector, as_list, select
from batchensemble.layers import (
    Independent,
    OneByOne,
    RankOneLinear,
    StackedLinear,
    Twin,
    Vmapped,
)
from batchensemble.layers.base.twin import WeightSharing
from batchensemble.layers.rank_one.initialisation import MULTIPLICATIVE, Deferred
from batchensemble.layers.rank_one.options import Options
from batchensemble.layers.registry import (
    INDEPENDENT,
    STACKED,
    find,
    holds_parameters,
    is_norm,
    needs_twin,
    refusal,
)

Reset = Callable[[nn.Module], None] | str | Iterable[Selector]

POINTWISE = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Dropout)
SEQUENCE_LAYERS = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)


def convert(network: nn.Module, members: int, rules: Rules, *, inplace: bool = False) -> nn.Module:
    """Return a network in which layers are replaced by their twins.

    Args:
        network: any module; a module used in two places stays one module.
        members: number of members (M).
        rules: what the members share. Independent modules are re-initialised for each member.
        inplace: change ``network`` itself; by default a copy.

    Raises:
        TypeError: ``network`` is not a module.
        ValueError: the network or a layer cannot be converted; the message names it.
    """
    check_network(network)
    if not inplace:
        network = copied(network)
    conversion = _Conversion(network, members, rules)
    converted = conversion.walk(network, "", rules.otherwise, None)
    relink(converted, conversion.done)
    conversion.initialise(converted)
    return converted


class _Conversion:
    """One walk over a network, with the replacement of each module so far."""

    def __init__(self, network: nn.Module, members: int, rules: Rules) -> None:
        self.members, self.options = members, rules.options
        init = self.options.init
        if init == "tabm" and self.options.mode == "multiplicative":
            init = MULTIPLICATIVE[init]
        self.deferred = Deferred(init) if callable(init) else None
        self.explicit = rules.explicit(network)
        self.one_by_one = rules.run_one_by_one(network)
        self.done: dict[nn.Module, nn.Module] = {}

    def walk(
        self, module: nn.Module, name: str, sharing: WeightSharing, batch_axis: int | None
    ) -> nn.Module:
        """Return the replacement of ``module`` and of all modules beneath it."""
        if module in self.done:
            return self.done[module]
        sharing = self.explicit.get(module, sharing)
        batch_axis = batch_axis_of(module, batch_axis)
        twin = self.twin(module, name, sharing, batch_axis)
        if twin is None:
            twin = module
            for child_name, child in _children(module):
                path = f"{name}.{child_name}" if name else child_name
                module._modules[child_name] = self.walk(child, path, sharing, batch_axis)
            without_fast_path(module)
        else:
            twin.name = name  # type: ignore[assignment]
        if module in self.one_by_one:
            twin = OneByOne(twin, self.members, self._axis(batch_axis))
            twin.name = name
        self.done[module] = twin
        return twin

    def twin(
        self, module: nn.Module, name: str, sharing: WeightSharing, batch_axis: int | None
    ) -> nn.Module | None:
        """Return the twin of one module, or ``None`` if it is not replaced."""
        if sharing == "shared":
            return None
        axis = self._axis(batch_axis)
        if sharing == "independent":
            if module in self.explicit and not self._other_rules_beneath(module):
                return stack(draw_copies(module, self.members), axis)
            known = find(module)[0] is not None and needs_twin(module)
            return stack(draw_copies(module, self.members), axis) if known else None
        factory, own_forward = find(module)
        check_convertible(name, module)
        if factory is None or not needs_twin(module):
            return None
        if is_norm(module) and self.options.norm == "shared" and not list(module.buffers()):
            return None
        reason = refusal(module)
        if reason is not None:
            raise ValueError(
                f"{_quoted(name)} is a {type(module).__name__} that {reason}; or name it in "
                "independent= (a copy for each member) or exclude= (shared by all members)"
            )
        options = replace(self.options, batch_axis=axis)
        if self.deferred is not None:
            self.deferred.layer = name
            options = replace(options, init=self.deferred)
        twin = factory(module, self.members, **options.by_name())
        if own_forward:
            twin.run_as_written()
        check_twin(name, module, twin)
        return twin

    def initialise(self, converted: nn.Module) -> None:
        """Initialise the fast weights that need to know where their layer is."""
        if self.deferred is None:
            return
        self.deferred.start()
        for each in converted.modules():
            options = getattr(each, "options", None)
            if isinstance(options, Options) and options.init is self.deferred:
                each.options = replace(options, init=self.options.init)  # type: ignore[assignment]

    def _axis(self, batch_axis: int | None) -> int:
        return self.options.batch_axis if batch_axis is None else batch_axis

    def _other_rules_beneath(self, module: nn.Module) -> bool:
        beneath = [each for each in module.modules() if each is not module]
        return any(self.explicit.get(each, "independent") != "independent" for each in beneath)


def draw_copies(network: nn.Module, members: int, reset: Reset | None = None) -> list[nn.Module]:
    """Return ``members`` copies of ``network``, each re-initialised at random.

    Args:
        network: any module.
        members: number of copies.
        reset: function that re-initialises one copy in place, or names of the modules to be
            re-initialised; by default all, by each module's own ``reset_parameters``.
    """
    copies = [copied(network) for _ in range(members)]
    if reset is None or callable(reset):
        for each in copies:
            (reset or reset_parameters)(each)
        return copies
    selectors = as_list("reset", reset)
    for each in copies:
        for _, module in select(each, "reset", selectors):
            reset_parameters(module)
    return copies


def reset_parameters(network: nn.Module) -> None:
    """Re-initialise all weights of ``network`` in place by each module's ``reset_parameters``.

    Warns:
        UserWarning: a module with weights has no ``reset_parameters``; its weights are unchanged.
    """
    for name, module in network.named_modules():
        if not (needs_twin(module) or is_quantised(module)):
            continue
        reset = getattr(module, "reset_parameters", getattr(module, "_reset_parameters", None))
        if reset is not None:
            reset()
        elif holds_parameters(module) or is_quantised(module):
            warnings.warn(
                f"{_quoted(name)} ({type(module).__name__}) has no reset_parameters(), "
                "so all members start with the same weights there; give reset=, a function that "
                "re-initialises a network in place",
                stacklevel=2,
            )


def stack(
    networks: Sequence[nn.Module], batch_axis: int = 0, *, stacked: bool | None = None
) -> nn.Module:
    """Return one module that runs all ``networks``, each on its member's rows.

    Args:
        networks: one network for each member, all of the same architecture.
        batch_axis: axis of the rows, 0 (default) or 1.
        stacked: ``True``: stack their weights and run all at once, with stacked twins if all layers
            have one, else with ``torch.func.vmap``. ``False``: run them one after the other. By
            default stacked if all layers have stacked twins and every module is torch's own, since
            a user's ``forward`` may do anything.
    """
    first = networks[0]
    if type(first) in INDEPENDENT:
        twin = INDEPENDENT[type(first)](networks)
        if isinstance(twin, Twin) and twin.any_axis:
            twin.batch_axis = batch_axis
        return twin
    if stacked is None:
        stacked = not batch_axis and _is_torchs_own(first) and _stackable(first)
    if not stacked:
        return Independent(networks, batch_axis)
    if not _stackable(first):
        return Vmapped(networks, batch_axis)
    result, done = copy.deepcopy(first), {}
    for name in [name for name, module in first.named_modules() if needs_twin(module)]:
        layers = [network.get_submodule(name) for network in networks]
        twin = INDEPENDENT[type(layers[0])](layers)
        twin.name = name
        done[result.get_submodule(name)] = twin
        result = put_module(result, name, twin)
    return relink(result, done)


def extract(network: nn.Module, index: int) -> nn.Module:
    """Return member ``index`` of a converted ``network`` as a plain network."""
    done: dict[nn.Module, nn.Module] = {}
    return relink(_members_replaced(copy.deepcopy(network), index, done), done)


def _members_replaced(module: nn.Module, index: int, done: dict[nn.Module, nn.Module]) -> nn.Module:
    """Replace all twins beneath ``module``, in place, by one member's plain layers."""
    if module in done:
        return done[module]
    if isinstance(module, OneByOne):
        done[module] = _members_replaced(module.module, index, done)
    elif is_twin(module):
        done[module] = cast(Any, module).member(index)
    else:
        done[module] = module
        for name, child in _children(module):
            module._modules[name] = _members_replaced(child, index, done)
        _with_fast_path(module)
    return done[module]


def twins(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the names and twins of a converted network, without twins within twins."""

    def beneath(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
        if module in seen:
            return
        seen.add(module)
        if is_twin(module):
            yield name, module
            return
        for child_name, child in _children(module):
            yield from beneath(child, f"{name}.{child_name}" if name else child_name)

    seen: set[nn.Module] = set()
    yield from beneath(network, "")


def takes_any_leading_axes(network: nn.Module) -> bool:
    """Return whether a converted network is a chain of layers that act on the last axis only.

    Such a network also takes ``[members, batch, features]``, which saves a view before and after
    each layer.
    """
    if type(network) is nn.Sequential:
        return all(takes_any_leading_axes(module) for module in network)
    if isinstance(network, Twin) and network.batch_axis:
        return False
    return type(network) in (RankOneLinear, StackedLinear, nn.Linear, nn.Identity, *POINTWISE)


def writes_into_input(chain: nn.Module) -> bool:
    """Return whether such a chain, see :func:`takes_any_leading_axes`, writes into its input."""
    for module in chain.modules():
        if type(module) in POINTWISE and getattr(module, "inplace", False):
            return True
        # Dropout in evaluation returns its input.
        if type(module) not in (nn.Sequential, nn.Identity, nn.Dropout):
            return False
    return False


def same_architecture(networks: Sequence[nn.Module]) -> None:
    """Raise ``ValueError`` if there are no networks or their parameters differ in shape."""
    if not networks:
        raise ValueError("networks must hold at least one network, got none")
    shapes = [
        {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
        for network in networks
    ]
    for index, other in enumerate(shapes):
        if other != shapes[0]:
            raise ValueError(
                f"the networks must have the same architecture, but number {index} has the "
                f"parameters {other} and number 0 has {shapes[0]}"
            )


def put_module(network: nn.Module, name: str, module: nn.Module) -> nn.Module:
    """Replace the submodule ``name`` and return the network; ``""`` is the network itself."""
    if not name:
        return module
    network.set_submodule(name, module)
    return network


def is_twin(module: nn.Module) -> bool:
    """Return whether ``module`` holds weights or statistics of each member's own."""
    return isinstance(module, (Independent, Twin))


def _quoted(name: str) -> str:
    return repr(name or "the network")


def _children(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the names and modules directly beneath ``module``; one used twice occurs twice."""
    return [(name, child) for name, child in module._modules.items() if child is not None]


def batch_axis_of(module: nn.Module, inherited: int | None) -> int | None:
    """Return the axis of the rows within torch's Transformer modules, which define it."""
    if isinstance(module, nn.Transformer):
        return 0 if module.batch_first else 1
    if isinstance(module, SEQUENCE_LAYERS):
        return 0 if module.self_attn.batch_first else 1
    if isinstance(module, (nn.TransformerEncoder, nn.TransformerDecoder)) and len(module.layers):
        return batch_axis_of(module.layers[0], inherited)
    return inherited


def without_fast_path(module: nn.Module) -> None:
    """Disable the fast path of torch's encoders, which reads weights itself and nests rows."""
    if not any(is_twin(each) for each in module.modules()):
        return
    if isinstance(module, nn.TransformerEncoderLayer):
        module.activation_relu_or_gelu = 0
    elif isinstance(module, nn.TransformerEncoder):
        # It stays off in members: nested rows come back with zeros in place of values.
        module.use_nested_tensor = False


def _with_fast_path(module: nn.Module) -> None:
    if isinstance(module, nn.TransformerEncoderLayer):
        activation = module.activation
        relu = activation in (F.relu, torch.relu) or isinstance(activation, nn.ReLU)
        gelu = activation is F.gelu or isinstance(activation, nn.GELU)
        module.activation_relu_or_gelu = 1 if relu else 2 if gelu else 0


def _is_torchs_own(network: nn.Module) -> bool:
    return all(type(module).__module__.startswith("torch.nn.") for module in network.modules())


def _stackable(network: nn.Module) -> bool:
    """Return whether all layers of ``network`` have stacked twins and none is used twice."""
    holders = [module for module in network.modules() if needs_twin(module)]
    if not all(type(module) in STACKED for module in holders):
        return False
    parameters = [parameter for module in holders for parameter in module.parameters()]
    names = [name for name, _ in network.named_modules(remove_duplicate=False)]
    return len(parameters) == len(set(parameters)) and len(names) == len(set(network.modules()))
