"""Training and evaluation mode, module by module, and the statistics that training moves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from batchensemble.layers import Mergeable, Twin

MIXES_IN_TRAINING = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@contextmanager
def preserve_modes(network: nn.Module) -> Iterator[None]:
    """Give each module its own mode back at the end, whatever is done in between."""
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
    """Set a network to evaluation for a while; then each module has its own mode again."""
    with preserve_modes(network):
        network.eval()
        yield


@contextmanager
def training_without_noise(network: nn.Module) -> Iterator[None]:
    """Leave a network in training for a while, but for what drops or draws at random.

    Of torch's own layers only batch norm then does in training what it does not in evaluation.
    """
    with preserve_modes(network):
        for module in with_shells(network):
            own = type(module).__module__.startswith("torch.nn.")
            if isinstance(module, Twin) or (own and not isinstance(module, MIXES_IN_TRAINING)):
                module.training = False
        yield


@contextmanager
def preserve_buffers(network: nn.Module) -> Iterator[None]:
    """Let running statistics, and whatever else stands in buffers, stay as they are."""
    before: list[tuple[Tensor, Tensor]] = [(each, each.clone()) for each in network.buffers()]
    try:
        yield
    finally:
        for buffer, value in before:
            buffer.data.copy_(value)  # without a trace: nobody needs it for a gradient


def with_shells(network: nn.Module) -> Iterator[nn.Module]:
    """Yield all modules, and those that the twins keep their settings in."""
    for module in network.modules():
        yield module
        if isinstance(module, Twin):
            yield from module.shell.modules()
