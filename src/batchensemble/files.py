"""A table in files: one, or several of the same columns, read block by block."""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from batchensemble.columns import (
    MAX_CLASSES,
    Array,
    Names,
    Table,
    as_array,
    fill,
    finite,
    labels_of,
    split,
)
from batchensemble.formats import FORMATS, Unit, need_pyarrow, reading
from batchensemble.row_split import Fifth

END_BYTES = 1 << 16  # of a file that go into its checksum, at each end
INDEX = re.compile(r"__index_level_\d+__")  # of pandas, which is no feature

# number(file, values, first_row) makes a block of the target's column into class numbers.
Number = Callable[[str, Array, int], Array]


class Files:
    """A table in one file or several of the same columns.

    Args:
        paths: of the files, whose rows follow each other.
        target: the column of targets; ``None``: there is none.
        class_names: the classes in the order of their numbers, where the targets are text; by
            default all that there are, sorted.
        labelled: whether the targets are wanted; else their column is left out if it is there.

    Attributes:
        names: the columns of features.
        class_names: see above; empty where targets are numbers.
        units: the parts that the rows are in.
        rows: how many.

    Raises:
        ImportError: pyarrow is missing.
        FileNotFoundError: there is no such file.
        ValueError: a file is no such table; the sentence says what is wrong with it.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        target: str | None = None,
        class_names: Sequence[str] = (),
        *,
        labelled: bool = True,
    ) -> None:
        need_pyarrow(paths[0])
        self.paths = list(paths)
        self.format = FORMATS[paths[0].suffix.lower()]()
        self._columns = {path: self._columns_of(path) for path in paths}
        columns = self._same_columns()
        self.target = target = target if labelled or target in columns else None
        self.names, _ = split(Table(columns, 0, np.empty), target, paths[0].name)
        self.target = target = target if labelled else None
        self.class_names = tuple(class_names)
        self.units: list[Unit] = []
        for path in paths:
            with reading(path, self._columns[path]):
                self.units += self.format.units(path, target or self.names[0])
        self._counts = [unit.rows for unit in self.units]
        self._starts = np.cumsum([0, *self._counts]).tolist()
        self.rows = self._starts[-1]
        self._chosen: Fifth | None = None
        self._mean: Sequence[float] = ()
        self._scale: Sequence[float] = ()
        self._number: Number | None = None
        if not self.rows:
            raise ValueError(f"{paths[0].name} must hold at least one row, got none")
        if target is not None and not self.class_names and self._target_is_text():
            self.class_names = self._classes()

    def view(
        self,
        *,
        rows: Fifth | None = None,
        names: Sequence[str] | None = None,
        mean: Sequence[float] = (),
        scale: Sequence[float] = (),
        class_names: Sequence[str] | None = None,
        number: Number | None = None,
    ) -> Files:
        """Return the same files read in another way; nothing is read for that.

        Args:
            rows: those that belong; by default all.
            names: the features that are wanted, in their order; by default all.
            mean, scale: what is subtracted from each of them, and what it is then divided by.
            class_names: what the numbers of ``number`` stand for.
            number: what makes the target's column into class numbers; by default text is numbered
                in the order of ``class_names``, and numbers stay.
        """
        other = copy.copy(self)
        other.names = self.names if names is None else tuple(names)
        other.class_names = self.class_names if class_names is None else tuple(class_names)
        other._mean, other._scale, other._number = tuple(mean), tuple(scale), number
        other._chosen = rows
        sizes = zip(self._starts, self.units, strict=False)
        other._counts = [
            unit.rows if rows is None else rows.count(start, unit.rows) for start, unit in sizes
        ]
        other.rows = sum(other._counts)
        return other

    def taking(self, names: Names) -> Files:
        """Return the same files with these of their features, in this order."""
        if names == self.names:
            return self
        other, position = copy.copy(self), {name: each for each, name in enumerate(self.names)}
        other.names = names
        if self._mean:
            other._mean, other._scale = (
                [values[position[name]] for name in names] for values in (self._mean, self._scale)
            )
        return other

    @property
    def bytes_as_float32(self) -> int:
        """About what the features take in memory."""
        return 4 * self.rows * len(self.names)

    def blocks(
        self, units: Sequence[Unit], dtype: Any, skip: int = 0
    ) -> Iterator[tuple[Array, Array]]:
        """Yield features ``[rows, columns]`` and targets ``[rows]`` of units, in their order.

        Without a target there are zeros.

        Args:
            units: of :attr:`units`.
            dtype: of the features.
            skip: rows that are left out at the start.

        Raises:
            ValueError: a value is missing or no number, or the file is damaged.
        """
        columns = [*self.names, *([] if self.target is None else [self.target])]
        position = {unit: number for number, unit in enumerate(self.units)}
        for unit in units:
            number = position[unit]
            if skip >= self._counts[number]:
                skip -= self._counts[number]
                continue
            row, before = unit.first_row, self._starts[number] - unit.first_row
            with reading(unit.path, self._columns[unit.path]):
                for batch in self.format.read(unit, columns, self.target):
                    chosen = self._positions(before + row, len(batch))
                    if skip < len(chosen):
                        # Rows of the other part are checked as well, once before training.
                        first = int(chosen[skip]) if skip else 0
                        part = batch.slice(first).select(columns)
                        features, targets = self._numbers(unit.path, part, row + first, dtype)
                        if len(chosen) < len(batch):
                            wanted = chosen[skip:] - first
                            features, targets = features[wanted], targets[wanted]
                        yield features, targets
                    skip, row = max(0, skip - len(chosen)), row + len(batch)

    def targets(self) -> Iterator[Array]:
        """Yield the targets alone, block by block; no column of features is read for that."""
        alone = copy.copy(self)
        alone.names = ()
        return (labels for _, labels in alone.blocks(self.units, np.float32))

    def describe(self) -> str:
        """Return what tells these files from others: names, columns and a checksum of some."""
        about: list[Any] = [self.names, self.target, self.class_names]
        about += [self._chosen, self._mean, self._scale] if self._chosen or self._mean else []
        checksum = hashlib.sha256(repr(tuple(about)).encode())
        for path in self.paths:
            size = path.stat().st_size
            with path.open("rb") as file:
                checksum.update(file.read(END_BYTES))
                file.seek(max(0, size - END_BYTES))
                checksum.update(file.read())
            checksum.update(str(size).encode())
        more = f" and {len(self.paths) - 1} more" if len(self.paths) > 1 else ""
        return (
            f"{self.rows} rows of {len(self.names)} features in {self.paths[0].name}{more} "
            f"(checksum {checksum.hexdigest()[:8]})"
        )

    def _numbers(self, path: Path, batch: Any, row: int, dtype: Any) -> tuple[Array, Array]:
        features = np.empty((len(batch), len(self.names)), dtype)
        for number, name in enumerate(self.names):
            where = f"{path.name}: column {name!r}"
            values = finite(as_array(batch.column(number)), where, row)
            if self._mean:
                values = (values.astype(np.float64) - self._mean[number]) / self._scale[number]
            fill(features, number, values, where, row)
        if self.target is None:
            return features, np.zeros(len(batch), np.int64)
        where = f"{path.name}: the target column {self.target!r}"
        values = as_array(batch.column(len(self.names)))
        if self._number is not None:
            return features, self._number(path.name, values, row)
        return features, labels_of(values, where, self.class_names, row)[0]

    def _positions(self, start: int, rows: int) -> Array:
        """Return which rows of a block belong."""
        return np.arange(rows) if self._chosen is None else self._chosen.positions(start, rows)

    def _same_columns(self) -> Names:
        first = self._columns[self.paths[0]]
        if len(set(first)) < len(first):
            twice = next(name for name in first if first.count(name) > 1)
            raise ValueError(
                f"{self.paths[0].name} has two columns called {twice!r}; rename or drop one"
            )
        for path, columns in self._columns.items():
            if set(columns) != set(first):
                raise ValueError(
                    f"all files must have the columns of {self.paths[0].name} "
                    f"({', '.join(first)}), got {', '.join(columns)} in {path.name}"
                )
        return first

    def _columns_of(self, path: Path) -> Names:
        with reading(path):
            names = self.format.schema(path).names
        return tuple(name for name in names if not INDEX.fullmatch(name))

    def _target_is_text(self) -> bool:
        import pyarrow.types as kinds

        with reading(self.paths[0]):
            kind = self.format.schema(self.paths[0]).field(self.target).type
        kind = kind.value_type if kinds.is_dictionary(kind) else kind
        return bool(kinds.is_string(kind) or kinds.is_large_string(kind))

    def _classes(self) -> Names:
        """Return all texts of the target's column, which is read once for that."""
        assert self.target is not None
        found: set[str] = set()
        for unit in self.units:
            where, row = f"{unit.path.name}: the target column {self.target!r}", unit.first_row
            with reading(unit.path):
                for batch in self.format.read(unit, [self.target], self.target):
                    found |= set(labels_of(as_array(batch.column(0)), where, (), row)[1])
                    row += len(batch)
            if len(found) > MAX_CLASSES:
                raise ValueError(f"{where} must hold classes, got more than {MAX_CLASSES:,} texts")
        return tuple(sorted(found))
