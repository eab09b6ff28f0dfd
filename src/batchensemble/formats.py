"""Files that hold a table, read part by part: CSV, Parquet, Feather, through pyarrow."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

# Rows that are decoded at a time.
BLOCK_ROWS = 1 << 14

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


@runtime_checkable
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


def need_pyarrow(path: Path) -> None:
    """Raise ``ImportError`` where pyarrow, which reads the file, is not installed."""
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
