"""Tables in files as data frames of pandas, so many rows at a time."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from batchensemble.formats import FORMATS, Csv, Format, Unit, need_pyarrow, reading

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
def table(path: Path, rows: int, text: str | None = None) -> Iterator[Rows]:
    """Open a table to go through it, so many rows at a time.

    Args:
        path: of a file or of a folder of Parquet files; CSV where the ending says nothing else.
        rows: at a time.
        text: a column whose values stay as they stand in a CSV file.

    Raises:
        ValueError: it is no such table.
        ImportError: it is no CSV, and pyarrow is not installed.
        OSError: it cannot be read.
    """
    paths = paths_of(path)
    if not is_csv(paths[0]):
        yield _from_parts(paths, rows)
        return
    with readable(path.name), warnings.catch_warnings():
        # With more fields in a row than in the header pandas would drop some.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        head = pd.read_csv(path, skipinitialspace=True, header=None, nrows=1, dtype=str)
        names = [str(name) for name in head.iloc[0]]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"{path.name} has two columns called {twice!r}; rename or drop one")
        reader = pd.read_csv(
            path,
            skipinitialspace=True,
            index_col=False,
            chunksize=rows,
            converters=None if text is None else {text: str},
        )
        with reader:
            yield Rows(names, None, iter(reader))


@dataclass(frozen=True)
class Rows:
    """A table that is gone through.

    Attributes:
        names: of its columns.
        count: how many rows there are, where the files say it.
        frames: the rows, some at a time.
    """

    names: list[str]
    count: int | None
    frames: Iterator[pd.DataFrame]


def _from_parts(paths: list[Path], rows: int) -> Rows:
    need_pyarrow(paths[0])
    kind = FORMATS[paths[0].suffix.lower()]()
    names: list[list[str]] = []
    for path in paths:
        with reading(path):
            names.append(list(kind.schema(path).names))
        if sorted(names[-1]) != sorted(names[0]):
            raise ValueError(
                f"all files must have the columns of {paths[0].name} ({', '.join(names[0])}), got "
                f"{', '.join(names[-1])} in {path.name}"
            )
    units: list[Unit] = []
    for path in paths:
        with reading(path):
            units += kind.units(path, names[0][0])

    return Rows(
        names[0],
        sum(unit.rows for unit in units),
        _regrouped(_pieces(kind, units, names[0], rows), rows),
    )


def _pieces(kind: Format, units: list[Unit], names: list[str], rows: int) -> Iterator[pd.DataFrame]:
    for unit in units:
        with reading(unit.path):
            for batch in kind.read(unit, names, None):
                for start in range(0, len(batch), rows):
                    yield batch.slice(start, rows).select(names).to_pandas()


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


@contextmanager
def readable(file: str) -> Iterator[None]:
    """Say in a sentence what is wrong with a CSV file."""
    try:
        yield
    except pd.errors.EmptyDataError:
        raise ValueError(f"{file} is empty; a header and rows are needed") from None
    except UnicodeDecodeError:
        raise ValueError(f"{file} is not text in UTF-8; is it a CSV file?") from None
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        reason = str(error).removeprefix("Error tokenizing data. C error: ").strip()
        raise ValueError(f"{file} is not a regular table: {reason}") from None
