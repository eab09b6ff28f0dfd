"""Tables in files as data frames of pandas, so many rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from batchensemble.data.tables.columns import Names
from batchensemble.data.tables.csv_files import CsvFile
from batchensemble.data.tables.dialects import FOUND, Dialect
from batchensemble.data.tables.formats import FORMATS, Arrow, Csv, Unit, format_of

KINDS = "a CSV file, a Parquet or Feather file, or a folder of Parquet files"
PARQUET = (".parquet", ".pq")


def paths_of(path: Path) -> list[Path]:
    """Return the files of a table: the path itself, or the Parquet files in a folder.

    Raises:
        FileNotFoundError: there is none.
        ValueError: a folder holds none.
    """
    if path.is_dir():
        paths = sorted(each for each in path.rglob("*") if each.suffix.lower() in PARQUET)
        if not paths:
            raise ValueError(f"{path} is a folder; give {KINDS}, of which it has none")
        return paths
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; give {KINDS}")
    return [path]


def is_csv(path: Path) -> bool:
    """Return whether a file is read as CSV, as all are whose ending says nothing else."""
    return FORMATS.get(path.suffix.lower(), Csv) is Csv


@contextmanager
def table(
    path: Path,
    rows: int,
    text: Sequence[str] = (),
    *,
    dialect: Dialect | None = None,
    known: Dialect | None = None,
) -> Iterator[Rows]:
    """Open a table to go through it, so many rows at a time.

    What is found wrong with a row while it is open is said with its line of the file.

    Args:
        path: of a file or of a folder of Parquet files; CSV where the ending says nothing else.
        rows: at a time.
        text: columns whose values stay as they stand in a CSV file, such as ids and classes.
        dialect: how a CSV file is written, as far as the user says it.
        known: how CSV files of its kind are.

    Raises:
        ValueError: it is no such table.
        ImportError: it is no CSV, and pyarrow is not installed.
        OSError: it cannot be read.
    """
    paths = paths_of(path)
    if not is_csv(paths[0]):
        yield _from_parts(paths, rows)
        return
    file = CsvFile(path, dialect, known)
    with file.readable():
        frames = file.frames(rows, [name for name in text if name in file.names])
        yield Rows(list(file.names), None, frames, dialect=file.dialect)


@dataclass(frozen=True)
class Rows:
    """A table that is gone through.

    Attributes:
        names: of its columns.
        count: how many rows there are, where the files say it.
        frames: the rows, some at a time.
        index: names of what was the index of a data frame, and is no feature.
        dialect: how a CSV file is written.
    """

    names: list[str]
    count: int | None
    frames: Iterator[pd.DataFrame]
    index: Names = ()
    dialect: Dialect = FOUND


def _from_parts(paths: list[Path], rows: int) -> Rows:
    kind = format_of(paths[0])
    assert isinstance(kind, Arrow)
    names: list[list[str]] = []
    for path in paths:
        with kind.reading(path):
            names.append(list(kind.names(path)))
        if sorted(names[-1]) != sorted(names[0]):
            raise ValueError(
                f"all files must have the columns of {paths[0].name} ({', '.join(names[0])}), got "
                f"{', '.join(names[-1])} in {path.name}"
            )
    units: list[Unit] = []
    for path in paths:
        with kind.reading(path):
            units += kind.units(path, names[0][0])

    return Rows(
        names[0],
        sum(unit.rows for unit in units),
        _regrouped(_pieces(kind, units, names[0], rows), rows),
        kind.index(paths[0]),
    )


def _pieces(kind: Arrow, units: list[Unit], names: list[str], rows: int) -> Iterator[pd.DataFrame]:
    for unit in units:
        with kind.reading(unit.path):
            for batch in kind.batches(unit, names):
                for start in range(0, len(batch), rows):
                    yield batch.slice(start, rows).select(names).to_pandas(ignore_metadata=True)


def _regrouped(pieces: Iterator[pd.DataFrame], rows: int) -> Iterator[pd.DataFrame]:
    """Yield frames of so many rows, however many the parts of a file have."""
    held: list[pd.DataFrame] = []
    for piece in pieces:
        held.append(piece)
        if sum(map(len, held)) >= rows:
            whole = pd.concat(held, ignore_index=True)
            yield whole[:rows]
            held = [whole[rows:]]
    if sum(map(len, held)):
        yield pd.concat(held, ignore_index=True)


def parquet() -> Any:
    """Return ``pyarrow.parquet``.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError:
        raise ImportError(
            "Parquet needs pyarrow; pip install 'batchensemble[files]', or use CSV"
        ) from None
    return pyarrow.parquet
