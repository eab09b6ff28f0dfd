"""Formats of tables in files: CSV, and Parquet and Feather through pyarrow."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from batchensemble.data.tables.blocks import Block
from batchensemble.data.tables.columns import MAX_CLASSES, Names, as_array, declared_by
from batchensemble.data.tables.csv_files import CsvFile
from batchensemble.data.tables.dialects import Dialect

FORMAT_BLOCK_ROWS = 1 << 14  # rows that are decoded at a time
PARQUET = (".parquet", ".pq")
TABLE_KINDS = "a CSV file, a Parquet or Feather file, or a folder of Parquet files"
INDEX = re.compile(r"__index_level_\d+__")  # of pandas, without a name


@dataclass(frozen=True)
class Unit:
    """A part of a file that can be read by itself.

    Attributes:
        path: of the file.
        number: of the row group or record batch; 0 for a CSV file, which is one part.
        first_row: number of its first row in the file, from 0.
        rows: number of rows; 0 for a CSV file whose rows were not counted.
    """

    path: Path
    number: int
    first_row: int
    rows: int


class Arrow(ABC):
    """A format that pyarrow reads."""

    random_access = True

    @abstractmethod
    def schema(self, path: Path) -> Any:
        """Return the columns of a file and their types."""

    @abstractmethod
    def units(self, path: Path, column: str) -> list[Unit]:
        """Return the parts of a file; ``column`` may be read to count the rows."""

    @abstractmethod
    def batches(self, unit: Unit, columns: Sequence[str]) -> Iterator[Any]:
        """Yield the columns of a part as record batches."""

    def names(self, path: Path) -> Names:
        """Return the columns of a file, without an index that has no name."""
        return tuple(name for name in self.schema(path).names if not INDEX.fullmatch(name))

    def index(self, path: Path) -> Names:
        """Return the columns that were the index of a data frame of pandas."""
        found = (self.schema(path).pandas_metadata or {}).get("index_columns", ())
        return tuple(name for name in found if isinstance(name, str))

    def is_text(self, path: Path, column: str) -> bool:
        """Return whether a column may hold text, that is, not numbers or truth values."""
        import pyarrow.types as kinds

        kind = self.schema(path).field(column).type
        number = (kinds.is_integer, kinds.is_floating, kinds.is_decimal, kinds.is_boolean)
        return not any(of_that_kind(kind) for of_that_kind in number)

    def read(
        self,
        unit: Unit,
        columns: Sequence[str],
        text: Sequence[str] = (),
        *,
        rows: int | None = None,
    ) -> Iterator[Block]:
        """Yield columns of a part in blocks, as the file has them.

        Args:
            unit: the part.
            columns: those that are wanted.
            text: columns of labels or ids, which pandas converts: a date is then called as it is
                written, without a time.
            rows: of a block, for formats without blocks of their own.
        """
        first_row = unit.first_row
        for batch in self.batches(unit, columns):
            found = {name: batch.column(name) for name in columns}
            yield Block(
                len(batch),
                {
                    name: column.to_pandas().to_numpy() if name in text else as_array(column)
                    for name, column in found.items()
                },
                {name: declared_by(found[name]) for name in text},
                first_row,
            )
            first_row += len(batch)

    @contextmanager
    def reading(self, path: Path) -> Iterator[None]:
        """Turn errors of pyarrow into ``ValueError`` with the name of the file."""
        import pyarrow as pa

        try:
            yield
        except FileNotFoundError:
            raise
        except (pa.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{path.name} cannot be read: {reason}") from error


class Parquet(Arrow):
    """Parquet, by row groups."""

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

    def batches(self, unit: Unit, columns: Sequence[str]) -> Iterator[Any]:
        """Yield the columns of a row group as record batches."""
        with self._open(unit.path) as file:
            yield from file.iter_batches(
                FORMAT_BLOCK_ROWS,
                row_groups=[unit.number],
                columns=list(columns),
                use_threads=False,
            )

    @staticmethod
    def _open(path: Path) -> Any:
        import pyarrow.parquet

        # Without a buffer for a whole row group, which may be the whole file.
        return pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)


class Feather(Arrow):
    """Feather and Arrow files, by record batches."""

    def schema(self, path: Path) -> Any:
        """Return the columns of a file and their types."""
        with self._open(path) as file:
            return file.schema

    def units(self, path: Path, column: str) -> list[Unit]:
        """Return the record batches of a file."""
        with self._open(path, [column]) as file:
            sizes = [file.get_batch(number).num_rows for number in range(file.num_record_batches)]
        return _units(path, sizes)

    def batches(self, unit: Unit, columns: Sequence[str]) -> Iterator[Any]:
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
    """CSV with a header; a file is one part.

    Args:
        given: the dialect that the user gives; what it leaves open is detected.
        known: the dialect of other files of the same kind.
    """

    random_access = False

    def __init__(self, given: Dialect | None = None, known: Dialect | None = None) -> None:
        self.given, self.known = given, known
        self._files: dict[Path, CsvFile] = {}
        self._texts: dict[tuple[Path, str], set[str]] = {}
        self._checked: set[Path] = set()

    def file(self, path: Path) -> CsvFile:
        """Return a file; its header and dialect are read once."""
        if path not in self._files:
            self._files[path] = CsvFile(path, self.given, self.known)
        return self._files[path]

    def names(self, path: Path) -> Names:
        """Return the columns of a file."""
        return self.file(path).names

    def index(self, path: Path) -> Names:
        """Return nothing: CSV does not mark an index."""
        return ()

    def is_text(self, path: Path, column: str) -> bool:
        """Return ``True``: what a column of CSV holds is not known before it is read."""
        return True

    def units(self, path: Path, column: str) -> list[Unit]:
        """Return the file as one part; all of it is read, to count and to check its rows."""
        rows, texts = 0, set[str]()
        for frame in self.file(path).frames(FORMAT_BLOCK_ROWS, [column]):
            rows += len(frame)
            if len(texts) <= MAX_CLASSES:
                texts |= set(frame[column].fillna("").unique())
        self._texts[path, column] = texts
        self._checked.add(path)
        return _units(path, [rows])

    def texts(self, path: Path, column: str) -> set[str]:
        """Return the distinct texts of the column that :meth:`units` read.

        Incomplete if there are more than :data:`~batchensemble.data.tables.columns.MAX_CLASSES`.
        """
        return self._texts[path, column]

    def read(
        self,
        unit: Unit,
        columns: Sequence[str],
        text: Sequence[str] = (),
        *,
        rows: int | None = None,
    ) -> Iterator[Block]:
        """Yield columns of a file in blocks.

        Args:
            unit: the file.
            columns: those that are wanted.
            text: columns that are read as text.
            rows: of a block; by default :data:`FORMAT_BLOCK_ROWS`.
        """
        file = self.file(unit.path)
        # Rows with too many fields are detected only if all columns are read; once is enough.
        wanted = columns if unit.path in self._checked else None
        text, first_row = [name for name in text if name in file.names], 0
        for frame in file.frames(rows or FORMAT_BLOCK_ROWS, text, wanted):
            values = {name: frame[name].to_numpy() for name in columns}
            yield Block(len(frame), values, {}, first_row, str(file.dialect.decimal))
            first_row += len(frame)

    def reading(self, path: Path) -> AbstractContextManager[None]:
        """Turn errors of reading into ``ValueError`` with the line of the file."""
        return self.file(path).readable()


FORMATS: dict[str, type[Csv] | type[Parquet] | type[Feather]] = {
    ".csv": Csv,
    ".parquet": Parquet,
    ".pq": Parquet,
    ".feather": Feather,
    ".arrow": Feather,
}


def format_of(
    path: Path, given: Dialect | None = None, known: Dialect | None = None
) -> Csv | Arrow:
    """Return the format of a file by its ending; CSV for any unknown one.

    Args:
        path: of the file.
        given: the dialect that the user gives; what it leaves open is detected.
        known: the dialect of other files of the same kind.

    Raises:
        ImportError: it needs pyarrow, which is not installed.
    """
    kind = FORMATS.get(path.suffix.lower(), Csv)
    if issubclass(kind, Csv):
        return Csv(given, known)
    need_pyarrow(path)
    return kind()


def need_pyarrow(path: Path) -> None:
    """Raise ``ImportError`` where pyarrow, which reads and writes the file, is not installed."""
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"{path.name} needs pyarrow, which is not installed: pip install "
            "batchensemble[files], or use CSV"
        ) from error


def is_csv(path: Path) -> bool:
    """Return whether a file is read as CSV: any whose ending does not name another format."""
    return FORMATS.get(path.suffix.lower(), Csv) is Csv


def parquet_files(folder: Path) -> Iterator[Path]:
    """Yield the Parquet files in a folder and in the folders below it, in any order."""
    return (path for path in folder.rglob("*") if path.suffix.lower() in PARQUET)


def table_files(path: Path) -> list[Path]:
    """Return the files of a table: the path itself, or the Parquet files of a folder, sorted.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the folder has no Parquet files.
    """
    if path.is_dir():
        paths = sorted(parquet_files(path))
        if not paths:
            raise ValueError(f"{path} is a folder without Parquet files; give {TABLE_KINDS}")
        return paths
    if not path.is_file():
        raise FileNotFoundError(f"there is no file or folder {path}; give {TABLE_KINDS}")
    return [path]


def same_columns(kind: Csv | Arrow, paths: Sequence[Path]) -> Names:
    """Return the columns that the files of a table have.

    Raises:
        ValueError: a file has other columns than the first, or two of the same name.
    """
    columns: dict[Path, Names] = {}
    for path in paths:
        with kind.reading(path):
            columns[path] = kind.names(path)
    first = columns[paths[0]]
    if len(set(first)) < len(first):
        twice = next(name for name in first if first.count(name) > 1)
        raise ValueError(f"{paths[0].name} has two columns called {twice!r}; rename or drop one")
    for path, names in columns.items():
        if sorted(names) != sorted(first):
            raise ValueError(
                f"all files must have the columns of {paths[0].name} ({', '.join(first)}), got "
                f"{', '.join(names)} in {path.name}"
            )
    return first


def _units(path: Path, sizes: Sequence[int]) -> list[Unit]:
    starts = np.cumsum([0, *sizes])
    return [
        Unit(path, number, int(start), rows)
        for number, (start, rows) in enumerate(zip(starts, sizes, strict=False))
    ]
