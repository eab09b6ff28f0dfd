"""How training and prediction read data: batches of ``(inputs, targets)``.

Arrays are indexed in memory, a block of batches at a time, instead of collating rows one by one;
a ``Dataset`` or ``DataLoader`` of the user's own is read as it is.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from batchensemble.randomness import DataStream

Pair = tuple[Tensor, Tensor]
Draw = Callable[[Tensor], Tensor]
Arrange = Callable[..., Tensor]  # arrange(targets, per_member=...), as Ensemble.target_rows

# Batches are gathered in blocks of about this many bytes, so that an epoch never copies the data.
BLOCK_BYTES = 1 << 25
PREDICTION_BATCH = 4096
SAMPLE = 4096  # numbers that go into a checksum of the data

NO_OWN_TARGETS = (
    "y must have the shape [examples] for an ensemble that gives each member examples of its own, "
    "got one target a member; use BatchEnsemble or Single for those"
)


class ArrayBatches:
    """Batches of two tensors that lie in memory.

    Args:
        inputs: ``[examples, ...]``.
        targets: ``[examples]`` or ``[examples, members]``.
        batch_size: examples a batch; the last batch may be smaller.
        shuffle: a new order each time the batches are gone through, from torch's global generator.
        draw: maps the examples of each batch, ``[steps, batch]``, to those that each member sees,
            ``[steps, members, rows]``; the inputs are then ``[rows, members, ...]``.
        arrange: puts the targets of all batches of a block into the order of the ensemble's rows.
        stream: the random state that orders are drawn from; by default torch's global one.
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
    ) -> None:
        self.inputs, self.targets = inputs, targets
        self.batch_size = batch_size
        self.shuffle, self.draw, self.arrange = shuffle, draw, arrange
        self.stream = stream or DataStream(None)

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
        sums = []
        for values in (self.inputs, self.targets):
            flat = values.flatten()
            some = flat[:: max(1, len(flat) // SAMPLE)].double().cpu()
            sums.append(hashlib.sha256(some.numpy().tobytes()).hexdigest()[:8])
        return (
            f"{len(self.inputs)} examples of shape {list(self.inputs.shape[1:])}, in batches of "
            f"{self.batch_size} (checksums {', '.join(sums)})"
        )

    def _drawn(self, steps: Tensor) -> Tensor:
        if self.draw is None:
            return steps
        with self.stream.turn():
            return self.draw(steps)

    def _gather(self, steps: Tensor) -> Iterator[Pair]:
        index = steps.flatten().to(self.inputs.device)
        inputs = self.inputs.index_select(0, index)
        targets = self.targets.index_select(0, index)
        inputs = inputs.view(*steps.shape, *inputs.shape[1:])
        targets = targets.view(*steps.shape, *targets.shape[1:])
        if self.draw is not None:
            inputs, targets = inputs.transpose(1, 2), targets.transpose(1, 2)
        if self.arrange is not None:
            targets = self.arrange(targets, per_member=targets.dim() == 3)
        return zip(inputs.unbind(0), targets.unbind(0), strict=True)


class LoaderBatches:
    """Batches of a user's ``DataLoader``, moved to a device, drawn and arranged as above."""

    def __init__(
        self,
        loader: DataLoader[Any],
        device: torch.device,
        *,
        draw: Draw | None = None,
        arrange: Arrange | None = None,
        stream: DataStream | None = None,
    ) -> None:
        self.loader, self.device = loader, device
        self.draw, self.arrange = draw, arrange
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

    def starting_at(self, skip: int) -> Iterator[Pair]:
        """Yield the batches of an epoch without its first ``skip``, which are loaded all the same.

        The loader's order and whatever it does at random then go on as they would have.
        """
        with self.stream.turn():
            loading = iter(self.loader)
        for number in itertools.count():
            with self.stream.turn():
                batch = next(loading, None)
                if batch is None:
                    return
                pair = self._pair(batch)
            if number >= skip:
                yield pair

    def describe(self) -> str:
        """Return what tells these data from others, as far as a loader tells."""
        count = f"{len(self)} batches" if self.has_length else "batches"
        return f"{type(self.loader.dataset).__name__} in {count}"

    def _pair(self, batch: Any) -> Pair:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise TypeError(
                f"a data loader must yield pairs (inputs, targets), got {type(batch).__name__}"
            )
        inputs, targets = (part.to(self.device) for part in batch)
        if self.draw is not None:
            if targets.dim() != 1:
                raise ValueError(NO_OWN_TARGETS)
            rows = self.draw(torch.arange(len(inputs))).t().to(self.device)
            inputs, targets = inputs[rows], targets[rows]
        if self.arrange is not None:
            targets = self.arrange(targets, per_member=targets.dim() == 2)
        return inputs, targets


Batches = ArrayBatches | LoaderBatches


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

    Raises:
        TypeError: ``data`` is none of these, or arrays hold something else than numbers.
        ValueError: no examples, lengths that differ, or features that are not finite.
    """
    if isinstance(data, DataLoader):
        return LoaderBatches(data, device, draw=draw, arrange=arrange, stream=stream)
    if isinstance(data, Dataset):
        loader: DataLoader[Any] = DataLoader(data, batch_size, shuffle=shuffle)
        return LoaderBatches(loader, device, draw=draw, arrange=arrange, stream=stream)
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise TypeError(
            "data must be a pair (X, y), a torch Dataset or a DataLoader, got "
            f"{type(data).__name__}"
        )
    inputs, targets = check_inputs(data[0], dtype), check_targets(data[1])
    if len(inputs) != len(targets):
        raise ValueError(
            f"X and y must have the same length, got {len(inputs)} and {len(targets)} examples"
        )
    if len(inputs) == 0:
        raise ValueError("data must hold at least one example, got none")
    if draw is not None and targets.dim() != 1:
        raise ValueError(NO_OWN_TARGETS)
    inputs, targets = inputs.to(device), targets.to(device)
    return ArrayBatches(
        inputs, targets, batch_size, shuffle=shuffle, draw=draw, arrange=arrange, stream=stream
    )


def check_inputs(X: Any, dtype: torch.dtype) -> Tensor:
    """Return features as a tensor, floating-point ones in ``dtype``.

    Raises:
        TypeError: they are not numbers.
        ValueError: they have no feature axis, or one is NaN or infinite; the first is named.
    """
    inputs = _as_tensor("X", X)
    if inputs.dim() < 2:
        raise ValueError(f"X must have the shape [examples, features...], got {list(inputs.shape)}")
    if inputs.is_floating_point():
        # In blocks: a mask of all features would be a quarter of their memory.
        rows = max(1, BLOCK_BYTES // max(1, inputs[:1].nbytes))
        for start in range(0, len(inputs), rows):
            finite = torch.isfinite(inputs[start : start + rows])
            if not finite.all():
                row, *column = (~finite).nonzero()[0].tolist()
                where = column[0] if len(column) == 1 else tuple(column)
                value = inputs[(start + row, *column)].item()
                raise ValueError(
                    f"X must be finite, got {value} in row {start + row}, column {where}; fill or "
                    "drop it"
                )
        inputs = inputs.to(dtype)
    return inputs


def check_targets(y: Any) -> Tensor:
    """Return class numbers as a tensor of int64.

    Raises:
        TypeError: they are not whole numbers.
        ValueError: one is below 0, or they have more than two axes.
    """
    targets = _as_tensor("y", y)
    if targets.is_floating_point() or targets.is_complex():
        raise TypeError(
            f"y must hold class numbers (0, 1, 2, ...), got {targets.dtype}; "
            "convert with y.astype(int) if these are classes"
        )
    if targets.dim() not in (1, 2):
        raise ValueError(
            f"y must have the shape [examples] or [examples, members], got {list(targets.shape)}"
        )
    if targets.numel() and targets.min() < 0:
        raise ValueError(f"y must hold class numbers from 0 on, got {targets.min().item()}")
    return targets.long()


def _as_tensor(name: str, values: Any) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach()
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise TypeError(
            f"{name} must hold numbers, got an array of {array.dtype}; encode text as numbers "
            "first (sklearn.preprocessing.LabelEncoder for labels)"
        )
    dtype = array.dtype.newbyteorder("=")
    if dtype.kind == "u" and dtype.itemsize > 1:
        dtype = np.dtype(np.int64)  # torch computes little with unsigned numbers
    elif dtype.kind == "f" and dtype.itemsize > 8:
        dtype = np.dtype(np.float64)
    # Writeable, contiguous memory; what has that already is not copied.
    return torch.from_numpy(np.require(array, dtype, ["C", "W"]))
