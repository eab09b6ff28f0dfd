"""A table in files, read block by block, any number of times and in any order of its parts."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from batchensemble.data.tables.blocks import Block
from batchensemble.data.tables.checksums import ends_checksum, stored_encoding, stored_name
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
    as_text,
    check_finite,
    feature_columns,
    fill_column,
    is_missing,
    merged_order,
)
from batchensemble.data.tables.dialects import GAPS, Dialect
from batchensemble.data.tables.encoding.encoding import TableEncoding
from batchensemble.data.tables.formats import Csv, Unit, format_of, same_columns
from batchensemble.data.tables.split import ChosenRows
from batchensemble.data.tables.targets import gap_words, missing_targets

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
        all_rows: whether each row must have a target; otherwise those without one are left out.

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
        all_rows: bool = True,
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
        self._chosen: ChosenRows | None = None
        self._without: Array = np.empty(0, np.int64)
        self._gap_words: frozenset[str] = frozenset()
        self.encoding: TableEncoding | None = None
        self._number: Number | None = None
        if not self.rows:
            raise ValueError(f"{paths[0].name} must hold at least one row, got none")
        self._as_text = target is not None and not numbers and self._may_be_text(target)
        if not all_rows:
            self._leave_out_unlabelled()
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
        rows: ChosenRows | None = None,
        names: Sequence[str] | None = None,
        encoding: TableEncoding | None = None,
        class_names: Sequence[str] | None = None,
        number: Number | None = None,
    ) -> Files:
        """Return a view of the same files: other rows, features, scaling or class numbers.

        Nothing is read for that.

        Args:
            rows: a part of the rows; by default all.
            names: the features that are wanted, in their order; by default all.
            encoding: what is done with the features; by default they are numbers, left as they are.
            class_names: the classes that ``number`` numbers.
            number: converts blocks of the target column to class numbers; by default text is
                numbered in the order of ``class_names``, and numbers are kept.
        """
        other = copy.copy(self)
        other.names = self.names if names is None else tuple(names)
        other.class_names = self.class_names if class_names is None else ClassNames(class_names)
        other.encoding, other._number = encoding, number
        other._as_text = self._as_text or number is not None
        other._chosen = rows
        other._count()
        return other

    def _leave_out_unlabelled(self) -> None:
        """Leave out the rows without a target, whose column is read for that."""
        target, gaps = str(self.target), self.dialect.gaps or GAPS
        words = frozenset(gaps)
        if self._as_text:
            words = gap_words(self._texts(), gaps)
        missing = [np.empty(0, np.int64)]
        where = f"{self.paths[0].name}: the target column {target!r}"
        for first, block in self._raw([target]):
            found = missing_targets(block.columns[target], where, gaps, words)
            missing.append(np.flatnonzero(found) + first)
        self._without, self._gap_words = np.concatenate(missing), words
        self._count()
        if not self.rows:
            raise ValueError(f"{where} has no values; there is nothing to learn")

    def _texts(self) -> set[str]:
        """Return the different labels of the target column, those of missing values left out."""
        if isinstance(self.format, Csv):
            return self.format.texts(self.paths[0], str(self.target))
        found: set[str] = set()
        for _, block in self._raw([str(self.target)]):
            values = block.columns[str(self.target)]
            found |= {as_text(each) for each in set(values.tolist()) if not is_missing(each)}
            if len(found) > MAX_CLASSES:
                break
        return found

    @property
    def left_out(self) -> int:
        """Number of rows that are left out, as they have no target."""
        return len(self._without)

    def raw_blocks(self, names: Sequence[str]) -> Iterator[Block]:
        """Yield columns of the rows of this view, as they stand in the files."""
        for first, block in self._raw(names):
            yield block.take(self._positions(first, block.rows))

    def naming_lines(self) -> AbstractContextManager[None]:
        """Return a context in which an error of a row gets its line in a CSV file."""
        return self.format.reading(self.paths[0])

    def _raw(self, names: Sequence[str]) -> Iterator[tuple[int, Block]]:
        for start, unit in zip(self._starts, self.units, strict=False):
            text = [str(self.target)] if self._as_text and self.target in names else []
            with self.format.reading(unit.path):
                for block in self.format.read(unit, list(names), text):
                    yield start - unit.first_row + block.first_row, block

    def _count(self) -> None:
        """Count the rows of each part of the files that belong to this view."""
        self._counts = []
        for start, unit in zip(self._starts, self.units, strict=False):
            count = unit.rows if self._chosen is None else self._chosen.count(start, unit.rows)
            left_out = self._left_out_of(start, unit.rows)
            if len(left_out) and self._chosen is not None:
                chosen = self._chosen.positions(start, unit.rows)
                left_out = np.intersect1d(left_out, chosen, assume_unique=True)
            self._counts.append(count - len(left_out))
        self.rows = sum(self._counts)

    def _left_out_of(self, start: int, rows: int) -> Array:
        """Return which rows of a block have no target, as positions in the block."""
        low, high = np.searchsorted(self._without, [start, start + rows])
        return self._without[low:high] - start

    def taking(self, names: Names, encoding: TableEncoding | None = None) -> Files:
        """Return a view with these features, in this order, or encoded."""
        if encoding is not None:
            return self.view(names=names, encoding=encoding)
        if names == self.names:
            return self
        other = copy.copy(self)
        other.names = names
        return other

    @property
    def width(self) -> int:
        """Number of inputs that the features become."""
        return len(self.names) if self.encoding is None else self.encoding.inputs.width

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
        return 4 * self.rows * self.width

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
                        whole = len(chosen) == block.rows and not skip
                        part = block if whole else block.take(chosen[skip:])
                        with part.numbered():
                            features, targets = self._numbers(unit.path, part, dtype)
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
        if self._chosen or self.encoding is not None:
            about += [stored_name(self._chosen), *stored_encoding(self.encoding)]
        more = f" and {len(self.paths) - 1} more" if len(self.paths) > 1 else ""
        checksum = ends_checksum(f"({', '.join(about)})", self.paths)
        return (
            f"{self.rows} rows of {len(self.names)} features in {self.paths[0].name}{more} "
            f"(checksum {checksum})"
        )

    def _numbers(self, path: Path, block: Block, dtype: Any) -> tuple[Array, Array]:
        """Return the features and targets of a block."""
        row, decimal = block.first_row, block.decimal
        if self.encoding is not None:
            features = self.encoding.encode(block, path.name, dtype)
        else:
            features = np.empty((block.rows, len(self.names)), dtype)
            for number, name in enumerate(self.names):
                where = f"{path.name}: column {name!r}"
                values = check_finite(block.columns[name], where, row, decimal)
                fill_column(features, number, values, where, row)
        if self.target is None:
            return features, np.zeros(len(features), np.int64)
        where = f"{path.name}: the target column {self.target!r}"
        values = block.columns[self.target]
        if self._number is not None:
            return features, self._number(path.name, values, row)
        if not self._as_text and not self.class_names:
            return features, check_finite(values, where, row, decimal, TARGET_CURE)
        return features, labels_of(values, where, self.class_names, row)[0]

    def _positions(self, start: int, rows: int) -> Array:
        """Return the positions of the rows of a block that belong to this view."""
        found: Array = (
            np.arange(rows) if self._chosen is None else self._chosen.positions(start, rows)
        )
        left_out = self._left_out_of(start, rows)
        return np.setdiff1d(found, left_out, assume_unique=True) if len(left_out) else found

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
        if self.left_out:
            found = found - {"", *self._gap_words}
        return found if "" not in found and len(found) <= MAX_CLASSES else set()

    def _target_alone(self) -> Iterator[tuple[str, int, Array, list[str], Names]]:
        """Yield a name for error messages, the first row, the labels, and the declared order."""
        target = str(self.target)
        for unit in self.units:
            where = f"{unit.path.name}: the target column {target!r}"
            with self.format.reading(unit.path):
                for block in self.format.read(unit, [target], [target]):
                    if self.left_out:
                        start = self._starts[self.units.index(unit)] - unit.first_row
                        block = block.take(self._positions(start + block.first_row, block.rows))
                    with block.numbered():
                        labels = coded(block.columns[target], where, block.first_row)
                    yield where, block.first_row, *labels, block.declared.get(target, ())
