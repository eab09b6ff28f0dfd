"""Parameter groups for an optimiser, by the role of each parameter."""

from __future__ import annotations

from typing import Any

from torch import nn

from batchensemble.layers import Independent, Twin, Vmapped
from batchensemble.layers.registry import is_norm

ROLES = ("shared", "fast", "bias", "norm")
PARTS = (*ROLES, "heads")


def parameter_groups(
    network: nn.Module, *, lr: float, weight_decay: float, fast_lr_multiplier: float
) -> list[dict[str, Any]]:
    """Return each parameter of a converted network once, see :meth:`Ensemble.parameter_groups`.

    Args:
        network: a converted network.
        lr: learning rate, above 0.
        weight_decay: weight decay of the group ``"shared"``.
        fast_lr_multiplier: factor on the learning rate of the group ``"fast"``.
    """
    groups: dict[str, dict[nn.Parameter, None]] = {role: {} for role in ROLES}
    seen: set[nn.Parameter] = set()
    for parameter, role in _roles(network):
        if parameter not in seen:
            seen.add(parameter)
            groups[role][parameter] = None
    return [
        {
            "name": role,
            "params": list(parameters),
            "lr": lr * (fast_lr_multiplier if role == "fast" else 1.0),
            "weight_decay": weight_decay if role == "shared" else 0.0,
        }
        for role, parameters in groups.items()
        if parameters
    ]


def parts_of(network: nn.Module) -> dict[nn.Parameter, str]:
    """Return what each parameter of a converted network is part of, one of :data:`PARTS`.

    Args:
        network: a converted network.
    """
    heads: set[nn.Parameter] = set()
    for module in network.modules():
        if is_head(module):
            heads.update(module.parameters())
    parts: dict[nn.Parameter, str] = {}
    for parameter, role in _roles(network):
        parts.setdefault(parameter, "heads" if parameter in heads else role)
    return parts


def is_head(module: nn.Module) -> bool:
    """Return whether each member has its own copy of a module; norms of their own stay norms."""
    if isinstance(module, (Independent, Vmapped)):
        return True
    if not isinstance(module, Twin) or module.sharing != "independent":
        return False
    return {*module.roles().values()} != {"norm"}


def _roles(module: nn.Module) -> list[tuple[nn.Parameter, str]]:
    """Return the parameters of a module and the role of each."""
    if isinstance(module, Vmapped):
        names = {parameter: name for name, parameter in module.shell.named_parameters()}
        return [
            (module.stacked.get_parameter(names[parameter]), role)
            for parameter, role in _roles(module.shell)
        ]
    if isinstance(module, Twin):
        roles = module.roles()
        return [(parameter, roles[name]) for name, parameter in module.named_parameters()]
    result = [
        (parameter, _role(module, name, parameter))
        for name, parameter in module.named_parameters(recurse=False)
    ]
    for child in module.children():
        result += _roles(child)
    return result


def _role(module: nn.Module, name: str, parameter: nn.Parameter) -> str:
    if is_norm(module):
        return "norm"
    if name.startswith("bias") or "_bias" in name:
        return "bias"
    # A module may hold vectors itself, such as a layer scale or a class token.
    is_vector = sum(size > 1 for size in parameter.shape) <= 1
    return "norm" if is_vector and not name.endswith("weight") else "shared"
