"""Which layers of a pretrained network get fast weights: by kind, name, or end of a name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from batchensemble.ensembles.conversion.rules import Selectors, as_list, select
from batchensemble.layers import RankOneAttention, RankOneConv1D, RankOneLinear
from batchensemble.layers.registry import EMBEDDINGS, find, is_norm, needs_twin

KINDS = ("attention", "linear", "all-linear")
LINEAR = (RankOneLinear, RankOneConv1D, RankOneAttention)
MOST_NAMED = 3  # names that an error lists for each class of layer


def target_names(
    network: nn.Module, targets: Selectors, exclude: Selectors, heads: Selectors
) -> list[str]:
    """Return the names of the layers that get fast weights.

    Args:
        network: a plain network.
        targets: see :func:`batchensemble.adapt`.
        exclude: modules that get none, with all beneath them.
        heads: modules of which each member has its own copy, with all beneath them.

    Raises:
        TypeError: a selector has the wrong type.
        ValueError: a selector matches nothing, or no layer is left; the message names those there
            are.
    """
    left = {each for _, head in select(network, "heads", heads) for each in head.modules()}
    left |= {each for _, part in select(network, "exclude", exclude) for each in part.modules()}
    if isinstance(targets, str) and targets in KINDS:
        left |= _output_embeddings(network)
        in_attention = set(_attention(network)) if targets == "attention" else None
        chosen = [
            module
            for _, module in layers_of(network)
            if has_twin(module, LINEAR) and (in_attention is None or module in in_attention)
        ]
    else:
        chosen = []
        for _, module in select(network, "targets", targets):
            beneath = [each for _, each in layers_of(module)]
            # An embedding is no target unless it is named itself.
            chosen += [each for each in beneath if each is module or type(each) not in EMBEDDINGS]
    wanted = set(chosen) - left
    names = [name for name, module in layers_of(network) if module in wanted]
    if not names:
        what = targets if isinstance(targets, str) else as_list("targets", targets)
        raise ValueError(
            f"targets={what!r} leaves no layer beside heads= and exclude=; the network has "
            f"{_listed(network)}; name some of them, or give a class, such as "
            "targets=torch.nn.Conv2d"
        )
    return names


def norm_names(
    network: nn.Module, exclude: Selectors, heads: Selectors, *, all_: bool
) -> list[str]:
    """Return the names of the norm layers that are not within ``exclude`` and ``heads``.

    Args:
        network: a plain network.
        exclude: modules left as they are.
        heads: modules of which each member has its own copy.
        all_: all norms, or only those with running statistics, which mix the rows of members.
    """
    left = {each for _, head in select(network, "heads", heads) for each in head.modules()}
    left |= {each for _, part in select(network, "exclude", exclude) for each in part.modules()}
    return [
        name
        for name, module in network.named_modules()
        if is_norm(module)
        and module not in left
        and needs_twin(module)
        and (all_ or any(True for _ in module.buffers()))
    ]


def layers_of(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the names and layers that may have fast weights, without norms and layers in layers."""
    within: set[nn.Module] = set()
    for name, module in network.named_modules():
        if module in within or is_norm(module):
            continue
        if find(module)[0] is not None and needs_twin(module):
            within.update(module.modules())
            yield name, module


def has_twin(module: nn.Module, twins: tuple[type, ...]) -> bool:
    """Return whether the rank-one twin of a layer is one of these classes."""
    twin: Any = find(module)[0]
    return isinstance(twin, type) and issubclass(twin, twins)


def _attention(network: nn.Module) -> Iterator[nn.Module]:
    """Yield the layers in modules whose name or class speaks of attention, the network aside."""
    named = dict(network.named_modules())
    for name, module in layers_of(network):
        if isinstance(module, nn.MultiheadAttention):
            yield module
            continue
        path = name.split(".")
        around = [named[".".join(path[:depth])] for depth in range(1, len(path))]
        if any(map(_speaks_of_attention, [*path, *(type(each).__name__ for each in around)])):
            yield module


def _speaks_of_attention(name: str) -> bool:
    return any(word in name.lower() for word in ("attention", "attn"))


def _output_embeddings(network: Any) -> set[nn.Module]:
    """Return the output layers of a language model, which belong to its embeddings."""
    tied = {module.weight for module in network.modules() if type(module) in EMBEDDINGS}
    found = {
        each
        for each in network.modules()
        if type(each) not in EMBEDDINGS and getattr(each, "weight", None) in tied
    }
    try:
        output = network.get_output_embeddings()
    except (AttributeError, NotImplementedError):
        output = None
    return found if output is None else {*found, output}


def _listed(network: nn.Module) -> str:
    """Return the layers of a network as text, by class."""
    kinds: dict[str, list[str]] = {}
    for name, module in layers_of(network):
        kinds.setdefault(type(module).__name__, []).append(name or "the network itself")
    if not kinds:
        return "no layer that may have fast weights"
    return ", ".join(
        f"{len(names)} {kind} ({', '.join(names[:MOST_NAMED])}"
        f"{', ...' if len(names) > MOST_NAMED else ''})"
        for kind, names in kinds.items()
    )
