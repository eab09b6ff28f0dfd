"""Batches of files larger than memory, shuffled within a window that moves over the rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from batchensemble.core.random_state import DataStream
from batchensemble.data.arrays import Read, read_targets
from batchensemble.data.batches import ArrayBatches, Draw, Pair
from batchensemble.data.prediction_batch import prediction_batch
from batchensemble.data.tables.column_names import remembered
from batchensemble.data.tables.files import Files
from batchensemble.losses.targets import on_device

# The window that is trained on and the one being read each take 1/8 of the memory limit; the rest
# is for the batches of a block and for decoding columns.
WINDOW_SHARE = 8

Window = tuple[Tensor, Tensor]


class StreamBatches:
    """Batches of files, of which two windows of rows are in memory at a time.

    Each epoch has a new random order of the parts of the files (row groups, record batches), and of
    the rows within a window, an eighth of the memory limit. A CSV file is one part, so rows that
    are far apart never share a batch: shuffle a sorted file first. A thread reads the next window
    while one is trained on.

    Args:
        files: the table.
        batch_size: examples per batch, the last of which may be smaller; ``None``: as suits
            predictions.
        device: where the batches are wanted; windows are moved there as a whole.
        dtype: of the features.
        memory_limit: bytes.
        shuffle: a new order each epoch.
        draw: see :class:`~batchensemble.data.batches.ArrayBatches`; it draws from a window.
        stream: see :class:`~batchensemble.data.batches.ArrayBatches`.
        read: see :func:`~batchensemble.data.batches.make_batches`.

    Attributes:
        window_rows: number of rows of a window, a multiple of ``batch_size``.
    """

    has_length = True

    def __init__(
        self,
        files: Files,
        batch_size: int | None,
        *,
        device: torch.device,
        dtype: torch.dtype,
        memory_limit: int,
        shuffle: bool = False,
        draw: Draw | None = None,
        stream: DataStream | None = None,
        read: Read | None = None,
    ) -> None:
        self.files, self.device, self.dtype = files, device, dtype
        self.shuffle, self.draw, self.read = shuffle, draw, read
        self.stream = stream or DataStream(None)
        self.class_names = files.class_names
        self.feature_names = remembered(files.names)
        self.target_names: tuple[str, ...] | None = None
        bytes_a_row = files.width * max(4, dtype.itemsize) + 8
        self.batch_size = batch_size or prediction_batch(bytes_a_row, device)
        batches = memory_limit // WINDOW_SHARE // bytes_a_row // self.batch_size
        self.window_rows = self.batch_size * min(max(1, batches), len(self))

    def __len__(self) -> int:
        return -(-self.files.rows // self.batch_size)

    def __iter__(self) -> Iterator[Pair]:
        return self.starting_at(0)

    def starting_at(self, skip: int) -> Iterator[Pair]:
        """Yield the batches of an epoch but its first ``skip``, in the order of a whole epoch.

        Windows and parts that are skipped entirely are not read.
        """
        units = list(range(len(self.files.units)))
        if self.shuffle and self.files.format.random_access:
            with self.stream.turn():
                units = torch.randperm(len(units)).tolist()
        done = skip // (self.window_rows // self.batch_size) * self.window_rows
        for start in range(0, min(done, self.files.rows), self.window_rows):
            self._skip_window(min(self.window_rows, self.files.rows - start))
        if done >= self.files.rows:
            return
        skip -= done // self.batch_size
        windows = self._windows(units, done)
        with ThreadPoolExecutor(1, "reading ahead") as thread:
            window: Window | None = next(windows)
            while window is not None:
                following = None
                inputs, targets = (on_device(part, self.device) for part in window)
                for pair in self._batches(inputs.to(self.dtype), targets).starting_at(skip):
                    yield pair
                    # Not before the first batch was used: some callers want only one.
                    following = following or thread.submit(next, windows, None)
                skip = 0
                window = (following or thread.submit(next, windows, None)).result()

    def all_targets(self) -> Iterator[Tensor]:
        """Yield the targets as the loss takes them, block by block, without reading features.

        Raises:
            TypeError, ValueError: a target is missing, or the loss does not take it.
        """
        return (read_targets(each, self.read, self.dtype) for each in self.files.targets())

    @cached_property
    def class_counts(self) -> dict[int, int]:
        """How often each class number occurs among the targets, which takes one pass over them.

        Raises:
            TypeError, ValueError: a target is missing, or not a class number.
        """
        found: Counter[int] = Counter()
        for targets in self.all_targets():
            classes, counts = targets.unique(return_counts=True)
            found.update(dict(zip(classes.tolist(), counts.tolist(), strict=True)))
        return dict(found)

    def describe(self) -> str:
        """Return a text that identifies these data."""
        return (
            f"{self.files.describe()}, in batches of {self.batch_size} from windows of "
            f"{self.window_rows} rows"
        )

    @property
    def fingerprint(self) -> str | None:
        """A text that identifies the rows, whatever the batches."""
        return self.files.describe()

    def _windows(self, units: list[int], skip: int) -> Iterator[Window]:
        """Yield windows of the rows of units, from row ``skip`` on.

        Two buffers alternate: a window is used up when the one after the next is asked for.
        """
        numpy_dtype = np.float64 if self.dtype == torch.float64 else np.float32
        shape = (self.window_rows, self.files.width)
        memory = [torch.from_numpy(np.empty(shape, numpy_dtype)) for _ in range(2)]
        targets: list[Tensor] = []
        rows = turn = 0
        in_order = [self.files.units[number] for number in units]
        for features, labels in self.files.blocks(in_order, numpy_dtype, skip):
            checked = read_targets(labels, self.read, self.dtype)
            while len(features):
                taken = min(len(features), self.window_rows - rows)
                memory[turn][rows : rows + taken] = torch.from_numpy(features[:taken])
                targets.append(checked[:taken])
                features, checked, rows = features[taken:], checked[taken:], rows + taken
                if rows == self.window_rows:
                    yield memory[turn], torch.cat(targets)
                    targets, rows, turn = [], 0, 1 - turn
        if rows:
            yield memory[turn][:rows], torch.cat(targets)

    def _batches(self, inputs: Tensor, targets: Tensor) -> ArrayBatches:
        return ArrayBatches(
            inputs,
            targets,
            self.batch_size,
            shuffle=self.shuffle,
            draw=self.draw,
            stream=self.stream,
        )

    def _skip_window(self, rows: int) -> None:
        """Advance the random state past the batches of a window."""
        inputs = torch.empty(1, self.files.width, dtype=self.dtype).expand(rows, -1)
        window = self._batches(inputs, torch.empty(1, dtype=torch.int64).expand(rows))
        for _ in window.starting_at(len(window)):
            pass
