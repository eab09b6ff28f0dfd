"""Tables in files, read part by part: CSV, Parquet, Feather, through pyarrow."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

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

# Rows that are decoded at a time.
BLOCK_ROWS = 1 << 14
END_BYTES = 1 << 16  # of a file that go into its checksum, at each end

INDEX = re.compile(r"__index_level_\d+__")  # of pandas, which is no feature
CONVERSION = re.compile(
    r"CSV column #(?P<column>\d+): (?:Row #(?P<row>\d+): )?.*invalid value '(?P<value>.*)'"
)


@dataclass(frozen=True)
class Unit:
    """A part of a file that is read from its own beginning.

    Attributes:
        path: of the file.
        number: of the part in the file: a row group, a record batch; 0 is all of a CSV file.
        first_row: of the part in the file.
        rows: in the part.
    """

    path: Path
    number: int
    first_row: int
    rows: int


class Format(Protocol):
    """How files of one kind are read."""

    random_access: bool

    def schema(self, path: Path) -> Any:
        """Return the columns of a file and their types."""

    def units(self, path: Path, column: str) -> list[Unit]:
        """Return the parts of a file; ``column`` may be read to count its rows."""

    def read(self, unit: Unit, columns: Sequence[str], target: str | None) -> Iterator[Any]:
        """Yield these columns of a part as record batches, in order; the target may be any."""


class Parquet:
    """Parquet, by row groups."""

    random_access = True

    def schema(self, path: Path) -> Any:
        """Return the columns of a file and their types."""
        with self._open(path) as file:
            return file.schema_arrow

    def units(self, path: Path, column: str) -> list[Unit]:
        """Return the row groups of a file."""
        with self._open(path) as file:
            groups = range(file.metadata.num_row_groups)
            sizes = [file.metadata.row_group(group).num_rows for group in groups]
        return _units(path, sizes)

    def read(self, unit: Unit, columns: Sequence[str], target: str | None) -> Iterator[Any]:
        """Yield the columns of a row group as record batches."""
        with self._open(unit.path) as file:
            yield from file.iter_batches(
                BLOCK_ROWS, row_groups=[unit.number], columns=list(columns), use_threads=False
            )

    @staticmethod
    def _open(path: Path) -> Any:
        import pyarrow.parquet

        # Without a buffer for a whole row group, which may be the whole file.
        return pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)


class Feather:
    """Feather and Arrow files, by record batches."""

    random_access = True

    def schema(self, path: Path) -> Any:
        """Return the columns of a file and their types."""
        with self._open(path) as file:
            return file.schema

    def units(self, path: Path, column: str) -> list[Unit]:
        """Return the record batches of a file."""
        with self._open(path, [column]) as file:
            sizes = [file.get_batch(number).num_rows for number in range(file.num_record_batches)]
        return _units(path, sizes)

    def read(self, unit: Unit, columns: Sequence[str], target: str | None) -> Iterator[Any]:
        """Yield the columns of a record batch."""
        with self._open(unit.path, columns) as file:
            yield file.get_batch(unit.number)

    @staticmethod
    def _open(path: Path, columns: Sequence[str] | None = None) -> Any:
        import pyarrow as pa

        options = None
        if columns is not None:
            with pa.ipc.open_file(pa.OSFile(str(path))) as file:
                fields = [file.schema.get_field_index(name) for name in columns]
            options = pa.ipc.IpcReadOptions(included_fields=fields)
        return pa.ipc.open_file(pa.OSFile(str(path)), options=options)


class Csv:
    """CSV with a header, from the beginning to the end."""

    random_access = False

    def schema(self, path: Path) -> Any:
        """Return the columns of a file, and their types as its first rows tell."""
        import pyarrow.csv

        return pyarrow.csv.open_csv(path, read_options=self._one_thread()).schema

    def units(self, path: Path, column: str) -> list[Unit]:
        """Return the file as a whole, its rows counted by reading one column."""
        import pyarrow as pa

        return _units(path, [sum(map(len, self._batches(path, {column: pa.string()})))])

    def read(self, unit: Unit, columns: Sequence[str], target: str | None) -> Iterator[Any]:
        """Yield columns of a file: numbers, but the target what its first rows tell."""
        import pyarrow as pa

        types = dict.fromkeys(columns, pa.float64())
        if target is not None:
            found = self.schema(unit.path).field(target).type
            types[target] = pa.float64() if pa.types.is_null(found) else found
        return self._batches(unit.path, types)

    def _batches(self, path: Path, types: dict[str, Any]) -> Iterator[Any]:
        import pyarrow.csv

        convert = pyarrow.csv.ConvertOptions(
            column_types=types, include_columns=list(types), strings_can_be_null=True
        )
        # One thread: with more an error does not tell its row.
        yield from pyarrow.csv.open_csv(
            path, read_options=self._one_thread(), convert_options=convert
        )

    @staticmethod
    def _one_thread() -> Any:
        import pyarrow.csv

        return pyarrow.csv.ReadOptions(use_threads=False)


FORMATS: dict[str, type[Format]] = {
    ".csv": Csv,
    ".parquet": Parquet,
    ".pq": Parquet,
    ".feather": Feather,
    ".arrow": Feather,
}


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
        _need_pyarrow(paths[0])
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
        self.rows = sum(unit.rows for unit in self.units)
        if not self.rows:
            raise ValueError(f"{paths[0].name} must hold at least one row, got none")
        if target is not None and not self.class_names and self._target_is_text():
            self.class_names = self._classes()

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
        for unit in units:
            if skip >= unit.rows:
                skip -= unit.rows
                continue
            row = unit.first_row
            with reading(unit.path, self._columns[unit.path]):
                for batch in self.format.read(unit, columns, self.target):
                    part, start = batch.slice(skip), row + min(skip, len(batch))
                    skip, row = max(0, skip - len(batch)), row + len(batch)
                    if len(part):
                        yield self._numbers(unit.path, part.select(columns), start, dtype)

    def describe(self) -> str:
        """Return what tells these files from others: names, columns and a checksum of some."""
        checksum = hashlib.sha256(repr((self.names, self.target, self.class_names)).encode())
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
            fill(features, number, finite(as_array(batch.column(number)), where, row), where, row)
        if self.target is None:
            return features, np.zeros(len(batch), np.int64)
        where = f"{path.name}: the target column {self.target!r}"
        values = as_array(batch.column(len(self.names)))
        return features, labels_of(values, where, self.class_names, row)[0]

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


@contextmanager
def reading(path: Path, columns: Sequence[str] = ()) -> Iterator[None]:
    """Say in a sentence what is wrong with a file that cannot be read."""
    import pyarrow as pa

    try:
        yield
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        if "Empty CSV file" in reason:
            raise ValueError(f"{path.name} is empty; a header and rows are needed") from None
        if found := CONVERSION.search(reason):
            number = int(found["column"])
            name = columns[number] if number < len(columns) else f"number {number}"
            where = "" if found["row"] is None else f" in row {int(found['row']) - 2}"
            raise ValueError(
                f"{path.name}: column {name!r} must hold a number in every row, got "
                f"{found['value']!r}{where} (counted from 0); fill it, drop it or leave the column "
                "out"
            ) from None
        raise ValueError(f"{path.name} cannot be read: {reason}") from error


def _need_pyarrow(path: Path) -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"{path.name} is read through pyarrow, which is not installed: "
            "pip install batchensemble[files]"
        ) from error


def _units(path: Path, sizes: Sequence[int]) -> list[Unit]:
    starts = np.cumsum([0, *sizes])
    return [
        Unit(path, number, int(start), rows)
        for number, (start, rows) in enumerate(zip(starts, sizes, strict=False))
    ]
