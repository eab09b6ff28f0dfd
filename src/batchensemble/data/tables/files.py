"""A table in files, read block by block, any number of times and in any order of its parts."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from batchensemble.core.inputs import Scaling
from batchensemble.data.tables.blocks import Block
from batchensemble.data.tables.class_labels import (
    ClassNames,
    are_measured,
    class_names_in,
    class_names_of,
    coded,
    gap_among,
    labels_of,
    refuse_gap,
)
from batchensemble.data.tables.columns import (
    MAX_CLASSES,
    TARGET_CURE,
    Array,
    ColumnarTable,
    Names,
    check_finite,
    check_size,
    feature_columns,
    fill_column,
    merged_order,
)
from batchensemble.data.tables.dialects import GAPS, Dialect
from batchensemble.data.tables.formats import Csv, Unit, format_of, same_columns
from batchensemble.data.tables.split import HashSplit

END_BYTES = 1 << 16  # of a file that go into its checksum, at each end

# number(file, values, first_row) converts a block of the target column to class numbers.
Number = Callable[[str, Array, int], Array]


class Files:
    """A table in one file, or in several files with the same columns.

    Args:
        paths: of the files; their rows are concatenated.
        target: the column of targets; ``None``: there is none.
        class_names: the classes, in the order of their numbers, if the targets are text; by
            default all that occur, sorted.
        labelled: whether the targets are wanted; otherwise their column is left out.
        numbers: whether the targets are numbers, never labels.
        dialect: how CSV files are written; what it leaves open is detected.
        known: the dialect of other files of the same kind.

    Attributes:
        columns: all columns of the files.
        names: the columns of features: all but the target and the index of a data frame.
        class_names: see above; empty where the targets are numbers.
        found: the classes that occur in a column of text, which may be numbers.
        units: the parts of the files.
        rows: number of rows.

    Raises:
        ImportError: pyarrow is missing.
        FileNotFoundError: there is no such file.
        ValueError: a file is not such a table; the message says why.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        target: str | None = None,
        class_names: Sequence[Any] = (),
        *,
        labelled: bool = True,
        numbers: bool = False,
        dialect: Dialect | None = None,
        known: Dialect | None = None,
    ) -> None:
        self.paths = list(paths)
        self.format = format_of(paths[0], dialect, known)
        self.columns = same_columns(self.format, paths)
        with self.format.reading(paths[0]):
            index = self.format.index(paths[0])
        columns = tuple(name for name in self.columns if name not in index or name == target)
        self.target = target = target if labelled or target in columns else None
        self.names = feature_columns(ColumnarTable(columns, 0, np.empty), target, paths[0].name)
        self.target = target = target if labelled else None
        self.class_names = class_names_of(class_names)
        self.found = ClassNames()
        self.units: list[Unit] = []
        for path in paths:
            with self.format.reading(path):
                self.units += self.format.units(path, target or self.names[0])
        self._counts = [unit.rows for unit in self.units]
        self._starts = np.cumsum([0, *self._counts]).tolist()
        self.rows = self._starts[-1]
        self._chosen: HashSplit | None = None
        self._mean: Sequence[float] = ()
        self._scale: Sequence[float] = ()
        self._number: Number | None = None
        self._to_be_scaled = False
        if not self.rows:
            raise ValueError(f"{paths[0].name} must hold at least one row, got none")
        self._as_text = target is not None and not numbers and self._may_be_text(target)
        if self._as_text and not self.class_names:
            self.found = self._classes()
            # Numbers are read as such; whether they are classes depends on the loss.
            by_size = self.found == class_names_in(self.found)
            measured = are_measured(self.found, self.decimal)
            self._as_text = not (by_size and measured)
            self.class_names = self.found if self._as_text else ClassNames()

    def view(
        self,
        *,
        rows: HashSplit | None = None,
        names: Sequence[str] | None = None,
        mean: Sequence[float] = (),
        scale: Sequence[float] = (),
        class_names: Sequence[str] | None = None,
        number: Number | None = None,
        to_be_scaled: bool = False,
    ) -> Files:
        """Return a view of the same files: other rows, features, scaling or class numbers.

        Nothing is read for that.

        Args:
            rows: a part of the rows; by default all.
            names: the features that are wanted, in their order; by default all.
            mean, scale: of each feature: what is subtracted, and what it is then divided by.
            class_names: the classes that ``number`` numbers.
            number: converts blocks of the target column to class numbers; by default text is
                numbered in the order of ``class_names``, and numbers are kept.
            to_be_scaled: refuse numbers too large for a mean and a standard deviation.
        """
        other = copy.copy(self)
        other.names = self.names if names is None else tuple(names)
        other.class_names = self.class_names if class_names is None else ClassNames(class_names)
        other._mean, other._scale, other._number = tuple(mean), tuple(scale), number
        other._as_text, other._to_be_scaled = self._as_text or number is not None, to_be_scaled
        other._chosen = rows
        sizes = zip(self._starts, self.units, strict=False)
        other._counts = [
            unit.rows if rows is None else rows.count(start, unit.rows) for start, unit in sizes
        ]
        other.rows = sum(other._counts)
        return other

    def taking(self, names: Names, scaling: Scaling | None = None) -> Files:
        """Return a view with these features, in this order, standardised by a scaling."""
        if scaling is not None:
            return self.view(names=names, mean=scaling[0], scale=scaling[1])
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
    def dialect(self) -> Dialect:
        """The dialect of CSV files."""
        if not isinstance(self.format, Csv):
            return Dialect()
        return self.format.file(self.paths[0]).dialect

    @property
    def decimal(self) -> str:
        """The decimal sign of text."""
        return self.dialect.decimal or "."

    @property
    def bytes_as_float32(self) -> int:
        """Bytes that the features would take in memory as float32."""
        return 4 * self.rows * len(self.names)

    def blocks(
        self, units: Sequence[Unit], dtype: Any, skip: int = 0
    ) -> Iterator[tuple[Array, Array]]:
        """Yield blocks of features ``[rows, columns]`` and targets ``[rows]`` of units, in order.

        Targets are zeros if there is no target column.

        Args:
            units: some of :attr:`units`.
            dtype: of the features.
            skip: number of rows to leave out at the start.

        Raises:
            ValueError: a value is missing or not a number, or the file is damaged.
        """
        columns = [*self.names, *([] if self.target is None else [self.target])]
        text = [str(self.target)] if self._as_text else []
        position = {unit: number for number, unit in enumerate(self.units)}
        for unit in units:
            number = position[unit]
            if skip >= self._counts[number]:
                skip -= self._counts[number]
                continue
            before = self._starts[number] - unit.first_row
            with self.format.reading(unit.path):
                for block in self.format.read(unit, columns, text):
                    chosen = self._positions(before + block.first_row, block.rows)
                    if skip < len(chosen):
                        # Rows of the other part are checked as well, once before training.
                        first = int(chosen[skip]) if skip else 0
                        features, targets = self._numbers(unit.path, block, first, dtype)
                        if len(chosen) < block.rows:
                            wanted = chosen[skip:] - first
                            features, targets = features[wanted], targets[wanted]
                        yield features, targets
                    skip = max(0, skip - len(chosen))

    def targets(self) -> Iterator[Array]:
        """Yield the targets block by block, without reading the features."""
        alone = copy.copy(self)
        alone.names = ()
        return (labels for _, labels in alone.blocks(self.units, np.float32))

    def describe(self) -> str:
        """Return a text that identifies the data: sizes, a name, and a checksum of file ends."""
        about: list[Any] = [repr(self.names), repr(self.target), repr(self.class_names)]
        if self._chosen or self._mean:
            about += [_stored_name(self._chosen), repr(self._mean), repr(self._scale)]
        checksum = hashlib.sha256(f"({', '.join(about)})".encode())
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

    def _numbers(self, path: Path, block: Block, first: int, dtype: Any) -> tuple[Array, Array]:
        """Return the features and targets of a block, from its row ``first`` on."""
        features = np.empty((block.rows - first, len(self.names)), dtype)
        row, decimal = block.first_row + first, block.decimal
        for number, name in enumerate(self.names):
            where = f"{path.name}: column {name!r}"
            values = check_finite(block.columns[name][first:], where, row, decimal)
            if self._to_be_scaled:
                check_size(values, where, row)
            scaling = (self._mean[number], self._scale[number]) if self._mean else None
            fill_column(features, number, values, where, row, scaling)
        if self.target is None:
            return features, np.zeros(len(features), np.int64)
        where = f"{path.name}: the target column {self.target!r}"
        values = block.columns[self.target][first:]
        if self._number is not None:
            return features, self._number(path.name, values, row)
        if not self._as_text and not self.class_names:
            return features, check_finite(values, where, row, decimal, TARGET_CURE)
        return features, labels_of(values, where, self.class_names, row)[0]

    def _positions(self, start: int, rows: int) -> Array:
        """Return the positions of the rows of a block that belong to this view."""
        return np.arange(rows) if self._chosen is None else self._chosen.positions(start, rows)

    def _may_be_text(self, target: str) -> bool:
        with self.format.reading(self.paths[0]):
            return self.format.is_text(self.paths[0], target)

    def _classes(self) -> ClassNames:
        """Return the classes of the target column, reading it once.

        Empty if it has too many distinct numbers to be classes.
        """
        found: set[str] = set()
        orders: set[Names] = set()
        known = self._collected_texts()
        for where, _, _, texts, order in () if known else self._target_alone():
            found |= set(texts)
            orders |= {order}
            if len(found) > MAX_CLASSES:
                if are_measured(found, self.decimal):
                    return ClassNames()
                raise ValueError(f"{where} must hold classes, got more than {MAX_CLASSES:,} texts")
        found = known or found
        gaps = self.dialect.gaps or GAPS
        gap = gap_among(found, gaps)
        if gap is not None:
            with self.format.reading(self.paths[0]):
                for where, row, codes, texts, _ in self._target_alone():
                    if gap in texts:
                        refuse_gap(codes, [*texts, "0"], where, row, gaps)
        return class_names_in(found, merged_order(list(orders)))

    def _collected_texts(self) -> set[str]:
        """Return the labels of a CSV file, which were collected when its rows were counted.

        Empty if a label is missing: reading the column again then raises the error.
        """
        if not isinstance(self.format, Csv):
            return set()
        found = self.format.texts(self.paths[0], str(self.target))
        return found if "" not in found and len(found) <= MAX_CLASSES else set()

    def _target_alone(self) -> Iterator[tuple[str, int, Array, list[str], Names]]:
        """Yield a name for error messages, the first row, the labels, and the declared order."""
        target = str(self.target)
        for unit in self.units:
            where = f"{unit.path.name}: the target column {target!r}"
            with self.format.reading(unit.path):
                for block in self.format.read(unit, [target], [target]):
                    labels = coded(block.columns[target], where, block.first_row)
                    yield where, block.first_row, *labels, block.declared.get(target, ())


def _stored_name(rows: HashSplit | None) -> str:
    """Return the text of a split that goes into checksums: its class was once called ``Fifth``."""
    return "None" if rows is None else f"Fifth(held_out={rows.held_out})"
