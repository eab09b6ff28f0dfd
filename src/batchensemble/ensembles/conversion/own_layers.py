"""Which layers members own within a budget: the head, and the first ones from the input on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator

from torch import nn

from batchensemble.layers.registry import find, is_norm, needs_twin

AUTO = 0.11  # of one network: 4 members then have a third of a deep ensemble's weights

OWN_FORMS = "a share such as 0.12 or '12%', or 'auto'"

Own = float | str


def own_share(own: Own) -> float:
    """Return a budget as a share of one network's weights.

    Args:
        own: a number such as 0.12, a text such as ``"12%"``, or ``"auto"``.

    Raises:
        TypeError: it is none of these.
        ValueError: it is not above 0 and at most 1.

    Example:
        >>> own_share("12%"), own_share(0.5), own_share("auto")
        (0.12, 0.5, 0.11)
    """
    share: object = own
    if isinstance(own, str):
        if own == "auto":
            return AUTO
        try:
            share = float(own.removesuffix("%")) / (100 if own.endswith("%") else 1)
        except ValueError:
            raise ValueError(f"own must be {OWN_FORMS}, got {own!r}") from None
    if isinstance(share, bool) or not isinstance(share, (int, float)):
        raise TypeError(f"own must be {OWN_FORMS}, got {own!r}")
    if not 0 < share <= 1:
        raise ValueError(f"own must be above 0 and at most 1, or '100%', got {own!r}")
    return float(share)


def own_layers(network: nn.Module, share: float, taken: Collection[nn.Module] = ()) -> list[str]:
    """Return the names of the layers that members own within a budget.

    The last layer with weights comes first, then those from the input on, in the order in which the
    network defines them. What does not fit ends the search, except the last layer.

    Args:
        network: the plain network.
        share: the budget, of the network's weights.
        taken: modules that the user has decided about; they and what is beneath stay as they are,
            as do layers with tied weights.

    Example:
        >>> net = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 100), nn.Linear(100, 2))
        >>> own_layers(net, 0.25)
        ['2', '0']
    """
    layers = layers_in_order(network, taken)
    left = share * sum(each.numel() for each in network.parameters())
    chosen = []
    for place, (name, weights) in enumerate([*layers[-1:], *layers[:-1]]):
        if weights <= left:
            chosen.append(name)
            left -= weights
        elif place:
            break
    return chosen


def layers_in_order(network: nn.Module, taken: Collection[nn.Module] = ()) -> list[tuple[str, int]]:
    """Return the names of layers with weights and how many they have, as the network defines them.

    Norms are left out, since they are each member's own, and so are layers with tied weights.

    Args:
        network: the plain network.
        taken: modules that are left out with all beneath them.
    """
    holders = Counter(each for _, each in network.named_parameters(remove_duplicate=False))
    tied = {each for each, count in holders.items() if count > 1}
    return list(_layers(network, "", {*taken}, tied))


def _layers(
    module: nn.Module, name: str, passed: set[nn.Module], tied: Collection[nn.Parameter]
) -> Iterator[tuple[str, int]]:
    """Yield the name and number of weights of each layer."""
    if module in passed:
        return
    passed.add(module)
    if find(module)[0] is not None and needs_twin(module):
        if name and not is_norm(module) and not any(each in tied for each in module.parameters()):
            yield name, sum(each.numel() for each in module.parameters())
        return
    for child_name, child in module.named_children():
        yield from _layers(child, f"{name}.{child_name}" if name else child_name, passed, tied)
