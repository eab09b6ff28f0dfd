"""Inputs to ask an ensemble about: those of the data, and mixtures of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor

from batchensemble.core.inputs import Inputs, Nested
from batchensemble.core.pytree import map_leaves

Mixing = Literal["auto", "average", "exchange", "none"]
FARTHEST = 0.5  # how far means lie beyond an example, as a share of the distance of the two
MIXINGS = ("auto", "average", "exchange", "none")


def concatenated(parts: Iterable[Inputs], most_bytes: int) -> Inputs:
    """Return batches of inputs as one.

    Args:
        parts: the batches, one after the other.
        most_bytes: number of bytes that they may take together.

    Raises:
        ValueError: there are none, or they take more.
    """
    held: list[Inputs] = []
    size = 0
    for each in parts:
        held.append(each)
        size += each.nbytes
        if size > most_bytes:
            raise ValueError(
                f"the inputs take more than memory_limit={most_bytes:,} bytes, and distil holds "
                "them in memory; give fewer examples, or a higher memory_limit"
            )
    if not held:
        raise ValueError("data must hold at least one example, got none")
    first, *_ = held
    if isinstance(first, Tensor):
        return torch.cat([each for each in held if isinstance(each, Tensor)])

    def together(path: Any, *leaves: Any) -> Any:
        return torch.cat(leaves) if first.is_per_example(leaves[0]) else leaves[0]

    return Nested(map_leaves(together, *(each.values for each in held if isinstance(each, Nested))))


def mixtures(
    inputs: Inputs,
    count: int,
    mixing: Mixing | Callable[[Inputs], Inputs],
    generator: torch.Generator,
) -> Inputs:
    """Return synthetic inputs, each made of two examples.

    Args:
        inputs: the examples.
        count: number of synthetic inputs.
        mixing: ``"average"``: numbers lie on the line through both examples, between them as in
            mixup (Zhang et al. 2018, arXiv 1710.09412) or up to half their distance beyond, where
            an ensemble is less certain; whole numbers are exchanged. ``"exchange"``: each entry is
            that of one of both. Or a function from inputs of random examples to other inputs of the
            same shapes.
        generator: of the random draws, on the CPU.

    Example:
        >>> x, generator = torch.eye(3), torch.Generator().manual_seed(0)
        >>> mixtures(x, 5, "average", generator).sum(1).round(decimals=4)
        tensor([1., 1., 1., 1., 1.])
    """
    one, other = (
        inputs[torch.randint(len(inputs), (count,), generator=generator)] for _ in range(2)
    )
    if callable(mixing):
        return mixing(one)
    shares = torch.rand(count, generator=generator)
    masks: dict[tuple[int, ...], Tensor] = {}

    def mixed(path: Any, left: Any, right: Any) -> Any:
        if not isinstance(left, Tensor) or len(left) != count:
            return left
        share = shares.view(-1, *[1] * (left.dim() - 1))
        if mixing == "average" and left.is_floating_point():
            weight = ((1 + 2 * FARTHEST) * share - FARTHEST).to(left)
            return weight * left + (1 - weight) * right
        # Inputs of one shape, such as words and their mask, exchange the same entries.
        shape = tuple(left.shape)
        if shape not in masks:
            masks[shape] = torch.rand(shape, generator=generator) < share
        return torch.where(masks[shape].to(left.device), left, right)

    if isinstance(one, Nested) and isinstance(other, Nested):
        return Nested(map_leaves(mixed, one.values, other.values), count)
    found: Tensor = mixed((), one, other)
    return found
