"""Gradient checkpointing: activations are computed again in the backward pass, not stored."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from batchensemble.core.pytree import Path, leaves, map_leaves
from batchensemble.ensembles.conversion.rules import Selectors, select
from batchensemble.layers.base.rows import RUNNING, running
from batchensemble.layers.base.written_inputs import WrittenInputError
from batchensemble.layers.modes import preserve_buffers


@contextmanager
def checkpointed(network: nn.Module, which: bool | Selectors) -> Iterator[None]:
    """Store only the inputs of some modules for the backward (Chen et al. 2016, arXiv 1604.06174).

    Args:
        network: a converted network.
        which: names, patterns, classes or functions as in ``include=``; ``True`` is each module
            directly beneath the network that has modules of its own.

    Raises:
        TypeError: a selector is none.
        ValueError: a selector finds nothing, or with ``True`` there is no such module.
    """
    modules = _chosen(network, which)
    own = {module: module.__dict__.get("forward") for module in modules}
    try:
        for module in modules:
            module.forward = _RunAgain(module, module.forward)
        yield
    finally:
        for module, forward in own.items():
            module.__dict__.pop("forward", None)
            if forward is not None:
                module.forward = forward


def _chosen(network: nn.Module, which: bool | Selectors) -> list[nn.Module]:
    """Return the modules to run again, none of them within another."""
    if which is False:
        return []
    if which is not True:
        named = select(network, "gradient_checkpointing", which)
    else:
        named = [(name, each) for name, each in network.named_children() if any(each.children())]
        if not named:
            raise ValueError(
                "gradient_checkpointing=True takes the blocks directly beneath the network, and it "
                "has none; give the names of the modules to run again, or put the layers of the "
                "network into several nn.Sequential"
            )
    within = {each for _, module in named for each in module.modules() if each is not module}
    return list(dict.fromkeys(module for _, module in named if module not in within))


class _RunAgain:
    """A module's ``forward`` that runs once more in the backward, as the ensemble ran it.

    Where it writes into its input, each run has a copy of what that was before, and what the first
    wrote is seen outside, as without checkpointing; see
    :mod:`batchensemble.layers.base.written_inputs`.
    """

    def __init__(self, module: nn.Module, forward: Callable[..., Any]) -> None:
        self.module, self.forward = module, forward
        self.written: set[Path] = set()
        self.calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return self.forward(*args, **kwargs)
        if torch.compiler.is_compiling():  # which keeps what it needs of its own accord
            return self._checkpointed(self.forward, args, kwargs)
        given = {path: leaf for path, leaf in leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        copied = self.written if self.calls else set(given)
        versions = {path: leaf._version for path, leaf in given.items()}
        wrote: dict[Path, Tensor] = {}

        def on_copies(*args: Any, **kwargs: Any) -> Any:
            own = _cloned((args, kwargs), copied)
            before = {path: leaf._version for path, leaf in leaves(own) if path in copied}
            outputs = self.forward(*own[0], **own[1])
            wrote.update(
                (path, leaf)
                for path, leaf in leaves(own)
                if path in copied and leaf._version != before[path]
            )
            return outputs

        outputs = self._checkpointed(on_copies, *_cloned((args, kwargs), copied))
        late = {path for path, leaf in given.items() if leaf._version != versions[path]}
        self.calls += 1
        self.written |= late | set(wrote)
        if late:
            raise WrittenInputError(
                "a module of gradient_checkpointing wrote into its input, which it had not done at "
                "first, so it cannot be run again; let it write into x.clone(), or leave it out"
            )
        for path, leaf in wrote.items():
            given[path].copy_(leaf)
        return outputs

    def _checkpointed(self, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        rows, member, runs = RUNNING.rows, RUNNING.member, itertools.count()

        def run(*args: Any, **kwargs: Any) -> Any:
            again = next(runs) > 0
            with running(rows, member), preserve_buffers(self.module) if again else nullcontext():
                return forward(*args, **kwargs)

        return checkpoint(run, *args, use_reentrant=False, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable[..., Any]:
        """Return the plain ``forward`` of a copy of the module: members come out of a training."""
        return copy.deepcopy(self.forward, memo)


def _cloned(values: Any, paths: Collection[Path]) -> Any:
    return map_leaves(lambda path, leaf: leaf.clone() if path in paths else leaf, values)
