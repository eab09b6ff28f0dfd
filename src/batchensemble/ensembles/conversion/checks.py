"""What cannot be converted is refused by name, before anything is changed."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from batchensemble.layers import Twin
from batchensemble.layers.registry import is_lazy, weight_hook

WRAPPERS = ("DataParallel", "DistributedDataParallel", "FullyShardedDataParallel", "FSDPModule")
QUANTISED = ("torch.ao.nn.quantized", "torch.nn.quantized", "torch.ao.nn.intrinsic.quantized")


def check_network(network: Any) -> None:
    """Check that the weights of ``network`` can be copied.

    Raises:
        TypeError: ``network`` is not a module.
        ValueError: a module has lazy weights, weights computed by a hook, or weights that a copy
            would lose; the message names it.
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
                f"{name or 'the network'!r} is a {type(module).__name__} whose weight is computed "
                f"by a hook, which torch cannot copy; use torch.nn.utils.parametrizations.{hook} "
                f"instead, or merge it with torch.nn.utils.remove_{hook}"
            )
        _check_copyable(name, module)


def _check_copyable(name: str, module: nn.Module) -> None:
    """Raise ``ValueError`` for a module whose weights are referenced from elsewhere."""
    place = f"{name or 'the network'!r} is a {type(module).__name__}"
    if isinstance(module, torch.jit.ScriptModule):
        raise ValueError(
            f"{place}, a module of TorchScript, whose weights a copy would lose; convert the plain "
            "module, and script or trace the members, model.member(i)"
        )
    kinds = {kind.__name__ for kind in type(module).__mro__ if kind.__module__[:6] == "torch."}
    if kinds & {*WRAPPERS}:
        raise ValueError(
            f"{place}, which keeps track of the weights before conversion; convert the plain "
            "network and wrap the ensemble, or call fit under torchrun, which distributes training"
        )


def check_convertible(name: str, module: nn.Module) -> None:
    """Raise ``ValueError`` for a module whose layers cannot be replaced.

    Args:
        name: name of the module in its network, ``""`` for the network itself.
        module: the module to be converted, with all beneath it.
    """
    place = f"{name or 'the network'!r} is a {type(module).__name__}"
    if type(module).__name__ == "OptimizedModule":
        raise ValueError(
            f"{place}, compiled by torch.compile before conversion; convert the original module, "
            "._orig_mod, and compile the ensemble instead: torch.compile(model), or "
            "fit(compile=True)"
        )
    if is_quantised(module):
        raise ValueError(
            f"{place} whose weights are packed as whole numbers and cannot be trained; convert "
            "before quantising, or name it in exclude=, so that all members share it"
        )


def check_twin(name: str, layer: nn.Module, twin: nn.Module) -> None:
    """Raise ``ValueError`` if a user's twin lacks a parameter of its layer.

    Args:
        name: name of the layer in its network.
        layer: the plain layer.
        twin: its twin.
    """
    if type(twin).__module__.startswith("batchensemble.") or not isinstance(twin, Twin):
        return
    with torch.no_grad():
        kept = twin.tensors(0)
    lost = [each for each, _ in layer.named_parameters() if each not in kept]
    if lost:
        raise ValueError(
            f"{type(twin).__name__}, the twin of {name or 'the network'!r}, has lost its "
            f"{', '.join(lost)}, which no member could train; hold it in hold_tensors and "
            "return it from tensors"
        )


def is_quantised(module: nn.Module) -> bool:
    """Return whether a module holds quantised weights, packed as whole numbers.

    Example:
        >>> is_quantised(nn.Linear(2, 3))
        False
    """
    kind = type(module)
    packed = hasattr(module, "_packed_params") and not kind.__name__.endswith("PackedParams")
    return packed and kind.__module__.startswith(QUANTISED)
