"""The inputs of a batch: one tensor, or several, passed to the network by name or by position."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from batchensemble.core.pytree import leaves, map_leaves


class Nested:
    """Several inputs that are indexed, moved and passed to the network together.

    Tensors whose first axis has the length of the first tensor's are per example; other values are
    passed along unchanged.

    Args:
        values: by name of the network's arguments, or in their order.
        examples: number of examples; by default that of the first tensor.

    Raises:
        ValueError: no tensor has a batch axis.

    Example:
        >>> batch = Nested({"tokens": torch.zeros(4, 7), "lengths": torch.ones(4)})
        >>> len(batch), batch[:3].values["tokens"].shape
        (4, torch.Size([3, 7]))
    """

    def __init__(
        self, values: Mapping[str, Any] | Sequence[Any], examples: int | None = None
    ) -> None:
        self.values = values
        if examples is not None:
            self.examples = examples
            return
        first = next((each for each in self.tensors() if each.dim()), None)
        if first is None:
            raise ValueError(
                f"inputs must hold a tensor [examples, ...], got {type(values).__name__} without"
            )
        self.examples = len(first)

    def __len__(self) -> int:
        return self.examples

    def __getitem__(self, index: Any) -> Nested:
        return self.map(lambda tensor: tensor[index])

    @property
    def nbytes(self) -> int:
        """Number of bytes of all tensors."""
        return sum(each.nbytes for each in self.tensors())

    def tensors(self) -> list[Tensor]:
        """Return all tensors, per example or not."""
        return [leaf for _, leaf in leaves(self.values) if isinstance(leaf, Tensor)]

    def map(self, function: Callable[[Tensor], Tensor]) -> Nested:
        """Apply a function to the tensors that are per example."""

        def changed(path: Any, leaf: Any) -> Any:
            return function(leaf) if self.is_per_example(leaf) else leaf

        return Nested(map_leaves(changed, self.values))

    def is_per_example(self, leaf: Any) -> bool:
        """Return whether a value is a tensor ``[examples, ...]``."""
        return isinstance(leaf, Tensor) and leaf.shape[:1] == (self.examples,)

    def to(self, device: torch.device) -> Nested:
        """Return the inputs on a device."""

        def moved(path: Any, leaf: Any) -> Any:
            return leaf.to(device) if isinstance(leaf, Tensor) else leaf

        return Nested(map_leaves(moved, self.values))

    def split(self, size: int) -> list[Nested]:
        """Return parts of ``size`` examples; the last may be smaller."""
        return [self[start : start + size] for start in range(0, self.examples, size)]

    def is_floating_point(self) -> bool:
        """Return whether any input is floating-point."""
        return any(each.is_floating_point() for each in self.tensors())

    def isfinite(self) -> Tensor:
        """Return whether each tensor is finite, ``[tensors]``."""
        return torch.stack([each.isfinite().all() for each in self.tensors()])

    def arguments(self, kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the positional and keyword arguments for calling the network.

        Args:
            kwargs: further keyword arguments.
        """
        if isinstance(self.values, Mapping):
            return (), {**self.values, **kwargs}
        return tuple(self.values), dict(kwargs)


Inputs = Tensor | Nested
Scaling = tuple[tuple[float, ...], tuple[float, ...]]  # means and standard deviations of columns


def as_inputs(values: Any) -> Inputs:
    """Return a tensor as it is, and a mapping, tuple or list as :class:`Nested`.

    Raises:
        TypeError: it is none of these.
    """
    if isinstance(values, (Tensor, Nested)):
        return values
    if isinstance(values, (Mapping, tuple, list)):
        return Nested(values)
    raise TypeError(
        f"inputs of a batch must be a tensor, or a dict or tuple of tensors, got "
        f"{type(values).__name__}"
    )


def describe_example(inputs: Inputs, *, per_member: bool = False) -> str:
    """Return the shapes and types of one example, for messages.

    Example:
        >>> describe_example(torch.zeros(4, 2))
        'of shape [2] and type torch.float32'
        >>> describe_example(Nested({"tokens": torch.zeros(4, 7)}))
        'with tokens of shape [7] and type torch.float32'
    """
    skip = 1 + per_member
    if isinstance(inputs, Tensor):
        return f"of shape {list(inputs.shape[skip:])} and type {inputs.dtype}"
    parts = [
        f"{'.'.join(map(str, path))} {describe_example(leaf, per_member=per_member)}"
        for path, leaf in leaves(inputs.values)
        if inputs.is_per_example(leaf)
    ]
    return f"with {', '.join(parts)}"


def is_labelled(data: Any, weighted: bool) -> bool:
    """Return whether data are a pair ``(inputs, targets)``, or a triple with weights if allowed."""
    return isinstance(data, (tuple, list)) and len(data) in ((2, 3) if weighted else (2,))


def take_apart(batch: Any, target: str | None, *, weighted: bool = False) -> tuple[Any, ...]:
    """Return the inputs, the targets and, if any, the weights of a batch of a data loader.

    Args:
        batch: a pair ``(inputs, targets)`` or a dictionary, in which text is ignored.
        target: the key of the targets in a dictionary.
        weighted: whether a pair may have a third part, the weights ``[examples]``.

    Raises:
        TypeError: the batch is neither.
        ValueError: the dictionary has no such key.

    Example:
        >>> batch = {"tokens": torch.zeros(4, 7), "labels": torch.ones(4)}
        >>> inputs, targets = take_apart(batch, "labels")
        >>> list(inputs.values), targets.shape
        (['tokens'], torch.Size([4]))
    """
    if isinstance(batch, Mapping):
        if target not in batch:
            got = "target is missing" if target is None else f"there is no {target!r}"
            raise ValueError(
                f"{got}: name the key of the targets with target=, which is one of "
                f"{', '.join(map(repr, batch))}"
            )
        return without(batch, target), batch[target]
    if not is_labelled(batch, weighted):
        raise TypeError(
            f"a data loader must yield pairs (inputs, targets), got {type(batch).__name__}"
        )
    return (as_inputs(batch[0]), *batch[1:])


def without(batch: Mapping[str, Any], target: str | None) -> Nested:
    """Return the inputs in a dictionary: all values but the targets and text."""
    return Nested(
        {
            key: value
            for key, value in batch.items()
            if key != target and not all(isinstance(leaf, str) for _, leaf in leaves(value))
        }
    )
