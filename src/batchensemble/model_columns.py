"""What a trained model expects of a table: its columns, in the units that it was trained on."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from batchensemble.checks import nearest

PARQUET = (".parquet", ".pq")


@dataclass(frozen=True)
class Columns:
    """The columns of a saved model.

    Attributes:
        feature_names: in the order of the network's inputs.
        class_names: one a class number.
        mean, scale: of each feature where the model was trained; empty where it took them as they
            are.
        target: the column of labels in the file it was trained on.
    """

    feature_names: tuple[str, ...]
    class_names: tuple[str, ...]
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    target: str | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Columns:
        """Return the columns that a saved configuration tells of.

        Raises:
            ValueError: it tells of none.
        """
        data = config.get("data") or {}
        if not data.get("feature_names") or not data.get("class_names"):
            raise ValueError(
                "the model does not say which columns it takes; save it with "
                'data={"feature_names": [...], "class_names": [...]}'
            )
        return cls(
            tuple(data["feature_names"]),
            tuple(data["class_names"]),
            tuple(data.get("mean", ())),
            tuple(data.get("scale", ())),
            data.get("target"),
        )

    def inputs(
        self, file: str, frame: pd.DataFrame, start: int = 0
    ) -> Float[np.ndarray, "rows features"]:
        """Return the features of rows of a file, standardised as in the training, float32.

        Args:
            file: what errors call it.
            frame: the rows, with all columns.
            start: how many rows of the file are before them.

        Raises:
            ValueError: a value is no finite number; the sentence says where.
        """
        columns = [numbers(file, frame[name], start) for name in self.feature_names]
        values = np.column_stack(columns)
        if self.mean:
            values = (values - np.asarray(self.mean)) / np.asarray(self.scale)
        return values.astype(np.float32)

    def labels(self, file: str, column: pd.Series[Any]) -> Int[np.ndarray, "rows"]:
        """Return the class numbers of a column of labels.

        Raises:
            ValueError: a value is none of the classes; the sentence says where.
        """
        known = {_key(name): index for index, name in enumerate(self.class_names)}
        found = [known.get(_key(value), -1) for value in column]
        if -1 in found:
            row = found.index(-1)
            value = column.iloc[row]
            what = "no value" if pd.isna(value) else f"the class {str(value)!r}"
            raise ValueError(
                f"{file}: column {column.name!r} has {what} in {_row(row)}; the model knows "
                f"{', '.join(self.class_names)}"
            )
        return np.array(found, np.int64)

    def check(self, file: str, names: Sequence[str], *more: str) -> None:
        """Check that a file has the features, and columns beside them.

        Raises:
            ValueError: one is not there.
        """
        for name in (*self.feature_names, *more):
            if name not in names:
                kind = "column" if name in more else "feature"
                raise ValueError(
                    f"{file} has no {kind} {name!r}{nearest(name, names)}; the model was trained "
                    f"on {', '.join(self.feature_names)} (columns here: {', '.join(names)})"
                )


@contextmanager
def table(path: Path, rows: int, text: str | None = None) -> Iterator[Rows]:
    """Open a CSV or Parquet file to go through it, so many rows at a time.

    Args:
        path: of the file; Parquet by its ending.
        rows: at a time.
        text: a column whose values stay as they stand in a CSV file.

    Raises:
        ValueError: it is no such file.
        ImportError: it is Parquet, and pyarrow is not installed.
        OSError: it cannot be read.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; give a CSV or Parquet file")
    if path.suffix in PARQUET:
        # Buffered ahead, what was read would stay in memory.
        with parquet().ParquetFile(path, pre_buffer=False) as file:
            frames = (batch.to_pandas() for batch in file.iter_batches(batch_size=rows))
            yield Rows(list(file.schema_arrow.names), file.metadata.num_rows, frames)
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
    """A file that is gone through.

    Attributes:
        names: of its columns.
        count: how many rows there are, if the file says.
        frames: the rows, some at a time.
    """

    names: list[str]
    count: int | None
    frames: Iterator[pd.DataFrame]


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


def numbers(file: str, column: pd.Series[Any], start: int = 0) -> Float[np.ndarray, "rows"]:
    """Return a column as finite numbers.

    Raises:
        ValueError: a value is none; the sentence says where.
    """
    values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    bad = ~np.isfinite(values)
    if bad.any():
        row = int(bad.argmax())
        value = column.iloc[row]
        what = "no value" if pd.isna(value) else f"{value!r}"
        raise ValueError(
            f"{file}: column {column.name!r} must hold a finite number in every row, got {what} in "
            f"{_row(start + row)}; fill it or drop the row"
        )
    return values


def _row(row: int) -> str:
    """Name a row as an editor shows it, the header being line 1."""
    return f"row {row + 1} (line {row + 2})"


def _key(value: Any) -> float | str:
    """Return a label so that 1, 1.0 and "1" are one class."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return str(value)
