"""Networks that a folder describes by numbers alone, so that no code of it is run to build them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from batchensemble.ensembles.networks import MOST_LAYERS, multilayer_perceptron, widths_of
from batchensemble.ensembles.table_network import TableNetwork

MOST_WIDTH = 2**40
MOST_TABLE_COLUMNS = 2**20  # of a kind; building takes time for each category
MOST_ONE_HOT = 2**20
MOST_CHANNELS = 2**16

Record = Mapping[str, Any]


def record_of(network: nn.Module) -> dict[str, Any] | None:
    """Return how to build a network by :func:`network_on_meta`; ``None`` if it is another.

    Example:
        >>> record_of(nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3)))
        {'mlp': [2, 8, 3]}
    """
    if type(network) is TableNetwork:
        values = network.to_dict()
        with torch.device("meta"):
            made = TableNetwork.from_dict(values)
        # A user may have put other modules into it.
        return {"table": values} if _modules(made) == _modules(network) else None
    widths = widths_of(network)
    return None if widths is None else {"mlp": widths}


def _modules(network: nn.Module) -> list[Any]:
    kinds = [(name, type(module), module.extra_repr()) for name, module in network.named_modules()]
    return [*kinds, {name: tuple(each.shape) for name, each in network.state_dict().items()}]


def is_record(value: Record) -> bool:
    """Tell whether a record holds all that its network needs, within bounds."""
    widths, table = value.get("mlp"), value.get("table")
    return _are_widths(widths, 2) if table is None else _is_table(table)


def outputs_of(record: Record) -> int:
    """Return the number of outputs of the network of a valid record."""
    outputs: int = record["table"]["outputs"] if "table" in record else record["mlp"][-1]
    return outputs


def network_on_meta(record: Record, tensors: int) -> nn.Module:
    """Return the network of a valid record without memory for its weights.

    Args:
        record: a record that :func:`is_record` accepts.
        tensors: number of tensors in the file, tied ones counted twice.

    Raises:
        ValueError: the file has too few tensors for so many layers, or the layers are too large
            for any memory.
    """
    table = record.get("table")
    layers = len(record["mlp"]) - 1 if table is None else len(table["hidden"]) + 1
    if 2 * layers > tensors:
        raise ValueError(f"its network has {layers:,} layers, and its weights are {tensors:,}")
    try:
        with torch.device("meta"):
            if table is not None:
                return TableNetwork.from_dict(table)
            widths = record["mlp"]
            return multilayer_perceptron(widths[0], widths[1:-1], widths[-1])
    except (RuntimeError, OverflowError) as error:
        raise ValueError(f"its network is too large: {str(error).splitlines()[0]}") from error


def _are_widths(value: Any, least: int) -> bool:
    return (
        isinstance(value, list)
        and least <= len(value) <= MOST_LAYERS + 1
        and all(_is_whole(each, 1, MOST_WIDTH) for each in value)
    )


def _is_table(value: Any) -> bool:
    if not isinstance(value, dict) or set(value) != {*_BOUNDS, "levels", "hidden", "dropout"}:
        return False
    levels, dropout = value["levels"], value["dropout"]
    return (
        all(_is_whole(value[name], *bounds) for name, bounds in _BOUNDS.items())
        and isinstance(levels, list)
        and len(levels) <= MOST_TABLE_COLUMNS
        and all(_is_whole(each, 1, MOST_WIDTH) for each in levels)
        and bool(value["numbers"] or value["flags"] or levels)
        and _are_widths(value["hidden"], 1)
        and len(value["hidden"]) < MOST_LAYERS
        and isinstance(dropout, (int, float))
        and not isinstance(dropout, bool)
        and 0 <= dropout < 1
    )


def _is_whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


_BOUNDS = {
    "numbers": (0, MOST_TABLE_COLUMNS),
    "flags": (0, MOST_TABLE_COLUMNS),
    "outputs": (1, MOST_WIDTH),
    "bins": (1, MOST_CHANNELS),
    "d_embedding": (1, MOST_WIDTH),
    "most_one_hot": (0, MOST_ONE_HOT),
    "d_category": (1, MOST_WIDTH),
}
