"""What members own in a converted network, and how a smaller ensemble's members are put back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from batchensemble.ensembles.conversion.convert import twins
from batchensemble.layers import Independent, Twin


def own_parameters(network: nn.Module) -> set[nn.Parameter]:
    """Return the parameters that belong to members: fast weights, biases, norms, heads.

    Args:
        network: a converted network.

    Example:
        >>> from batchensemble import BatchEnsemble
        >>> network = BatchEnsemble(nn.Linear(2, 3), members=4).network
        >>> sorted(tuple(each.shape) for each in own_parameters(network))
        [(4, 2), (4, 3), (4, 3)]
    """
    found = {each for _, each in _stacked(network) if isinstance(each, nn.Parameter)}
    for _, module in _copies(network):
        found.update(module.parameters())
    return found


def shared_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers that do not belong to members, by name."""
    copies = tuple(f"{name}." if name else "" for name, _ in _copies(network))
    own = {name for name, _ in _stacked(network)}
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    return {
        name: tensor
        for name, tensor in tensors.items()
        if name not in own and not name.startswith(copies or ("\0",))
    }


@torch.no_grad()
def put_members(network: nn.Module, part: nn.Module, indices: Sequence[int]) -> None:
    """Write what the members of a smaller ensemble own into the members that they are.

    Args:
        network: the converted network of the whole ensemble, which is changed in place.
        part: the network of ``select(indices)``.
        indices: the members' numbers in the whole ensemble.
    """
    chosen = list(indices)
    held = dict(_stacked(network))
    for name, tensor in _stacked(part):
        held[name][chosen] = tensor.to(held[name])
    all_copies = dict(_copies(network))
    for name, few in _copies(part):
        for index, copy in zip(chosen, few.copies, strict=True):
            all_copies[name].copies[index].load_state_dict(copy.state_dict())


@torch.no_grad()
def put_shared(network: nn.Module, part: nn.Module) -> None:
    """Write what the members of a smaller ensemble share into the whole ensemble's network."""
    held = shared_tensors(network)
    for name, tensor in shared_tensors(part).items():
        held[name].copy_(_alike(tensor, held[name]))


def changed_shared(network: nn.Module, part: nn.Module) -> str | None:
    """Return the name of a shared parameter that is not the same in both, ``None`` without.

    Args:
        network: the converted network of the whole ensemble.
        part: that of some of its members.
    """
    held = shared_tensors(network)
    for name, tensor in shared_tensors(part).items():
        # Running statistics of the part may differ: they are never written back.
        if isinstance(tensor, nn.Parameter) and not torch.equal(
            _alike(tensor, held[name]), held[name]
        ):
            return name
    return None


def hold_statistics(network: nn.Module) -> None:
    """Keep norm layers that all members share in evaluation mode for good, whatever is called.

    A member that is trained alone would otherwise see its own batches' statistics in training, and
    in evaluation the running ones, which it must not change.

    Args:
        network: a converted network, which is changed in place.
    """
    shared = shared_tensors(network)
    for name, module in network.named_modules():
        if f"{name}.running_mean" in shared or (not name and "running_mean" in shared):
            module.eval()
            module.train = _stay.__get__(module)


def _alike(tensor: Tensor, like: Tensor) -> Tensor:
    """Return a tensor with the members of another one, which are equal in a layer run for all."""
    return tensor if tensor.shape == like.shape else tensor[:1].expand_as(like)


def _stay(module: nn.Module, mode: bool = True) -> nn.Module:
    return nn.Module.train(module, False)


def _stacked(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors ``[members, ...]`` of a network by name, without those of copies."""
    for path, twin in twins(network):
        if (isinstance(twin, Twin) and twin.for_all) or isinstance(twin, Independent):
            continue
        for name, module in twin.named_modules(prefix=path):
            if isinstance(module, Twin):
                tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
                prefix = f"{name}." if name else ""
                for each in module.own:
                    if each in tensors:
                        yield prefix + each, tensors[each]


def _copies(network: nn.Module) -> Iterator[tuple[str, Independent]]:
    return ((name, twin) for name, twin in twins(network) if isinstance(twin, Independent))
