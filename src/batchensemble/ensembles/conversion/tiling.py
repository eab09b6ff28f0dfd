"""Tiling: repeat a batch for all members before the network, and split its outputs by member.

Every tensor among the arguments whose batch axis is as long as the batch is repeated for each
member, however it is nested; others are passed unchanged. Every output with an axis of rows becomes
``[batch, members, ...]``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from batchensemble.core.pytree import Path, leaves, map_leaves
from batchensemble.layers.base.any_batch import holds
from batchensemble.layers.base.rows import AmbiguousAxisError, repeat
from batchensemble.layers.base.written_inputs import copies_of


@dataclass(frozen=True)
class Arguments:
    """The arguments of one call of a network.

    Attributes:
        values: the arguments by parameter name.
        positional: number of them that are passed by position.
    """

    values: dict[str, Any]
    positional: int

    @classmethod
    def of(cls, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """Name the arguments of a call.

        Raises:
            TypeError: an argument is given twice.
        """
        names = _parameter_names(network, len(args))
        for name in set(names) & set(kwargs):
            raise TypeError(f"the argument {name!r} is given twice, by position and by name")
        return cls({**dict(zip(names, args, strict=True)), **kwargs}, len(args))

    def call(self, network: Callable[..., Any]) -> Any:
        """Call the network with these arguments."""
        args, kwargs = self.split()
        return network(*args, **kwargs)

    def split(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the positional and the keyword arguments."""
        items = list(self.values.items())
        args = tuple(value for _, value in items[: self.positional])
        return args, dict(items[self.positional :])

    def copied(self) -> Arguments:
        """Return the arguments with copies of all tensors, which a network may write into."""
        return self.replaced(copies_of(self.values))

    def replaced(self, values: dict[str, Any]) -> Arguments:
        """Return arguments with the same names and other values."""
        return Arguments(values, self.positional)


@dataclass(frozen=True)
class Tiling:
    """How the batch of one call becomes rows.

    Attributes:
        members: number of members (M).
        batch: number of examples.
        axis: axis of the batch, 0 or 1. If it is 1, tensors with the batch first, such as lengths
            and padding masks, are per example, too.
        per_member: whether each member has its own examples, ``[batch, members, ...]``; tensors
            without such an axis of members are the same for all.
        untiled: names of arguments, or keys within them, that are not per example.
    """

    members: int
    batch: int
    axis: int = 0
    per_member: bool = False
    untiled: Collection[str] = ()

    @classmethod
    def of(
        cls,
        arguments: Arguments,
        members: int,
        axis: int,
        per_member: bool,
        untiled: Collection[str],
    ) -> Tiling:
        """Infer the size of the batch from the first tensor with a batch axis.

        Raises:
            ValueError: there is none, or with ``per_member`` it has no axis of members.
        """
        for path, leaf in leaves(arguments.values):
            if untiled and set(path) & set(untiled):
                continue
            if isinstance(leaf, PackedSequence):
                return cls(members, int(leaf.batch_sizes[0]), axis, False, untiled)
            if not isinstance(leaf, Tensor) or leaf.dim() <= axis:
                continue
            if per_member and (leaf.dim() < axis + 2 or leaf.shape[axis + 1] != members):
                raise ValueError(
                    f"per_member=True takes inputs of shape [batch, members={members}, ...], "
                    f"got {list(leaf.shape)}"
                )
            return cls(members, leaf.shape[axis], axis, per_member, untiled)
        raise ValueError(
            "the inputs must hold a tensor with an axis of the batch, got "
            f"{', '.join(arguments.values) or 'none'}"
        )

    @property
    def rows(self) -> int:
        """Number of rows, members times examples."""
        return self.members * self.batch

    def axis_of(self, path: Path, leaf: Any) -> int | None:
        """Return the batch axis of a leaf of the arguments, or ``None``."""
        if self.untiled and set(path) & set(self.untiled):
            return None
        if isinstance(leaf, PackedSequence):
            return self.axis
        if not isinstance(leaf, Tensor):
            return None
        fitting = (
            axis
            for axis in (self.axis, 0)
            if leaf.dim() > axis and holds(leaf.shape[axis] == self.batch)
        )
        return next(fitting, None)

    def tile(self, arguments: Arguments) -> Arguments:
        """Return arguments with the rows of all members."""

        def rows(path: Path, leaf: Any) -> Any:
            axis = self.axis_of(path, leaf)
            if axis is None:
                return leaf
            if isinstance(leaf, PackedSequence):
                return choose_packed(leaf, range(self.batch), self.members)
            if self._has_members(leaf, axis):
                return leaf.transpose(axis, axis + 1).flatten(axis, axis + 1)
            # For one example this would be a view, which no network could write into.
            repeated = repeat(leaf, self.members, axis)
            return repeated.contiguous() if self.members > 1 else repeated

        return arguments.replaced(map_leaves(rows, arguments.values))

    def member_axes(self, arguments: Arguments) -> dict[str, Any]:
        """Return the axis of the members in each leaf of the arguments, ``None`` without one."""

        def member_axis(path: Path, leaf: Any) -> int | None:
            axis = self.axis_of(path, leaf)
            return axis + 1 if axis is not None and self._has_members(leaf, axis) else None

        return map_leaves(member_axis, arguments.values)

    def member_arguments(self, arguments: Arguments, index: int) -> Arguments:
        """Return the arguments that one member sees."""

        def own(path: Path, leaf: Any) -> Any:
            axis = self.axis_of(path, leaf)
            if axis is None or not self._has_members(leaf, axis):
                return leaf
            return leaf.select(axis + 1, index)

        return arguments.replaced(map_leaves(own, arguments.values))

    def resized(self, arguments: Arguments, examples: int) -> Arguments:
        """Return the arguments with another number of examples, repeating the first ones."""
        chosen = [index % max(self.batch, 1) for index in range(examples)]

        def part(path: Path, leaf: Any) -> Any:
            axis = self.axis_of(path, leaf)
            if axis is None:
                return leaf
            if isinstance(leaf, PackedSequence):
                return choose_packed(leaf, chosen)
            if not self.batch:
                return leaf.new_zeros(*leaf.shape[:axis], examples, *leaf.shape[axis + 1 :])
            return leaf.index_select(axis, torch.tensor(chosen, device=leaf.device))

        return arguments.replaced(map_leaves(part, arguments.values))

    def resized_to(self, examples: int) -> Tiling:
        """Return the tiling of arguments from :meth:`resized`."""
        return replace(self, batch=examples)

    def take_apart(self, outputs: Any, axes: Mapping[Path, int]) -> Any:
        """Return outputs with an axis of rows as ``[batch, members, ...]``.

        Args:
            outputs: the outputs of the network, nested in any way.
            axes: known row axes of outputs, by path; -1 for outputs without rows.

        Raises:
            ValueError: no output has an axis of rows.
        """
        found = []

        def apart(path: Path, leaf: Any) -> Any:
            axis = find_axis(leaf, self.rows, self.axis, axes.get(path))
            if axis is None:
                return leaf
            found.append(axis)
            leaf = leaf.unflatten(axis, (self.members, self.batch))
            return leaf.movedim((axis + 1, axis), (0, 1)) if axis else leaf.transpose(0, 1)

        result = map_leaves(apart, outputs)
        self._check(bool(found), outputs, self.rows)
        return result

    def gather(self, outputs: Sequence[Any], axes: Mapping[Path, int]) -> Any:
        """Return the outputs of all members as ``[batch, members, ...]``.

        Floating-point outputs that are not per example, such as a loss, are averaged over the
        members. Outputs with several parts for each example are concatenated by member.

        Raises:
            AmbiguousAxisError: the kind of an output is unknown.
        """
        found = []

        def together(path: Path, *members: Any) -> Any:
            known = axes.get(path)
            axis = find_axis(members[0], self.batch, self.axis, known)
            if known is not None and known <= -2:
                return torch.cat(members, -2 - known)
            if axis is None and known is None and self._may_be_folded(members[0]):
                raise AmbiguousAxisError("output")
            if axis is not None:
                found.append(axis)
                return torch.stack([leaf.movedim(axis, 0) for leaf in members]).transpose(0, 1)
            if isinstance(members[0], Tensor) and members[0].is_floating_point():
                return torch.stack(members).mean(0)
            return members[0]

        result = map_leaves(together, *outputs)
        self._check(bool(found), outputs[0], self.batch)
        return result

    def default_axes(self, outputs: Any) -> dict[Path, int]:
        """Return the row axes of a member's outputs by size alone."""
        axes = {}
        for path, leaf in leaves(outputs):
            shape = leaf.shape if isinstance(leaf, Tensor) else ()
            fitting = [axis for axis, size in enumerate(shape) if size == self.batch]
            axes[path] = self.axis if self.axis in fitting else next(iter(fitting), -1)
        return axes

    def describe(self, arguments: Arguments) -> str:
        """Describe which inputs are per example and which are not, for errors."""
        tiled: list[str] = []
        untouched: list[str] = []
        for path, leaf in leaves(arguments.values):
            if isinstance(leaf, Tensor):
                text = f"{'.'.join(map(str, path))} {list(leaf.shape)}"
                (untouched if self.axis_of(path, leaf) is None else tiled).append(text)
        text = f"per example: {', '.join(tiled) or 'nothing'}"
        if untouched:
            axes = "neither axis 1 nor axis 0 is" if self.axis else "axis 0 is not"
            text += f"; not per example, since {axes} {self.batch}: {', '.join(untouched)}"
        return text

    def _has_members(self, leaf: Any, axis: int) -> bool:
        if not self.per_member or not isinstance(leaf, Tensor):
            return False
        return leaf.shape[axis + 1 : axis + 2] == (self.members,)

    def _may_be_folded(self, leaf: Any) -> bool:
        """Return whether an output may have several parts for each example along an axis."""
        if not isinstance(leaf, Tensor) or torch.compiler.is_compiling():
            return False
        return any(size and size % max(self.batch, 1) == 0 for size in leaf.shape)

    def _check(self, found: bool, outputs: Any, rows: int) -> None:
        if not found:
            shapes = [
                list(leaf.shape) if isinstance(leaf, Tensor) else type(leaf).__name__
                for _, leaf in leaves(outputs)
            ]
            raise ValueError(
                f"the network must return a tensor with an axis of the batch; for {rows} rows it "
                f"returned {', '.join(map(str, shapes)) or 'nothing'}"
            )


def find_axis(leaf: Any, size: int, preferred: int, known: int | None = None) -> int | None:
    """Return the row axis of an output, or ``None``.

    Args:
        leaf: one output.
        size: number of rows.
        preferred: axis to take first, where compilation does not allow an error.
        known: the axis, if it is known; negative if the output has no rows.

    Raises:
        AmbiguousAxisError: several axes have this size and none is known.
        ValueError: the output is a packed sequence.
    """
    if isinstance(leaf, PackedSequence):
        raise ValueError(
            "the network returns a PackedSequence, which has no axis of the batch; let it return "
            "pad_packed_sequence of it"
        )
    if not isinstance(leaf, Tensor) or (known is not None and known < 0):
        return None
    fitting = [axis for axis in range(leaf.dim()) if holds(leaf.shape[axis] == size)]
    if known in fitting:
        return known
    if len(fitting) > 1 and not torch.compiler.is_compiling():
        raise AmbiguousAxisError("output")
    return next((axis for axis in (preferred, *fitting) if axis in fitting), None)


def choose_packed(
    packed: PackedSequence, chosen: Sequence[int], members: int = 1
) -> PackedSequence:
    """Return the chosen sequences, all of them once for each member."""
    padded, lengths = pad_packed_sequence(packed)
    indices = torch.tensor([*chosen] * members, device=lengths.device)
    return pack_padded_sequence(
        padded.index_select(1, indices.to(padded.device)), lengths[indices], enforce_sorted=False
    )


def _parameter_names(network: nn.Module, count: int) -> list[str]:
    """Return names for the first ``count`` arguments of a network."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(network.forward).parameters.values()
    names = [parameter.name for parameter in parameters if parameter.kind in kinds][:count]
    return names + [f"argument {index}" for index in range(len(names), count)]
