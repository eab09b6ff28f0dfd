"""State dictionaries: of how many members they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from batchensemble.convert import twins
from batchensemble.layers import Independent


def check_members(network: nn.Module, members: int, state: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` where the weights of an ensemble are those of another number of members.

    Args:
        network: the converted network.
        members: how many it has.
        state: the weights of the ensemble, by name.
    """
    for name, twin in twins(network):
        given = _members_of(twin, f"network.{name}." if name else "network.", state)
        if given is not None and given != members:
            raise ValueError(
                f"the weights are those of {given} members, and this ensemble has {members}; make "
                f"it with members={given}, then select(...) from it"
            )


def _members_of(twin: nn.Module, prefix: str, state: Mapping[str, Any]) -> int | None:
    """Return for how many members a state dictionary has weights for ``twin``, if it tells."""
    if isinstance(twin, Independent):
        start = prefix + "copies."
        numbers = {key[len(start) :].partition(".")[0] for key in state if key.startswith(start)}
        return len(numbers) or None
    for each_name, each in twin.named_modules(prefix=prefix.rstrip(".")):
        for name in getattr(each, "own", ()):
            value = state.get(f"{each_name}.{name}")
            if isinstance(value, Tensor) and value.dim():
                return len(value)
    return None
