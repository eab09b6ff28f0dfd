"""Find the axis of the rows by running one member on two batch sizes.

The axis whose length changes with the batch is the batch axis, however long sequences, windows or
classes are. Twins find their rows by size alone as long as only one axis fits; if two do, or a
vector could hold positions, the axes are learned here once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from batchensemble.core.pytree import Path, leaves
from batchensemble.ensembles.conversion.tiling import Arguments, Tiling
from batchensemble.layers import Twin
from batchensemble.layers.base.rows import running
from batchensemble.layers.modes import evaluating

SIZES = (2, 3)
SEVERAL = "several"  # a twin whose calls have the rows on different axes


def learn_axes(
    network: nn.Module, plain: nn.Module, tiling: Tiling, arguments: Arguments
) -> dict[Path, int]:
    """Set the row axis of each twin of ``network``, and return those of the outputs.

    Runs in evaluation mode without gradients. If the network calls different modules for different
    batch sizes, nothing is learned about its twins.

    Args:
        network: a converted network.
        plain: one of its members.
        tiling: how the arguments become rows.
        arguments: the arguments of one call.

    Returns:
        The row axis of each tensor among the outputs, by path; -1 if it has none, and -2 - axis if
        each row has several parts along the axis, such as one for each step.
    """
    _learn_inputs(network, tiling, arguments)
    outputs = [_run(plain, tiling.resized(arguments, size)) for size in SIZES]
    pairs = zip(*(leaves(output) for output in outputs), strict=False)
    axes = {}
    for (path, one), (_, other) in pairs:
        if isinstance(one, Tensor) and isinstance(other, Tensor):
            axis = _changing_axis(tuple(one.shape), tuple(other.shape))
            folded = axis >= 0 and one.shape[axis] != SIZES[0]
            axes[path] = -2 - axis if folded else axis
    return axes


def unchanging(
    network: nn.Module, tiling: Tiling, arguments: Arguments
) -> tuple[set[Twin], set[Twin]]:
    """Return the twins whose inputs have the same shape whatever the size of the batch.

    Args:
        network: a converted network.
        tiling: how the arguments become rows.
        arguments: the arguments of one call.

    Returns:
        Those whose inputs have no axis of length 1 for all examples, and those whose inputs have.
    """
    same: dict[Twin, bool] = {}
    one_row: dict[Twin, bool] = {}
    for twin, one, other in _pairs_of_calls(network, tiling, arguments) or ():
        if isinstance(twin, Twin):
            same[twin] = same.get(twin, True) and one == other
            one_row[twin] = one_row.get(twin, False) or _axis_of_one(one, twin.batch_axis) >= 0
    found = {twin for twin, is_same in same.items() if is_same}
    once = {twin for twin in found if one_row[twin]}
    return found - once, once


def _pairs_of_calls(
    network: nn.Module, tiling: Tiling, arguments: Arguments
) -> list[tuple[Any, tuple[int, ...], tuple[int, ...]]] | None:
    """Return the modules in the order of their calls, with input shapes for two batch sizes.

    ``None`` if the network fails, or calls different modules for different sizes.
    """
    calls: list[list[tuple[Any, tuple[int, ...]]]] = [[], []]
    try:
        for size, record in zip(SIZES, calls, strict=True):
            with running(member=0, calls=record):
                _run(network, tiling.resized(arguments, size))
    except Exception:  # it uses a twin's weights itself, for example
        return None
    if [twin for twin, _ in calls[0]] != [twin for twin, _ in calls[1]]:
        return None
    pairs = zip(*calls, strict=True)
    return [(twin, one, other) for (twin, one), (_, other) in pairs]


def _learn_inputs(network: nn.Module, tiling: Tiling, arguments: Arguments) -> None:
    calls = _pairs_of_calls(network, tiling, arguments)
    if calls is None:
        return _give_up(network)
    found: dict[Any, set[int]] = {}
    for twin, one, other in calls:
        axis = _changing_axis(one, other)
        if axis == -1:
            axis = _axis_of_one(one, twin.batch_axis)
        found.setdefault(twin, set()).add(axis)
    for twin, axes in found.items():
        twin.learned_axis = axes.pop() if len(axes) == 1 else SEVERAL
    return None


def _give_up(network: nn.Module) -> None:
    """Let the twins keep finding their rows by size."""
    for module in network.modules():
        if isinstance(module, Twin):
            module.learned_axis = SEVERAL


def _run(network: nn.Module, arguments: Arguments) -> Any:
    with evaluating(network), torch.no_grad(), torch.random.fork_rng([]):
        return arguments.copied().call(network)


def _axis_of_one(shape: tuple[int, ...], preferred: int) -> int:
    """Return the axis of an input with one row for all examples, or -1."""
    ones = [axis for axis in (preferred, 0, 1) if shape[axis : axis + 1] == (1,)]
    return ones[0] if ones else -1


def _changing_axis(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """Return the axis whose length is proportional to the batch size, or -1."""
    if len(one) != len(other):
        return -1
    for axis, (small, large) in enumerate(zip(one, other, strict=True)):
        if small != large and small * SIZES[1] == large * SIZES[0]:
            return axis
    return -1
