"""CSV files, some rows at a time: one reader for what is read whole and what is streamed."""

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

    Blanks around a field are no part of it. Lines without any field are passed over, and so are
    empty fields beyond the header.

    Args:
        path: of the file, which may be compressed: .gz, .bz2, .xz, .zip.
        given: how it is written, as far as the user says it.
        known: of other files of its kind; see
            :func:`~batchensemble.data.tables.dialects.layout_of`.

    Attributes:
        names: of the columns.
        dialect: how it is written.

    Raises:
        ValueError: it is no such table; the sentence says what is wrong with it.
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
        """Yield so many rows at a time.

        Columns of numbers are numbers, other columns are text; what stands for no value is NaN.
        Their ``attrs`` tell the decimal sign.

        Args:
            rows: at a time.
            text: columns that are read as they stand, whatever is in them.
            columns: those that are wanted; by default all. That no row is too long is seen only
                where all are read.

        Raises:
            ValueError: the file is no such table.
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
                frame.attrs["decimal"] = dialect.decimal  # of numbers among text
                yield frame

    @contextmanager
    def readable(self) -> Iterator[None]:
        """Say in a sentence what is wrong with the file, and in which line."""
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
        """Return the line of the file that a row begins in, counted from 1; rows are from 0."""
        return next((line for number, (line, _) in enumerate(self._rows()) if number == row), None)

    def _rows(self) -> Iterator[tuple[int, int]]:
        """Yield the line that each row begins in, and how many fields it has."""
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
