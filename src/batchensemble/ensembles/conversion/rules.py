"""Rules: what the members share, module by module."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from batchensemble.core.arguments import nearest
from batchensemble.ensembles.conversion.own_layers import Own, own_layers, own_share
from batchensemble.layers.base.twin import WeightSharing
from batchensemble.layers.rank_one.options import Options

Selector = str | type[nn.Module] | Callable[[str, nn.Module], bool]
Selectors = Selector | Iterable[Selector]

ARGUMENTS: dict[str, WeightSharing] = {
    "include": "rank_one",
    "independent": "independent",
    "exclude": "shared",
}


@dataclass(frozen=True)
class Rules:
    """What the members share, module by module.

    A selector is a module's name, a pattern of names such as ``"layers.*.norm"``, a class, or a
    function from name and module to a boolean. A name that no module has is the end of names:
    ``"query"`` is every ``"*.query"``. A selection includes all modules beneath; the nearest rule
    wins.

    Attributes:
        default: sharing of modules without a rule.
        include: modules that become rank-one, all others being shared; ``None``: all become so.
        independent: modules that each member has its own copy of, re-initialised.
        exclude: modules that all members share unchanged.
        one_by_one: modules that run once for each member, on that member's rows.
        options: options of the rank-one twins.
    """

    default: WeightSharing
    include: Selectors | None = None
    independent: Selectors = ()
    exclude: Selectors = ()
    one_by_one: Selectors = ()
    options: Options = field(default_factory=Options)

    @property
    def otherwise(self) -> WeightSharing:
        """Sharing of modules without a rule."""
        return self.default if self.include is None else "shared"

    def explicit(self, network: nn.Module) -> dict[nn.Module, WeightSharing]:
        """Return the modules of ``network`` that a rule selects, and their sharing.

        Raises:
            TypeError: a selector has the wrong type.
            ValueError: a selector matches nothing, or two rules select the same module.
        """
        found: dict[nn.Module, tuple[str, str]] = {}
        for argument in ARGUMENTS:
            for name, module in select(network, argument, getattr(self, argument) or ()):
                before, _ = found.setdefault(module, (argument, name))
                if before != argument:
                    both = sorted(
                        (before, argument), key=["independent", "exclude", "include"].index
                    )
                    raise ValueError(f"{name!r} is in both {both[0]} and {both[1]}; choose one")
        return {module: ARGUMENTS[argument] for module, (argument, _) in found.items()}

    def with_own(self, network: nn.Module, own: Own | None, trunk: Iterable[str] = ()) -> Rules:
        """Return rules by which members own further layers, within a budget of weights.

        Args:
            network: the plain network.
            own: the budget, see :func:`~batchensemble.ensembles.conversion.own_layers.own_share`;
                ``None``: no further layers.
            trunk: names of modules that run before the members part, which stay shared.

        Raises:
            TypeError, ValueError: ``own`` is no share, or not even one layer fits.
        """
        if own is None:
            return self
        share = own_share(own)
        taken = {*self.explicit(network), *self.run_one_by_one(network)}
        names = own_layers(network, share, taken | {network.get_submodule(each) for each in trunk})
        if not names:
            raise ValueError(
                f"own={own!r} holds no layer of the network: each has more than {share:.3g} of its "
                "weights; give more, or name layers in independent="
            )
        return replace(self, independent=[*as_list("independent", self.independent), *names])

    def names(self, network: nn.Module) -> dict[str, list[str] | None]:
        """Return the selectors of each argument as names and patterns, which a file can hold."""
        arguments = (*ARGUMENTS, "one_by_one")
        return {each: selected_names(network, each, getattr(self, each)) for each in arguments}

    def run_one_by_one(self, network: nn.Module) -> set[nn.Module]:
        """Return the modules that run once for each member."""
        return {module for _, module in select(network, "one_by_one", self.one_by_one)}


def select(network: nn.Module, argument: str, selectors: Selectors) -> list[tuple[str, nn.Module]]:
    """Return the names and modules that the selectors match, a module under all its names.

    Args:
        network: the network.
        argument: name of the argument that holds the selectors, for errors.
        selectors: one selector or several.

    Raises:
        TypeError: a selector has the wrong type.
        ValueError: a selector matches nothing.
    """
    selectors = as_list(argument, selectors)
    named = list(network.named_modules(remove_duplicate=False))
    result = []
    for selector in selectors:
        matches = _matching(selector, named, argument)
        if not matches and isinstance(selector, str) and selector:
            matches = _ending(selector, named)
        if not matches:
            known = [name for name, _ in named if name]
            raise ValueError(nothing_found(argument, selector, known))
        result += matches
    return result


def as_list(argument: str, selectors: Selectors) -> list[Any]:
    """Return one selector or several as a list.

    Raises:
        TypeError: they have the wrong type.
    """
    if isinstance(selectors, str) or callable(selectors):
        return [selectors]
    if not isinstance(selectors, Iterable):
        raise TypeError(f"{argument} must be a list of module names, got {selectors!r}")
    return list(selectors)


def selected_names(
    network: nn.Module, argument: str, selectors: Selectors | None
) -> list[str] | None:
    """Return selectors as names and patterns, which a file can hold.

    Example:
        >>> selected_names(nn.Sequential(nn.Linear(2, 3), nn.ReLU()), "exclude", nn.Linear)
        ['0']
    """
    if selectors is None:
        return None
    names = []
    named = list(network.named_modules(remove_duplicate=False))
    for each in as_list(argument, selectors):
        found = select(network, argument, [each])
        as_given = isinstance(each, str) and _matching(each, named, argument)
        names += [each] if as_given else [name for name, _ in found]
    return names


def _matching(
    selector: Any, named: list[tuple[str, nn.Module]], argument: str
) -> list[tuple[str, nn.Module]]:
    return [(name, module) for name, module in named if _matches(selector, name, module, argument)]


def _ending(suffix: str, named: list[tuple[str, nn.Module]]) -> list[tuple[str, nn.Module]]:
    return [(name, module) for name, module in named if name.endswith(f".{suffix}")]


def _matches(selector: Any, name: str, module: nn.Module, argument: str) -> bool:
    if isinstance(selector, str):
        return bool(name) and (name == selector or fnmatch.fnmatchcase(name, selector))
    if isinstance(selector, type):
        return isinstance(module, selector)
    if isinstance(selector, nn.Module):
        raise TypeError(
            f"{argument} takes the names of modules, not modules, got a {type(selector).__name__}; "
            "named_modules() tells its name"
        )
    if callable(selector):
        return bool(selector(name, module))
    raise TypeError(
        f"{argument} takes module names, patterns, classes and functions, got {selector!r}"
    )


def nothing_found(argument: str, selector: Any, known: list[str]) -> str:
    """Return the error message for a selector that matches none of the ``known`` modules."""
    listed = ", ".join(known[:40]) + (f" and {len(known) - 40} more" if len(known) > 40 else "")
    if isinstance(selector, str):
        last = dict.fromkeys(name.rpartition(".")[2] for name in known)
        hint = nearest(selector, known) or nearest(selector, last) or "."
        return (
            f"{argument} names {selector!r}, but the network has no such module{hint} Its modules "
            f"are {listed}"
        )
    name = selector.__name__ if hasattr(selector, "__name__") else repr(selector)
    return f"{argument} gives {name}, which selects none of the network's modules: {listed}"
