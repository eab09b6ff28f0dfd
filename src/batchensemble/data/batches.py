"""How training and prediction read data: batches of ``(inputs, targets)``.

Arrays are indexed in memory, a block of batches at a time, instead of collating rows one by one;
a ``Dataset`` or ``DataLoader`` of the user's own is read as it is.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from batchensemble.core.inputs import Inputs, is_labelled, take_apart
from batchensemble.core.random_state import DataStream
from batchensemble.data.arrays import BLOCK_BYTES, as_tensor, check_inputs
from batchensemble.data.tables.class_labels import ClassNames
from batchensemble.losses.targets import (
    Targets,
    Weighted,
    check_weights,
    class_numbers,
    exact,
    on_device,
    without_objects,
)

Pair = tuple[Inputs, Targets]
Read = Callable[[Tensor, torch.dtype], Tensor]  # as EnsembleLoss.read
Draw = Callable[[Tensor], Tensor]
Arrange = Callable[..., Tensor]  # arrange(targets, per_member=...), as Ensemble.target_rows

PREDICTION_BATCH = 4096
SAMPLE = 4096  # numbers that go into a checksum of the data

NO_OWN_TARGETS = (
    "y must have the shape [examples, ...] for an ensemble that gives each member examples of its "
    "own, got one target a member; give batches='shared', or use BatchEnsemble for those"
)


@runtime_checkable
class Batches(Protocol):
    """What a training goes through, epoch by epoch.

    Attributes:
        class_names: what the class numbers stand for, where the data say it.
        feature_names, target_names: of columns, where they have some.
        draw: see :class:`ArrayBatches`.
        arrange: puts targets into the order of the ensemble's rows.
    """

    class_names: ClassNames
    feature_names: tuple[str, ...] | None
    target_names: tuple[str, ...] | None
    draw: Draw | None
    arrange: Arrange | None

    @property
    def has_length(self) -> bool:
        """Whether it is known how many batches there are."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Pair]: ...

    def starting_at(self, skip: int) -> Iterator[Pair]:
        """Yield the batches of an epoch without its first ``skip``, drawn as if they had been."""

    def describe(self) -> str:
        """Return what tells these data from others."""

    @property
    def fingerprint(self) -> str | None:
        """What tells the examples from others, in any batches; ``None`` where nothing does."""


class ArrayBatches:
    """Batches of two tensors that lie in memory.

    Args:
        inputs: ``[examples, ...]``.
        targets: ``[examples, ...]``.
        batch_size: examples a batch; the last batch may be smaller.
        shuffle: a new order each time the batches are gone through, from torch's global generator.
        draw: maps the examples of each batch, ``[steps, batch]``, to those that each member sees,
            ``[steps, members, rows]``; the inputs are then ``[rows, members, ...]``.
        arrange: puts the targets of all batches of a block into the order of the ensemble's rows,
            where there is one an example; targets of more axes stay as they are.
        stream: the random state that orders are drawn from; by default torch's global one.
        weights: how much each example counts, ``[examples]``; batches then hold
            :class:`Weighted`.
    """

    def __init__(
        self,
        inputs: Tensor,
        targets: Tensor,
        batch_size: int,
        *,
        shuffle: bool = False,
        draw: Draw | None = None,
        arrange: Arrange | None = None,
        stream: DataStream | None = None,
        weights: Tensor | None = None,
    ) -> None:
        self.inputs, self.targets, self.weights = inputs, targets, weights
        self.batch_size = batch_size
        self.shuffle, self.draw, self.arrange = shuffle, draw, arrange
        self.stream = stream or DataStream(None)
        self.class_names = ClassNames()
        self.feature_names: tuple[str, ...] | None = None
        self.target_names: tuple[str, ...] | None = None

    has_length = True

    def __len__(self) -> int:
        return -(-len(self.inputs) // self.batch_size)

    def __iter__(self) -> Iterator[Pair]:
        return self.starting_at(0)

    def starting_at(self, skip: int) -> Iterator[Pair]:
        """Yield the batches of an epoch without its first ``skip``, drawn as if they had been."""
        examples = len(self.inputs)
        with self.stream.turn():
            order = torch.randperm(examples) if self.shuffle else torch.arange(examples)
        whole = examples // self.batch_size * self.batch_size
        steps = order[:whole].view(-1, self.batch_size)
        bytes_a_batch = max(1, self.inputs[:1].nbytes * self.batch_size)
        blocks = list(steps.split(max(1, BLOCK_BYTES // bytes_a_batch)))
        if whole < examples:
            blocks.append(order[whole:].unsqueeze(0))
        for block in blocks:
            done = min(skip, len(block))
            skip -= done
            drawn = self._drawn(block)
            if done < len(block):
                yield from self._gather(drawn[done:])

    def describe(self) -> str:
        """Return what tells these data from others: sizes, and a checksum of some numbers."""
        weights = () if self.weights is None else (self.weights,)
        sums = [self._checksum(values) for values in (self.inputs, self.targets, *weights)]
        return (
            f"{len(self.inputs)} examples of shape {list(self.inputs.shape[1:])}, in batches of "
            f"{self.batch_size} (checksums {', '.join(sums)})"
        )

    @property
    def fingerprint(self) -> str | None:
        """What tells the examples from others, in any batches and with any weights."""
        sums = f"{self._checksum(self.inputs)}, {self._checksum(self.targets)}"
        return f"{len(self.inputs)} examples of shape {list(self.inputs.shape[1:])} ({sums})"

    def _checksum(self, values: Tensor) -> str:
        """Return a checksum of numbers in the network's type, as checkpoints know them."""
        exact = self.inputs.dtype == torch.float64 or values.dtype != torch.float64
        return checksum(values, torch.float64 if exact else torch.float32)

    def _drawn(self, steps: Tensor) -> Tensor:
        if self.draw is None:
            return steps
        with self.stream.turn():
            return self.draw(steps)

    def _gather(self, steps: Tensor) -> Iterator[Pair]:
        index = steps.flatten().to(self.inputs.device)
        found = []
        for values in (self.inputs, self.targets, self.weights):
            if values is not None:
                drawn = values.index_select(0, index).view(*steps.shape, *values.shape[1:])
                found.append(drawn if self.draw is None else drawn.transpose(1, 2))
        inputs, *rest = found
        if self.arrange is not None and self.targets.dim() == 1:
            rest = [self.arrange(each, per_member=self.draw is not None) for each in rest]
        if len(rest) == 1:
            return zip(inputs.unbind(0), rest[0].unbind(0), strict=True)
        weighted = map(Weighted, *(each.unbind(0) for each in rest))
        return zip(inputs.unbind(0), weighted, strict=True)


class LoaderBatches:
    """Batches of a user's ``DataLoader``, moved to a device, drawn and arranged as above.

    Args:
        loader: yields pairs ``(inputs, targets)`` or dictionaries; inputs may be a dictionary or a
            tuple, which the network then takes by name or by position.
        device: where the batches are wanted.
        target: the key of the targets in a dictionary.
        draw: see :class:`ArrayBatches`.
        arrange: see :class:`ArrayBatches`.
        stream: see :class:`ArrayBatches`.
        weighted: whether a third part may say how much each example counts.
        any_targets: whether targets may have more axes than one, whatever the members see.
    """

    def __init__(
        self,
        loader: DataLoader[Any],
        device: torch.device,
        *,
        target: str | None = None,
        draw: Draw | None = None,
        arrange: Arrange | None = None,
        stream: DataStream | None = None,
        weighted: bool = False,
        any_targets: bool = False,
    ) -> None:
        self.loader, self.device, self.target = loader, device, target
        self.class_names = ClassNames()
        self.feature_names: tuple[str, ...] | None = None
        self.target_names: tuple[str, ...] | None = None
        self.draw, self.arrange = draw, arrange
        self.weighted, self.any_targets = weighted, any_targets
        self.stream = stream or DataStream(None)

    @property
    def has_length(self) -> bool:
        """Whether the loader knows how many batches it has."""
        try:
            len(self.loader)
        except TypeError:
            return False
        return True

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Pair]:
        return self.starting_at(0)

    def starting_at(self, skip: int, caught_up: Callable[[], None] | None = None) -> Iterator[Pair]:
        """Yield the batches of an epoch without its first ``skip``, which are loaded all the same.

        The loader's order then goes on as it would have; ``caught_up`` is called before.
        """
        with self.stream.turn():
            loading = iter(self.loader)
        for number in itertools.count():
            if number == skip and caught_up is not None:
                caught_up()
            with self.stream.turn():
                if (batch := next(loading, None)) is None:
                    return
                pair = self._pair(batch)
            if number >= skip:
                yield pair

    def describe(self) -> str:
        """Return what tells these data from others, as far as a loader tells."""
        count = f"{len(self)} batches" if self.has_length else "batches"
        return f"{type(self.loader.dataset).__name__} in {count}"

    @property
    def fingerprint(self) -> str | None:
        """Nothing: a loader does not say what it will yield."""
        return None

    def _pair(self, batch: Any) -> Pair:
        inputs, *rest = take_apart(batch, self.target, weighted=self.weighted)
        inputs, rest = inputs.to(self.device), [each.to(self.device) for each in rest]
        one_each = rest[0].dim() == 1
        if self.draw is not None:
            if not one_each and not self.any_targets:
                raise ValueError(NO_OWN_TARGETS)
            rows = self.draw(torch.arange(len(inputs))).t().to(self.device)
            inputs, rest = inputs[rows], [each[rows] for each in rest]
        if self.arrange is not None and one_each:
            rest = [self.arrange(each, per_member=self.draw is not None) for each in rest]
        return inputs, rest[0] if len(rest) == 1 else Weighted(*rest)


def checksum(values: Tensor, dtype: torch.dtype = torch.float64) -> str:
    """Return a checksum of some of the numbers, evenly spread and rounded to a type."""
    flat = values.flatten()
    some = flat[:: max(1, len(flat) // SAMPLE)].cpu().to(dtype).double()
    return hashlib.sha256(some.numpy().tobytes()).hexdigest()[:8]


def make_batches(
    data: Any,
    batch_size: int,
    *,
    device: torch.device,
    dtype: torch.dtype,
    shuffle: bool = False,
    draw: Draw | None = None,
    arrange: Arrange | None = None,
    stream: DataStream | None = None,
    read: Read | None = None,
    weighted: bool = False,
    training: bool = False,
) -> Batches:
    """Return the batches of ``data``.

    Args:
        data: a pair ``(X, y)`` of arrays or tensors, a ``Dataset`` of pairs, or a ``DataLoader``.
        batch_size: examples a batch; a ``DataLoader`` has its own.
        device: where the batches are wanted.
        dtype: what floating-point inputs of arrays are converted to.
        shuffle: a new order for every epoch; a ``DataLoader`` has its own.
        draw: see :class:`ArrayBatches`.
        arrange: see :class:`ArrayBatches`.
        stream: see :class:`ArrayBatches`.
        read: what makes targets of arrays into those that a loss takes; by default they are class
            numbers.
        weighted: whether a third part may say how much each example counts.
        training: whether features are refused that ``dtype`` would round away.

    Raises:
        TypeError: ``data`` is none of these, or arrays hold something else than numbers.
        ValueError: no examples, lengths that differ, or features that are not finite.
    """
    if isinstance(data, (DataLoader, Dataset)):
        return LoaderBatches(
            data if isinstance(data, DataLoader) else DataLoader(data, batch_size, shuffle=shuffle),
            device,
            draw=draw,
            arrange=arrange,
            stream=stream,
            weighted=weighted,
            any_targets=read is not None,
        )
    if not is_labelled(data, weighted):
        raise TypeError(
            "data must be a pair (X, y), a torch Dataset or a DataLoader, got "
            f"{type(data).__name__}"
        )
    inputs = check_inputs(data[0], dtype, training=training)
    targets = read_targets(data[1], read, dtype)
    if len(inputs) != len(targets):
        raise ValueError(
            f"X and y must have the same length, got {len(inputs)} and {len(targets)} examples"
        )
    if len(inputs) == 0:
        raise ValueError("data must hold at least one example, got none")
    if draw is not None and targets.dim() != 1 and read is None:
        raise ValueError(NO_OWN_TARGETS)
    weights = None
    if len(data) == 3:
        weights = check_weights(as_tensor("weights", data[2]), len(inputs))
        weights = weights.to(device, exact(device))
    return ArrayBatches(
        inputs.to(device),
        on_device(targets, device),
        batch_size,
        shuffle=shuffle,
        draw=draw,
        arrange=arrange,
        stream=stream,
        weights=weights,
    )


def read_targets(y: Any, read: Read | None, dtype: torch.dtype) -> Tensor:
    """Return targets as a loss reads them, or as class numbers; ``dtype`` is that of fractions."""
    y = without_objects(y)
    return check_targets(y) if read is None else read(as_tensor("y", y), dtype)


def check_targets(y: Any) -> Tensor:
    """Return class numbers as a tensor of int64.

    Raises:
        TypeError: they are not whole numbers.
        ValueError: one is below 0.
    """
    return class_numbers(as_tensor("y", y))
