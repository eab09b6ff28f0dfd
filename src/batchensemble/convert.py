"""Any network into its ensemble twin, and each member out again as a plain network.

A *twin* is what a plain layer becomes under one way to share its weights. The registry holds one
function for each pair (class of layer, sharing); conversion walks the module tree, replaces the
layers that hold weights by their twins, and leaves everything else as it is.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from batchensemble.checks import nearest
from batchensemble.layers import Independent, RankOneLinear, StackedLinear

Sharing = Literal["shared", "rank_one", "independent"]
Reset = Callable[[nn.Module], None]

RANK_ONE: dict[type[nn.Module], Callable[..., nn.Module]] = {nn.Linear: RankOneLinear}
STACKED: dict[type[nn.Module], Callable[[Sequence[Any]], nn.Module]] = {nn.Linear: StackedLinear}

POINTWISE = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Dropout)


@dataclass(frozen=True)
class Rules:
    """What the members share, by module name.

    A name covers the module and all beneath it; ``independent`` and ``exclude`` are exceptions to
    ``default``.
    """

    default: Sharing
    independent: Collection[str] = ()
    exclude: Collection[str] = ()
    options: dict[str, Any] = field(default_factory=dict)  # arguments of the rank-one twins

    def check(self, network: nn.Module) -> None:
        """Raise ``ValueError`` for a name that ``network`` has not, or that is in both lists."""
        known = [name for name, _ in network.named_modules()][1:]
        for argument in ("independent", "exclude"):
            names = getattr(self, argument)
            if isinstance(names, str):
                raise TypeError(f"{argument} must be a list of module names, got {names!r}")
            for name in names:
                if name not in known:
                    raise ValueError(
                        f"{argument} names {name!r}, but the network has no such module"
                        f"{nearest(name, known) or '.'} Its modules are {', '.join(known)}"
                    )
        for name in set(self.independent) & set(self.exclude):
            raise ValueError(f"{name!r} is in both independent and exclude; choose one")

    def sharing(self, name: str) -> Sharing:
        """Return what the members share of the module called ``name``; the nearest rule wins."""
        while name:
            if name in self.independent:
                return "independent"
            if name in self.exclude:
                return "shared"
            name = name.rpartition(".")[0]
        return self.default


def convert(network: nn.Module, members: int, rules: Rules) -> nn.Module:
    """Return the ensemble twin of ``network``, which stays as it was.

    Args:
        network: any module; a module used in two places stays one module.
        members: how many members (M).
        rules: what they share. Layers that become independent are drawn anew for each member.

    Raises:
        TypeError: ``network`` is not a module.
        ValueError: a layer with weights has no twin; the sentence names it.
    """
    check_network(network)
    rules.check(network)
    twins: dict[nn.Module, nn.Module] = {}

    def walk(module: nn.Module, name: str) -> nn.Module:
        if module not in twins:
            twins[module] = _twin(module, name, members, rules)
            if twins[module] is module:
                for child_name, child in _children(module):
                    path = f"{name}.{child_name}" if name else child_name
                    setattr(module, child_name, walk(child, path))
        return twins[module]

    return walk(copy.deepcopy(network), "")


def _twin(module: nn.Module, name: str, members: int, rules: Rules) -> nn.Module:
    """Return the twin of one module, or the module itself where there is nothing to replace."""
    sharing = rules.sharing(name)
    if sharing == "shared" or not (_holds_weights(module) or name in rules.independent):
        return module
    if sharing == "independent":
        return stack(draw_copies(module, members))
    if type(module) not in RANK_ONE:
        raise ValueError(
            f"{name or 'the network'!r} is a {type(module).__name__} and holds weights, but only "
            f"{', '.join(kind.__name__ for kind in RANK_ONE)} has a rank-one twin; name it in "
            "independent= (a copy for each member) or exclude= (shared by all members)"
        )
    return RANK_ONE[type(module)](module, members, **rules.options)


def draw_copies(network: nn.Module, members: int, reset: Reset | None = None) -> list[nn.Module]:
    """Return ``members`` copies of ``network``, each with its own random start.

    Args:
        network: any module.
        members: how many copies.
        reset: draws the weights of one copy anew, in place; by default each module's own
            ``reset_parameters``.
    """
    copies = [copy.deepcopy(network) for _ in range(members)]
    for each in copies:
        (reset or reset_parameters)(each)
    return copies


def reset_parameters(network: nn.Module) -> None:
    """Draw all weights of ``network`` anew, in place, by each module's ``reset_parameters``.

    Warns:
        UserWarning: a module holds weights but has no ``reset_parameters``; it is named, and its
            weights stay.
    """
    for name, module in network.named_modules():
        if not _holds_weights(module):
            continue
        reset = getattr(module, "reset_parameters", getattr(module, "_reset_parameters", None))
        if reset is not None:
            reset()
        elif next(module.parameters(recurse=False), None) is not None:
            warnings.warn(
                f"{name or 'the network'!r} ({type(module).__name__}) has no reset_parameters(), "
                "so all members start with the same weights there; give reset=, a function that "
                "draws the weights of a network anew",
                stacklevel=2,
            )


def stack(networks: Sequence[nn.Module]) -> nn.Module:
    """Return one module that runs all ``networks``, each on its member's rows.

    Their weights are stacked, so that a layer is one batched product, where stacked twins cover
    all of them; otherwise the networks run one after the other.
    """
    first = networks[0]
    if not _stackable(first):
        return Independent(networks)
    result = copy.deepcopy(first)
    for name in [name for name, module in first.named_modules() if type(module) in STACKED]:
        layers = [network.get_submodule(name) for network in networks]
        result = replace(result, name, STACKED[type(layers[0])](layers))
    return result


def extract(network: nn.Module, index: int) -> nn.Module:
    """Return member ``index`` of a converted ``network`` as a plain network."""
    result = copy.deepcopy(network)
    members: dict[nn.Module, nn.Module] = {}
    for name, twin in list(_twins(result, "")):
        if twin not in members:
            member: nn.Module = twin.member(index)  # type: ignore[operator]
            members[twin] = member.train(twin.training)
        result = replace(result, name, members[twin])
    return result


def takes_any_leading_axes(network: nn.Module) -> bool:
    """Tell whether a converted network is a plain chain of layers that act on the last axis.

    Such a network takes ``[members, batch, features]`` as well as rows, which saves a view before
    and after each layer.
    """
    if type(network) is nn.Sequential:
        return all(takes_any_leading_axes(module) for module in network)
    return type(network) in (RankOneLinear, StackedLinear, nn.Linear, nn.Identity, *POINTWISE)


def check_network(network: Any) -> None:
    """Raise ``TypeError`` for anything but a module."""
    if not isinstance(network, nn.Module):
        raise TypeError(f"network must be a torch.nn.Module, got {type(network).__name__}")


def replace(network: nn.Module, name: str, module: nn.Module) -> nn.Module:
    """Put ``module`` in the place called ``name`` and return the network; ``""`` is the root."""
    if not name:
        return module
    network.set_submodule(name, module)
    return network


def is_twin(module: nn.Module) -> bool:
    """Tell whether ``module`` holds something of each member's own."""
    return isinstance(module, (Independent, RankOneLinear, StackedLinear))


def _twins(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    """Yield the names and twins of a converted network, not what is beneath a twin."""
    if is_twin(module):
        yield name, module
        return
    for child_name, child in _children(module):
        yield from _twins(child, f"{name}.{child_name}" if name else child_name)


def _children(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the names and modules directly beneath ``module``, one used twice under both names."""
    return [(name, child) for name, child in module._modules.items() if child is not None]


def _holds_weights(module: nn.Module) -> bool:
    """Tell whether a module itself holds weights or mixes the rows of a batch (batch norm)."""
    own = next(module.parameters(recurse=False), None) is not None
    return own or isinstance(module, _NormBase)


def _stackable(network: nn.Module) -> bool:
    """Tell whether stacked twins cover all weights of ``network``, each used by one module."""
    holders = [module for module in network.modules() if _holds_weights(module)]
    if not all(type(module) in STACKED for module in holders):
        return False
    parameters = [parameter for module in holders for parameter in module.parameters()]
    names = [name for name, _ in network.named_modules(remove_duplicate=False)]
    return len(parameters) == len(set(parameters)) and len(names) == len(set(network.modules()))
