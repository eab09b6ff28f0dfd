"""A table in files, read once from its first row to its last, in blocks of a chosen size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from batchensemble.data.tables.blocks import Block, joined
from batchensemble.data.tables.columns import Names
from batchensemble.data.tables.dialects import FOUND, Dialect
from batchensemble.data.tables.formats import (
    Arrow,
    Csv,
    Unit,
    format_of,
    same_columns,
    table_files,
)

BLOCK_ROWS = 1 << 16  # where nothing else is asked for


@contextmanager
def open_rows(
    path: Path, *, dialect: Dialect | None = None, known: Dialect | None = None
) -> Iterator[Rows]:
    """Open a table to read it once; errors about a row get its line in a CSV file.

    Args:
        path: a CSV, Parquet or Feather file, or a folder of Parquet files. A file with any other
            ending is read as CSV.
        dialect: how a CSV file is written; what it leaves open is detected.
        known: the dialect of other files of the same kind, for what the file leaves open.

    Raises:
        ValueError: the file is not such a table.
        ImportError: it needs pyarrow, which is not installed.
        OSError: it cannot be read.
    """
    paths = table_files(path)
    kind = format_of(paths[0], dialect, known)
    with kind.reading(path) if isinstance(kind, Csv) else nullcontext():
        yield Rows.of(kind, paths)


@dataclass(frozen=True)
class Rows:
    """A table that is open for reading.

    Attributes:
        names: of the columns.
        count: number of rows; ``None`` for CSV, which has to be read to count them.
        index: columns that were the index of a data frame, and are not features.
        dialect: how a CSV file is written.
        kind: the format of the files.
        units: the parts of the files.
    """

    names: Names
    count: int | None
    index: Names
    dialect: Dialect
    kind: Csv | Arrow
    units: list[Unit]

    @classmethod
    def of(cls, kind: Csv | Arrow, paths: list[Path]) -> Rows:
        """Return the rows of files of one format."""
        names = same_columns(kind, paths)
        if isinstance(kind, Csv):
            units = [Unit(path, 0, 0, 0) for path in paths]
            return cls(names, None, (), kind.file(paths[0]).dialect, kind, units)
        units = []
        for path in paths:
            with kind.reading(path):
                units += kind.units(path, names[0])
        count = sum(unit.rows for unit in units)
        return cls(names, count, kind.index(paths[0]), FOUND, kind, units)

    def blocks(
        self, size: int, columns: Sequence[str], text: Sequence[str] = ()
    ) -> Iterator[Block]:
        """Yield the rows in order.

        Args:
            size: rows of each block but the last, whatever the parts of the files have.
            columns: the columns that are wanted.
            text: those of them that are read as text from a CSV file, such as labels and ids.
        """
        held: list[Block] = []
        first = 0
        for piece in self._pieces(size, list(dict.fromkeys(columns)), text):
            held.append(piece)
            if sum(block.rows for block in held) >= size:
                whole = joined(held)
                yield replace(whole.part(0, size), first_row=first)
                first += size
                # Not an empty part, which would keep all of the block in memory.
                held = [whole.part(size, whole.rows)] if whole.rows > size else []
        if any(block.rows for block in held):
            yield replace(joined(held), first_row=first)

    def _pieces(self, size: int, columns: list[str], text: Sequence[str]) -> Iterator[Block]:
        """Yield what the parts of the files hold, at most ``size`` rows at a time."""
        for unit in self.units:
            with self.kind.reading(unit.path):
                for block in self.kind.read(unit, columns, text, rows=size):
                    for start in range(0, block.rows, size):
                        yield block.part(start, start + size)
