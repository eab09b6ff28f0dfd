"""Sharded weights: each process holds a piece of every tensor, through torch's ``fully_shard``.

While a module runs, its weights are whole and plain tensors; otherwise they are ``DTensor``.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from batchensemble.core.inputs import Nested
from batchensemble.core.pytree import Path, map_leaves
from batchensemble.ensembles import Ensemble
from batchensemble.ensembles.conversion.tiling import Arguments, Tiling
from batchensemble.layers import Independent, Mergeable, Twin, Vmapped

UNCALLED_CONTAINERS = (nn.ModuleList, nn.ModuleDict)  # nobody calls them
NEEDED = ("set_gradient_divide_factor", "set_force_sum_reduction_for_comms")


def shard_ensemble(model: Ensemble, device: torch.device) -> Ensemble:
    """Return a copy of an ensemble with sharded weights.

    Args:
        model: the ensemble, the same on all processes; it is not changed.
        device: the device of this process's pieces.

    Raises:
        ImportError: torch is too old.
        ValueError: see :func:`check_shardable`.
    """
    check_shardable(model.network)
    result = copy.deepcopy(model)
    # The hooks that bring weights together take inputs of any shape; a user's may want rows.
    result._hooks = [dict(each) for each in result._hooks]
    shard(result.network, device)

    def here(arguments: Arguments) -> Arguments:
        place = next(model.parameters()).device
        values = map_leaves(
            lambda _, leaf: leaf.to(place) if isinstance(leaf, Tensor) else leaf, arguments.values
        )
        return arguments.replaced(values)

    def detect_run_mode(tiling: Tiling, arguments: Arguments) -> None:
        model.detect_run_mode(tiling, here(arguments))
        if model.one_by_one:
            result.run_as("one_by_one")
        for one, other in zip(result.network.modules(), model.network.modules(), strict=True):
            if isinstance(one, Twin) and isinstance(other, Twin) and other.for_all:
                one.share_with_all(other.for_all)

    def learn_axes(tiling: Tiling, arguments: Arguments) -> dict[Path, int]:
        found = model.learn_axes(tiling, here(arguments))
        for one, other in zip(result.network.modules(), model.network.modules(), strict=True):
            if "learned_axis" in vars(other):
                one.learned_axis = other.learned_axis
        result._output_axes = found
        return found

    def learn_at_once(module: Any, args: Any, kwargs: Any) -> None:
        """Learn from inputs that all have: later one process would run again, and others not."""
        handle.remove()
        kwargs = dict(kwargs)
        per_member = kwargs.pop("per_member", False)
        if len(args) == 1 and isinstance(args[0], Nested):
            args, kwargs = args[0].arguments(kwargs)
        with contextlib.suppress(Exception):  # a network for one size of batch tells nothing
            arguments = Arguments.of(model.plain_network(), args, kwargs)
            tiling = Tiling.of(
                arguments, model.members, model.batch_axis, per_member, model.untiled
            )
            detect_run_mode(tiling, arguments)
            learn_axes(tiling, arguments)

    # No member can be taken out of pieces.
    result.learn_axes = learn_axes  # type: ignore[method-assign]
    result.detection.done = {False: True, True: True}
    handle = result.register_forward_pre_hook(learn_at_once, with_kwargs=True)
    return result


def shard(network: nn.Module, device: torch.device) -> None:
    """Shard the weights of a converted network over the processes, in place.

    The weights of each block are gathered while it runs, and again in its backward pass; all other
    weights while the network runs. Gradients are summed over the processes.

    Args:
        network: the network, the same on all processes.
        device: the device of this process's pieces.

    Raises:
        ImportError: torch is too old.
    """
    from torch.distributed.device_mesh import init_device_mesh

    fully_shard = _fully_shard()
    from torch.distributed.tensor import Shard

    count = torch.distributed.get_world_size()
    mesh = init_device_mesh(device.type, (count,))
    # Copies of a network are called one by one, and nobody calls what holds them.
    for called in network.copies if isinstance(network, Independent) else [network]:
        for module in [*blocks(called), called]:
            module.register_forward_hook(_without_views)
            piece = fully_shard(
                module,
                mesh=mesh,
                reshard_after_forward=True,
                shard_placement_fn=lambda each: Shard(axis_to_cut(each.shape, count)),
            )
            piece.set_gradient_divide_factor(1.0)
            piece.set_force_sum_reduction_for_comms(True)  # gloo takes no means
    for module in network.modules():
        if isinstance(module, Mergeable):
            module.keeps = False


def check_shardable(network: nn.Module) -> None:
    """Raise ``ValueError`` if the weights of a network cannot be sharded.

    A weight may have no axis to cut, they may be of several types, or all members run at once under
    ``vmap``.
    """
    if isinstance(network, Vmapped):
        raise ValueError(
            "strategy='fsdp' brings together the weights of one block at a time, and members that "
            "run at once under vmap are one block; make the ensemble with stacked=False"
        )
    for name, parameter in network.named_parameters():
        if not parameter.dim():
            raise ValueError(
                f"strategy='fsdp' cuts weights along an axis, and {name!r} has none; make "
                "it of shape [1], or leave strategy= out"
            )
    kinds = {parameter.dtype for parameter in network.parameters()}
    if len(kinds) > 1:
        raise ValueError(
            "strategy='fsdp' takes weights of one type, got "
            f"{', '.join(sorted(map(str, kinds)))}; bring them to one, or leave strategy= out"
        )


def blocks(network: nn.Module) -> list[nn.Module]:
    """Return the blocks directly beneath a network, as ``gradient_checkpointing=True`` takes them.

    Of a list of modules they are its items. A block that shares a weight or a module with what is
    beside it is none: its weights have to be there when the other one runs.

    Example:
        >>> block = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        >>> len(blocks(nn.Sequential(nn.Linear(2, 2), block, nn.Linear(2, 2))))
        1
    """
    return [each for each in _candidates(network) if _stands_alone(network, each)]


def axis_to_cut(shape: Sequence[int], count: int) -> int:
    """Return along which axis a weight is cut into ``count`` pieces.

    The first one, unless only another gives all the same: two processes halve the weights of three
    members rather than hold two and one.

    Example:
        >>> axis_to_cut((4, 6), 2), axis_to_cut((3, 2, 6), 2), axis_to_cut((3, 5), 2)
        (0, 2, 0)
    """
    even = [axis for axis, size in enumerate(shape) if size % count == 0]
    return 0 if not even or even[0] == 0 else max(even, key=lambda axis: shape[axis])


def _without_views(module: nn.Module, args: Any, output: Any) -> Any:
    """Return outputs of their own memory: an ``x += y`` on a view would lose torch's hook on it."""

    def own(_: Path, leaf: Any) -> Any:
        is_view = isinstance(leaf, Tensor) and leaf.requires_grad and leaf._is_view()
        return leaf.clone() if is_view else leaf

    return map_leaves(own, output)


def _fully_shard() -> Callable[..., Any]:
    try:
        from torch.distributed.fsdp import FSDPModule, fully_shard

        for name in NEEDED:
            getattr(FSDPModule, name)
    except (ImportError, AttributeError) as error:
        raise ImportError(
            f"strategy='fsdp' needs a torch whose FSDPModule has {' and '.join(NEEDED)}, and this "
            f"is {torch.__version__}; pip install --upgrade torch, or leave strategy= out"
        ) from error
    return fully_shard


def _candidates(network: nn.Module) -> list[nn.Module]:
    found: list[nn.Module] = []
    for child in network.children():
        if isinstance(child, UNCALLED_CONTAINERS):
            found += _candidates(child)
        elif any(child.children()):
            found.append(child)
    return list(dict.fromkeys(found))


def _stands_alone(network: nn.Module, block: nn.Module) -> bool:
    outside: set[nn.Module] = set()
    left = [network]
    while left:
        module = left.pop()
        if module is not block and module not in outside:
            outside.add(module)
            left += module.children()
    others = {each for module in outside for each in module.parameters(recurse=False)}
    return outside.isdisjoint(block.modules()) and others.isdisjoint(block.parameters())
