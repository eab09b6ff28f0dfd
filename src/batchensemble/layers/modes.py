"""Context managers for training and evaluation mode, and for running statistics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from batchensemble.layers import Mergeable, Twin

OWN_MODULES = ("torch.nn.", "batchensemble.")  # whose modes are known: of torch and of this library
MIXES_IN_TRAINING = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@contextmanager
def preserve_modes(network: nn.Module) -> Iterator[None]:
    """Restore the mode of each module at the end."""
    modes = [(module, module.training) for module in with_shells(network)]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
            if isinstance(module, Mergeable) and mode:
                module.unfreeze()


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Set a network to evaluation mode, and restore the mode of each module at the end."""
    with preserve_modes(network):
        network.eval()
        yield


@contextmanager
def training_without_noise(network: nn.Module) -> Iterator[None]:
    """Keep a network in training mode, but set random layers such as dropout to evaluation.

    Of the layers of torch and of this library only batch norm then computes something else than in
    evaluation.
    """
    with preserve_modes(network):
        for module in with_shells(network):
            own = type(module).__module__.startswith(OWN_MODULES)
            if isinstance(module, Twin) or (own and not isinstance(module, MIXES_IN_TRAINING)):
                module.training = False
        yield


@contextmanager
def preserve_buffers(network: nn.Module) -> Iterator[None]:
    """Restore running statistics and all other buffers at the end."""
    before: list[tuple[Tensor, Tensor]] = [(each, each.clone()) for each in network.buffers()]
    try:
        yield
    finally:
        for buffer, value in before:
            buffer.data.copy_(value)  # without incrementing the version: no gradient needs it


def with_shells(network: nn.Module) -> Iterator[nn.Module]:
    """Yield all modules, and the shells in which twins hold the settings of plain layers."""
    for module in network.modules():
        yield module
        if isinstance(module, Twin):
            yield from module.shell.modules()
