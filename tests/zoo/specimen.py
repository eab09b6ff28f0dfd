"""What a network of the zoo is, and how the zoo draws the examples that it runs on."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Specimen:
    """A small network, its inputs, and what its conversion must be told.

    ``make`` draws random weights from torch's global generator, in the default dtype, and returns
    the network in train mode. ``inputs`` takes the batch size and returns positional and keyword
    arguments; example k is the same in a batch of any size, so that batches can be compared.
    """

    name: str
    make: Callable[[], nn.Module]
    inputs: Callable[[int], Arguments]
    about: str  # one clause for a table
    options: dict[str, Any] = field(default_factory=dict)  # arguments which the conversion needs
    because: str = ""  # why it needs them


def normal(batch: int, *shape: int, argument: int = 0) -> Tensor:
    """Return ``[batch, *shape]`` standard normal floats; other arguments get other numbers."""
    return torch.stack([torch.randn(shape, generator=g) for g in _generators(batch, argument)])


def integers(batch: int, low: int, high: int, *shape: int, argument: int = 0) -> Tensor:
    """Return ``[batch, *shape]`` integers from ``low`` up to and without ``high``."""
    generators = _generators(batch, argument)
    return torch.stack([torch.randint(low, high, shape, generator=g) for g in generators])


def lengths(batch: int, longest: int) -> Tensor:
    """Return how long each of ``batch`` sequences is: unsorted, between 2 and ``longest``."""
    return torch.tensor([2 + (3 * k + 1) % (longest - 1) for k in range(batch)])


def padding(batch: int, longest: int) -> Tensor:
    """Return ``[batch, longest]``, true where a sequence of those ``lengths`` has ended."""
    return torch.arange(longest) >= lengths(batch, longest)[:, None]


def floats(*shape: int) -> Callable[[int], Arguments]:
    """Return the inputs of a network that takes one tensor ``[batch, *shape]`` of floats."""
    return lambda batch: ((normal(batch, *shape),), {})


def tokens(words: int, *shape: int) -> Callable[[int], Arguments]:
    """Return the inputs of a network that takes ``[batch, *shape]`` numbers below ``words``."""
    return lambda batch: ((integers(batch, 0, words, *shape),), {})


def settled(
    make: Callable[[], nn.Module], inputs: Callable[[int], Arguments]
) -> Callable[[], nn.Module]:
    """Return a ``make`` whose batch norms have already seen examples.

    As they start, with mean 0 and variance 1, a deep network in eval mode lets so little through
    that its answers are those of its biases, whatever one puts in.
    """

    def make_and_settle() -> nn.Module:
        network = make()
        norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 1.0
        positional, keywords = inputs(8)
        with torch.no_grad():
            network(*positional, **keywords)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        return network

    return make_and_settle


def tensors(output: Any) -> Iterator[Tensor]:
    """Yield all tensors of an output, however it nests them; anything else raises TypeError."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from tensors(value)
    elif isinstance(output, tuple | list):
        for value in output:
            yield from tensors(value)
    elif is_dataclass(output):
        for each in fields(output):
            yield from tensors(getattr(output, each.name))
    else:
        raise TypeError(f"the zoo's networks return tensors, got {type(output).__name__}")


def _generators(batch: int, argument: int) -> Iterator[torch.Generator]:
    """Yield one generator for each example, so that an example knows nothing of the others."""
    for k in range(batch):
        yield torch.Generator().manual_seed(10_000 * argument + k)
