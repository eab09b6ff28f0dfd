"""Batches of ``(inputs, targets)``, as training and prediction read them.

Arrays are indexed in memory, many batches at once, instead of collating rows one by one; a
``Dataset`` or ``DataLoader`` is read as it is.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from batchensemble.core.inputs import (
    Inputs,
    Nested,
    describe_example,
    is_labelled,
    take_apart,
)
from batchensemble.core.random_state import DataStream
from batchensemble.data.arrays import (
    BLOCK_BYTES,
    Read,
    are_several,
    as_tensor,
    check_inputs,
    check_several,
    read_targets,
)
from batchensemble.data.prediction_batch import prediction_batch, prediction_batch_of
from batchensemble.data.tables.class_labels import ClassNames
from batchensemble.losses.targets import (
    Targets,
    Weighted,
    check_weights,
    exact,
    on_device,
)

Pair = tuple[Inputs, Targets]
Draw = Callable[[Tensor], Tensor]

CHECKSUM_ROWS = 4096  # numbers that go into a checksum of the data

NO_OWN_TARGETS = (
    "y must have the shape [examples, ...] for an ensemble that gives each member examples of its "
    "own, got one target a member; give batches='shared', or use BatchEnsemble for those"
)


@runtime_checkable
class Batches(Protocol):
    """The batches of a training, iterated over once per epoch.

    Attributes:
        class_names: in the order of the class numbers; empty if unknown.
        feature_names, target_names: of columns; ``None`` if they have no names.
        draw: see :class:`ArrayBatches`.
    """

    class_names: ClassNames
    feature_names: tuple[str, ...] | None
    target_names: tuple[str, ...] | None
    draw: Draw | None

    @property
    def has_length(self) -> bool:
        """Whether the number of batches is known."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Pair]: ...

    def starting_at(self, skip: int) -> Iterator[Pair]:
        """Yield the batches of an epoch but its first ``skip``, in the order of a whole epoch."""

    def describe(self) -> str:
        """Return a text that identifies these data."""

    @property
    def fingerprint(self) -> str | None:
        """A text that identifies the examples, whatever the batches; ``None``: there is none."""


class ArrayBatches:
    """Batches of tensors in memory.

    Args:
        inputs: ``[examples, ...]``, or a dictionary or a tuple of several such tensors.
        targets: ``[examples, ...]``.
        batch_size: examples per batch, the last of which may be smaller; ``None``: as suits
            predictions.
        shuffle: whether each epoch has a new random order.
        draw: maps the examples of each batch, ``[steps, batch]``, to those that each member sees,
            ``[steps, members, rows]``; the inputs are then ``[rows, members, ...]``.
        stream: the random state that orders are drawn from; by default torch's global one.
        weights: how much each example counts, ``[examples]``; batches then hold
            :class:`Weighted`.
    """

    def __init__(
        self,
        inputs: Inputs,
        targets: Tensor,
        batch_size: int | None,
        *,
        shuffle: bool = False,
        draw: Draw | None = None,
        stream: DataStream | None = None,
        weights: Tensor | None = None,
    ) -> None:
        self.inputs, self.targets, self.weights = inputs, targets, weights
        self.batch_size = batch_size or self._prediction_batch
        self.shuffle, self.draw = shuffle, draw
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
        """Yield the batches of an epoch but its first ``skip``, in the order of a whole epoch."""
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

    def rows(self, index: Tensor) -> ArrayBatches:
        """Return batches of some of the examples, with the same names, draw and order.

        Args:
            index: which examples, on the device of these.
        """
        found = copy.copy(self)
        found.inputs, found.targets = self.inputs[index], self.targets[index]
        found.weights = None if self.weights is None else self.weights[index]
        return found

    def for_scoring(self) -> ArrayBatches:
        """Return the same examples in their order, in batches for prediction."""
        found = copy.copy(self)
        found.batch_size, found.shuffle, found.draw = self._prediction_batch, False, None
        found.stream = DataStream(None)
        return found

    def describe(self) -> str:
        """Return a text that identifies these data: sizes, and a checksum of some numbers."""
        weights = () if self.weights is None else (self.weights,)
        sums = [self._checksum(values) for values in (self.inputs, self.targets, *weights)]
        return (
            f"{len(self.inputs)} examples {self._shape}, in batches of "
            f"{self.batch_size} (checksums {', '.join(sums)})"
        )

    @property
    def fingerprint(self) -> str | None:
        """A text that identifies the examples, whatever the batches and weights."""
        sums = f"{self._checksum(self.inputs)}, {self._checksum(self.targets)}"
        return f"{len(self.inputs)} examples {self._shape} ({sums})"

    @property
    def _prediction_batch(self) -> int:
        return prediction_batch(self.inputs[:1].nbytes, self.targets.device)

    @property
    def _shape(self) -> str:
        """The shape of an example, as checkpoints store it."""
        if isinstance(self.inputs, Nested):
            return describe_example(self.inputs)
        return f"of shape {list(self.inputs.shape[1:])}"

    def _checksum(self, values: Inputs) -> str:
        """Return a checksum of numbers rounded to the network's type, as checkpoints store it."""
        if isinstance(values, Nested):
            sums = "".join(map(self._checksum, values.tensors()))
            return hashlib.sha256(sums.encode()).hexdigest()[:8]
        held = self.inputs.tensors() if isinstance(self.inputs, Nested) else [self.inputs]
        exact = values.dtype != torch.float64 or any(each.dtype == torch.float64 for each in held)
        return tensor_checksum(values, torch.float64 if exact else torch.float32)

    def _drawn(self, steps: Tensor) -> Tensor:
        if self.draw is None:
            return steps
        with self.stream.turn():
            return self.draw(steps)

    def _gather(self, steps: Tensor) -> Iterator[Pair]:
        index = steps.flatten().to(self.targets.device)

        def drawn(values: Tensor) -> Tensor:
            found = values.index_select(0, index).view(*steps.shape, *values.shape[1:])
            return found if self.draw is None else found.transpose(1, 2)

        of_steps = drawn(self.targets).unbind(0)
        targets: Iterator[Targets] = iter(of_steps)
        if self.weights is not None:
            targets = map(Weighted, of_steps, drawn(self.weights).unbind(0))
        if not isinstance(self.inputs, Nested):
            return zip(drawn(self.inputs).unbind(0), targets, strict=True)
        values = self.inputs.values
        names = list(values) if isinstance(values, Mapping) else None
        parts = [drawn(each).unbind(0) for each in self.inputs.tensors()]
        several = (
            Nested(each if names is None else dict(zip(names, each, strict=True)), len(each[0]))
            for each in zip(*parts, strict=True)
        )
        return zip(several, targets, strict=True)


class LoaderBatches:
    """Batches of a user's ``DataLoader``, moved to a device and drawn as above.

    Args:
        loader: yields pairs ``(inputs, targets)`` or dictionaries. Inputs may be a dictionary or a
            tuple, which the network takes by name or by position.
        device: of the batches.
        target: the key of the targets in a dictionary.
        draw: see :class:`ArrayBatches`.
        stream: see :class:`ArrayBatches`.
        weighted: whether pairs may have a third part, the weight of each example.
        any_targets: whether targets may have several axes even if members see different examples.
    """

    def __init__(
        self,
        loader: DataLoader[Any],
        device: torch.device,
        *,
        target: str | None = None,
        draw: Draw | None = None,
        stream: DataStream | None = None,
        weighted: bool = False,
        any_targets: bool = False,
    ) -> None:
        self.loader, self.device, self.target = loader, device, target
        self.class_names = ClassNames()
        self.feature_names: tuple[str, ...] | None = None
        self.target_names: tuple[str, ...] | None = None
        self.draw = draw
        self.weighted, self.any_targets = weighted, any_targets
        self.stream = stream or DataStream(None)

    @property
    def has_length(self) -> bool:
        """Whether the loader knows its number of batches."""
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
        """Yield the batches of an epoch but its first ``skip``.

        Those are loaded and dropped, so that the loader's order is that of a whole epoch;
        ``caught_up`` is called when they are done.
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
        """Return a text that identifies these data, by what is known of a loader."""
        count = f"{len(self)} batches" if self.has_length else "batches"
        return f"{type(self.loader.dataset).__name__} in {count}"

    @property
    def fingerprint(self) -> str | None:
        """``None``: what a loader will yield is not known."""
        return None

    def _pair(self, batch: Any) -> Pair:
        inputs, *rest = take_apart(batch, self.target, weighted=self.weighted)
        inputs, rest = inputs.to(self.device), [each.to(self.device) for each in rest]
        if self.draw is not None:
            if rest[0].dim() != 1 and not self.any_targets:
                raise ValueError(NO_OWN_TARGETS)
            rows = self.draw(torch.arange(len(inputs))).t().to(self.device)
            inputs, rest = inputs[rows], [each[rows] for each in rest]
        return inputs, rest[0] if len(rest) == 1 else Weighted(*rest)


def tensor_checksum(values: Tensor, dtype: torch.dtype = torch.float64) -> str:
    """Return a checksum of an evenly spaced sample of the numbers, rounded to a type."""
    flat = values.flatten()
    some = flat[:: max(1, len(flat) // CHECKSUM_ROWS)].cpu().to(dtype).double()
    return hashlib.sha256(some.numpy().tobytes()).hexdigest()[:8]


def make_batches(
    data: Any,
    batch_size: int | None,
    *,
    device: torch.device,
    dtype: torch.dtype,
    shuffle: bool = False,
    draw: Draw | None = None,
    stream: DataStream | None = None,
    read: Read | None = None,
    weighted: bool = False,
    training: bool = False,
) -> Batches:
    """Return the batches of ``data``.

    Args:
        data: a pair ``(X, y)`` of arrays or tensors, whose ``X`` may be a dictionary or a tuple of
            them, a ``Dataset`` of pairs, or a ``DataLoader``.
        batch_size: examples per batch, ``None`` as suits predictions; a loader has its own.
        device: of the batches.
        dtype: that floating-point inputs of arrays are converted to.
        shuffle: whether each epoch has a new order; a ``DataLoader`` has its own.
        draw: see :class:`ArrayBatches`.
        stream: see :class:`ArrayBatches`.
        read: converts the targets of arrays to those of a loss; by default they are class numbers.
        weighted: whether pairs may have a third part, the weight of each example.
        training: refuse features whose variation is lost by rounding to ``dtype``.

    Raises:
        TypeError: ``data`` is none of these, or arrays do not hold numbers.
        ValueError: there are no examples, lengths differ, or features are not finite.
    """
    if isinstance(data, Dataset):
        size = batch_size or prediction_batch_of(data, device)
        data = DataLoader(data, size, shuffle=shuffle)
    if isinstance(data, DataLoader):
        return LoaderBatches(
            data,
            device,
            draw=draw,
            stream=stream,
            weighted=weighted,
            any_targets=read is not None,
        )
    if not is_labelled(data, weighted):
        raise TypeError(
            "data must be a pair (X, y), a torch Dataset or a DataLoader, got "
            f"{type(data).__name__}"
        )
    check = check_several if are_several(data[0]) else check_inputs
    inputs = check(data[0], dtype, training=training)
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
        stream=stream,
        weights=weights,
    )
