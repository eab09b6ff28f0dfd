"""Training and evaluation mode, module by module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from batchensemble.layers import Mergeable, Twin


@contextmanager
def modes_kept(network: nn.Module) -> Iterator[None]:
    """Give each module its own mode back at the end, whatever is done in between."""
    modes = [(module, module.training) for module in _with_shells(network)]
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
    with modes_kept(network):
        network.eval()
        yield


def _with_shells(network: nn.Module) -> Iterator[nn.Module]:
    for module in network.modules():
        yield module
        if isinstance(module, Twin):
            yield from module.shell.modules()
