"""Rows: how the members ride in the batch axis, and how a twin finds them there.

Rows are member-major: row ``m * batch + b`` is example ``b`` seen by member ``m``. The ensemble
says how many rows there are before it runs its network; so a twin can tell the axis of the rows
from others and refuse what is not per example, instead of guessing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from batchensemble.core.pytree import Path, leaves, map_leaves
from batchensemble.layers.base.any_batch import holds
from batchensemble.layers.base.written_inputs import lending, never_writes


class _Running(threading.local):
    """What the ensemble that runs in this thread told its twins.

    Attributes:
        rows: members times examples; ``None`` where no ensemble runs or a twin need not ask.
        member: the member that all rows belong to, while members run one by one.
        calls: the twins that ran and the shapes of their inputs, while a network is looked at.
        branch: the forward pass of a branched network, see
            :mod:`batchensemble.ensembles.conversion.branch_inputs`.
    """

    rows: int | None = None
    member: int | None = None
    calls: list[tuple[Any, tuple[int, ...]]] | None = None
    branch: Any = None


RUNNING = _Running()


@contextmanager
def running(
    rows: int | None = None, member: int | None = None, calls: list[Any] | None = None
) -> Iterator[None]:
    """Tell the twins of this thread what runs."""
    before = RUNNING.rows, RUNNING.member, RUNNING.calls
    RUNNING.rows, RUNNING.member = rows, member
    RUNNING.calls = RUNNING.calls if calls is None else calls
    try:
        yield
    finally:
        RUNNING.rows, RUNNING.member, RUNNING.calls = before


class NotPerExampleError(ValueError):
    """A layer that is each member's own got an input that is not per example."""

    def __init__(self, name: str, shape: Sequence[int], members: int) -> None:
        rows = RUNNING.rows
        expected = f"{rows} rows ({members} members)" if rows else f"rows of {members} members"
        super().__init__(
            f"{name or 'a layer'!r} is each member's own, but its input of shape {list(shape)} has "
            f"no axis of {expected}: it is not per example. Name the layer in exclude=, so that "
            "all members share it, or give it an input with an axis of length 1 for the batch; "
            "where the data decide which rows come here, name the module that decides in "
            "one_by_one="
        )


class AmbiguousAxisError(ValueError):
    """An input has two axes that could be the rows; looking at another batch size tells which."""


def row_axis(twin: Any, x: Tensor, axes: int) -> int:
    """Return which axis of the input of a twin holds the rows, or one of length 1.

    Args:
        twin: says how many members there are, which axis the rows are on by custom, and what was
            learned about it from running on two sizes of batches: the axis, -1 for none, or
            ``None`` where that is not known.
        x: its input.
        axes: how many axes may hold the rows; those after them hold features.

    Raises:
        NotPerExampleError: no axis fits.
        AmbiguousAxisError: two do, and it was not learned which.
    """
    rows, learned = RUNNING.rows, twin.learned_axis
    preferred = min(twin.batch_axis, axes - 1)
    if preferred < 0 or (isinstance(learned, int) and not 0 <= learned < axes):
        raise NotPerExampleError(twin.name, x.shape, twin.members)
    if rows is None:
        if x.shape[preferred] % twin.members == 0:
            return preferred
        raise NotPerExampleError(twin.name, x.shape, twin.members)
    if isinstance(learned, int):
        return learned
    order = [preferred, *(axis for axis in range(min(axes, 2)) if axis != preferred)]
    fitting = [axis for axis in order if holds(x.shape[axis] % rows == 0)] if rows else [preferred]
    if fitting:
        # A vector of numbers may be positions as well as one number an example, and so may the
        # second axis where the first has length 1.
        one_for_all = preferred not in fitting and x.shape[preferred] == 1
        certain = len(fitting) == 1 and x.dim() > 1 and not one_for_all
        if certain or learned is not None or torch.compiler.is_compiling():
            return fitting[0]
        raise AmbiguousAxisError(twin.name)
    if x.shape[preferred] == 1 and x.dim() > 1:
        return preferred
    raise NotPerExampleError(twin.name, x.shape, twin.members)


def enter(x: Tensor, axis: int, members: int) -> tuple[Tensor, int | None]:
    """Return ``x`` with rows of every member, and how often each output is to be repeated.

    An input with one row for all examples, such as the position numbers of a sequence, is seen
    once by every member.
    """
    if x.shape[axis] == 1 and members > 1 and RUNNING.rows is not None:
        return repeat(x, members, axis), RUNNING.rows // members
    return x, None


def leave(y: Tensor, axis: int, repetitions: int | None) -> Tensor:
    """Return the output with as many rows as there are; the other half of :func:`enter`."""
    if repetitions is None:
        return y
    shape = y.shape[: axis + 1], y.shape[axis + 1 :]
    return y.unsqueeze(axis + 1).expand(*shape[0], repetitions, *shape[1]).flatten(axis, axis + 1)


def repeat(x: Tensor, members: int, axis: int) -> Tensor:
    """Return ``x`` once for each member, one after the other along ``axis``."""
    return by_member(x.unsqueeze(axis).expand(*x.shape[:axis], members, *x.shape[axis:]), axis)


def by_member(x: Tensor, axis: int) -> Tensor:
    """Fold ``[..., members, batch, ...]`` into rows."""
    return x.flatten(axis, axis + 1)


def unfold(x: Tensor, members: int, axis: int) -> Tensor:
    """Return rows as ``[..., members, batch, ...]``, a view."""
    return x.unflatten(axis, (members, x.shape[axis] // members))


def each_member(twin: Any, run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call ``run(index, ...)`` with each member's part of the arguments and join what it returns.

    Arguments without rows go to every member; see :func:`_on_loan` for what they write into. Where
    all have one row for all examples, so must the outputs, which are repeated.

    Raises:
        NotPerExampleError: no argument has rows.
    """
    if RUNNING.member is not None:
        return run(RUNNING.member, *args, **kwargs)
    values, members = (args, kwargs), twin.members
    axis, times = find_rows(twin, values, (twin.batch_axis, 0))
    parts = split(values, members, axis)
    if members == 1 or never_writes(twin):
        outputs = [run(index, *own, **named) for index, (own, named) in enumerate(parts)]
    else:
        outputs = _on_loan(twin, run, parts, values, axis)
    return repeated(twin, join(outputs, axis), axis, times)


def _on_loan(
    twin: Any, run: Callable[..., Any], parts: list[Any], values: Any, axis: int
) -> list[Any]:
    """Run each member on its part of the arguments, which it may write into.

    What a plain module writes is seen by whoever reads its input after it, and so is this: rows
    come back to where they were, and what all members see is written into by the last one. For
    autograd, members cannot write into one tensor each at its place: they get copies then.
    """
    outputs = []
    rows: dict[Path, tuple[Tensor, list[Tensor]]] = {}
    with lending(twin, repr(twin.name or "a module")) as lent:
        apart = torch.is_grad_enabled() and not lent.blind

        for index, part in enumerate(parts):
            last = index == len(parts) - 1
            given: dict[int, Tensor] = {}  # a tensor that comes twice is one tensor

            def own(
                path: Path, leaf: Any, whole: Any, last: bool = last, given: Any = given
            ) -> Any:
                if not isinstance(leaf, Tensor):
                    return leaf
                if id(whole) in given:
                    return given[id(whole)]
                if leaf is whole:
                    leaf = leaf if last else lent.one(path, leaf)
                elif apart and lent.copies(path):
                    leaf = lent.one(path, leaf)
                    rows.setdefault(path, (whole, []))[1].append(leaf)
                elif apart:
                    lent.watch(path, leaf)
                if not lent.blind:
                    given[id(whole)] = leaf
                return leaf

            own_args, named = map_leaves(own, part, values)
            outputs.append(run(index, *own_args, **named))
        for path, (whole, copies) in rows.items():
            if lent.is_written(path) and copies[0].dim() == whole.dim():
                whole.copy_(torch.cat(copies, axis))
    return outputs


def find_rows(twin: Any, values: Any, axes: Sequence[int]) -> tuple[int, int | None]:
    """Return which of the axes holds rows in any of nested values, and :func:`enter`'s repetitions.

    Raises:
        NotPerExampleError: none of the values has rows, and one has more than one row for all.
    """
    found = [leaf for _, leaf in leaves(values) if isinstance(leaf, (Tensor, PackedSequence))]
    for axis in axes:
        if any(holds_rows(leaf, axis, twin.members) for leaf in found):
            return axis, None
    sizes = [_size(leaf, axes[0]) for leaf in found]
    if RUNNING.rows is None or any(size not in (None, 1) for size in sizes):
        shape = next((leaf.shape for leaf in found if isinstance(leaf, Tensor)), ())
        raise NotPerExampleError(twin.name, shape, twin.members)
    return axes[0], RUNNING.rows // twin.members


def repeated(twin: Any, outputs: Any, axis: int, times: int | None) -> Any:
    """Return nested outputs with as many rows as there are, as :func:`leave` does with one."""

    def one(_: Any, leaf: Any) -> Any:
        if _size(leaf, axis) is None:
            return leaf
        if _size(leaf, axis) != twin.members:
            raise NotPerExampleError(twin.name, leaf.shape, twin.members)
        return leave(leaf, axis, times)

    return outputs if times is None else map_leaves(one, outputs)


def split(values: Any, members: int, axis: int = 0) -> list[Any]:
    """Return each member's part of nested values; what holds no rows goes to every member."""

    def part(leaf: Any, index: int) -> Any:
        if not holds_rows(leaf, axis, members):
            return leaf
        if isinstance(leaf, PackedSequence):
            return _part_of_packed(leaf, members, index)
        size = leaf.shape[axis] // members
        return leaf.narrow(axis, index * size, size)

    return [map_leaves(lambda _, leaf, i=index: part(leaf, i), values) for index in range(members)]


def join(parts: Sequence[Any], axis: int = 0) -> Any:
    """Return the members' nested outputs as rows.

    Numbers without an axis of rows, such as a loss, are averaged over the members; what is no
    tensor is the first member's.
    """

    def joined(_: Any, *parts: Any) -> Any:
        if isinstance(parts[0], PackedSequence):
            return _join_packed(parts)
        if isinstance(parts[0], Tensor) and parts[0].dim() > axis:
            return torch.cat(parts, axis)
        if isinstance(parts[0], Tensor) and parts[0].is_floating_point():
            return torch.stack(parts).mean(0)
        return parts[0]

    return map_leaves(joined, *parts)


def _size(leaf: Any, axis: int) -> int | None:
    """Return how long the axis of the rows is; a packed sequence has its own."""
    if isinstance(leaf, PackedSequence):
        return int(leaf.batch_sizes[0])
    return leaf.shape[axis] if isinstance(leaf, Tensor) and leaf.dim() > axis else None


def holds_rows(leaf: Any, axis: int, members: int) -> bool:
    """Tell whether a value has rows of every member along an axis."""
    size = _size(leaf, axis)
    return size is not None and holds(size % (RUNNING.rows or members) == 0)


def _part_of_packed(packed: PackedSequence, members: int, index: int) -> PackedSequence:
    """Return one member's sequences; packing has mixed them with the others'."""
    padded, lengths = pad_packed_sequence(packed)
    return pack_padded_sequence(
        padded.chunk(members, 1)[index],
        lengths.chunk(members)[index],
        enforce_sorted=packed.sorted_indices is None,
    )


def _join_packed(parts: Sequence[PackedSequence]) -> PackedSequence:
    longest = max(len(part.batch_sizes) for part in parts)
    padded, lengths = zip(
        *(pad_packed_sequence(part, total_length=longest) for part in parts), strict=True
    )
    is_sorted = all(part.sorted_indices is None for part in parts)
    return pack_padded_sequence(torch.cat(padded, 1), torch.cat(lengths), enforce_sorted=is_sorted)
