"""The reader of CSV files: so many rows at a time, as data frames of pandas."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import pandas as pd

from batchensemble.data.tables.columns import RowError
from batchensemble.data.tables.dialects import Dialect, layout_of, no_text, opened

TOO_LONG = re.compile(r"Expected (?P<expected>\d+) fields in line \d+, saw (?P<found>\d+)")
# Numbers are read as Python reads them, to the last digit; that is pandas' default from 3.1 on.
EXACT: dict[str, Any] = (
    {}
    if tuple(map(int, pd.__version__.split(".")[:2])) >= (3, 1)
    else {"float_precision": "round_trip"}
)


class CsvFile:
    """A CSV file with a header.

    Blanks around a field are stripped. Empty lines, and empty fields beyond the header, are
    ignored.

    Args:
        path: of the file, which may be compressed: .gz, .bz2, .xz, .zip.
        given: the dialect that the user gives; what it leaves open is detected.
        known: the dialect of other files of the same kind; see
            :func:`~batchensemble.data.tables.dialects.layout_of`.

    Attributes:
        names: of the columns.
        dialect: of the file, complete.

    Raises:
        ValueError: it is not such a table; the message says why.
        OSError: it cannot be read.
    """

    def __init__(
        self, path: Path, given: Dialect | None = None, known: Dialect | None = None
    ) -> None:
        self.path = path
        with self.readable():
            self._layout = layout_of(path, given or Dialect(), known or Dialect())
        self.dialect, self.names = self._layout.dialect, self._layout.header
        if len(set(self.names)) < len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise ValueError(f"{path.name} has two columns called {twice!r}; rename or drop one")

    def frames(
        self, rows: int, text: Sequence[str] = (), columns: Sequence[str] | None = None
    ) -> Iterator[pd.DataFrame]:
        """Yield the rows in blocks.

        Columns of numbers are numbers, other columns are text; missing values are NaN.

        Args:
            rows: of a block.
            text: columns that are read as text, whatever is in them.
            columns: those that are wanted; by default all. Rows with too many fields are detected
                only if all columns are read.

        Raises:
            ValueError: the file is not such a table.
        """
        layout, dialect = self._layout, self.dialect
        assert dialect.gaps is not None
        surplus = [f"surplus {number}" for number in range(layout.surplus)]
        wanted = self.names if columns is None else columns
        options: dict[str, Any] = {
            "sep": dialect.separator,
            "decimal": dialect.decimal,
            "header": None,
            "names": [*self.names, *surplus],
            "index_col": False,
            "skipinitialspace": True,
            "dtype": dict.fromkeys([*text, *surplus], str),
            "keep_default_na": False,
            "na_values": {name: ["", *dialect.gaps] for name in wanted if name not in text},
            "usecols": None if columns is None else list(columns),
            "chunksize": rows,
            "low_memory": False,  # else a column may be numbers in one part and text in another
            **EXACT,
        }
        with self.readable(), opened(self.path, str(dialect.encoding)) as file:
            for _ in range(layout.lines):
                file.readline()
            try:
                reader = pd.read_csv(file, **options)
            except pd.errors.EmptyDataError:
                return
            for frame in reader:
                for name in surplus if columns is None else ():
                    filled = frame[name].fillna("").str.strip() != ""
                    if filled.any():
                        raise RowError(
                            f"{self.path.name} is not a regular table: a row has more fields than "
                            "the header",
                            int(frame.index[0]) + int(filled.to_numpy().argmax()),
                            "; quote fields that hold the separator",
                        )
                for name in text:
                    frame[name] = frame[name].str.strip()
                frame = frame[list(wanted)].reset_index(drop=True)
                yield frame

    @contextmanager
    def readable(self) -> Iterator[None]:
        """Turn errors of reading into ``ValueError`` with the line of the file."""
        name = self.path.name
        try:
            yield
        except RowError as error:
            if error.line is not None:
                raise
            raise error.on_line(self.line(error.row)) from None
        except pd.errors.EmptyDataError:
            raise ValueError(f"{name} is empty; a header and rows are needed") from None
        except UnicodeError as error:
            encoding = getattr(error, "encoding", None) or self.dialect.encoding or "utf-8"
            raise ValueError(no_text(name, encoding)) from None
        except pd.errors.ParserError as error:
            raise ValueError(f"{name} is not a regular table: {self._reason(error)}") from None

    def line(self, row: int) -> int | None:
        """Return the line, from 1, in which a row, from 0, begins."""
        return next((line for number, (line, _) in enumerate(self._rows()) if number == row), None)

    def _rows(self) -> Iterator[tuple[int, int]]:
        """Yield the line in which each row begins, and the number of its fields."""
        with opened(self.path, str(self.dialect.encoding)) as file:
            for _ in range(self._layout.lines):
                file.readline()
            yield from self._records(file)

    def _records(self, file: TextIOWrapper) -> Iterator[tuple[int, int]]:
        reader = csv.reader(file, delimiter=str(self.dialect.separator), skipinitialspace=True)
        before = 0
        limit = csv.field_size_limit(2**31 - 1)
        try:
            for record in reader:
                if len(record) > 1 or (record and record[0].strip()):
                    yield self._layout.lines + before + 1, len(record)
                before = reader.line_num
        finally:
            csv.field_size_limit(limit)

    def _reason(self, error: Exception) -> str:
        reason = str(error).removeprefix("Error tokenizing data. C error: ").strip()
        found = TOO_LONG.search(reason)
        if found is not None:
            expected = int(found["expected"])
            where = next((line for line, fields in self._rows() if fields > expected), None)
            return f"expected {expected} fields in line {where}, got {found['found']}"
        if "EOF inside string" in reason:
            *_, (line, _) = self._rows()
            return f"a quote that opens in line {line} is never closed"
        return reason
