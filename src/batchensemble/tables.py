"""Tables of numbers with a column of targets, read whole and checked before anything is done."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from batchensemble.checks import nearest
from batchensemble.columns import refuse_times
from batchensemble.frames import is_csv, paths_of, table

MIN_ROWS = 10
ROWS = 1 << 16  # that become a frame at a time
# More different numbers than this, and more than a tenth of the rows, is no column of classes.
MAX_NUMERIC_CLASSES = 50


@dataclass(frozen=True)
class Table:
    """Features and targets of a file, in its order.

    Attributes:
        features: ``[rows, columns]``, finite.
        labels: class numbers, or numbers (float64).
        feature_names: the columns of ``features``.
        class_names: what the class numbers stand for in the file; empty where there are none.
    """

    features: Float[np.ndarray, "rows columns"]
    labels: Int[np.ndarray, "rows"] | Float[np.ndarray, "rows"]
    feature_names: tuple[str, ...]
    class_names: tuple[str, ...]


def read_table(path: Path, target: str, *, numbers: bool = False) -> Table:
    """Read numeric features and one column of targets.

    Args:
        path: a CSV file with a header, a Parquet or Feather file, or a folder of Parquet files.
        target: the column of targets.
        numbers: it holds numbers, not labels of any kind.

    Raises:
        ValueError: the file is no such table; the sentence says where and what to do.
        OSError: it cannot be read.
    """
    frame = _frame(path)
    columns = [str(name) for name in frame.columns]
    frame.columns = pd.Index(columns)
    if target not in columns:
        raise ValueError(
            f"{path.name} has no column {target!r}{nearest(target, columns)} "
            f"(columns: {', '.join(columns)})"
        )
    if len(columns) < 2:
        raise ValueError(
            f"{path.name} has only the column {target!r}; at least one feature is needed beside it "
            "(is the separator a comma?)"
        )
    check_rows(path.name, len(frame))
    class_names: tuple[str, ...] = ()
    labels: Int[np.ndarray, "rows"] | Float[np.ndarray, "rows"]
    if numbers:
        labels = _numbers(path.name, frame[target], "fill it or drop the row")
    else:
        labels, class_names = _labels(path.name, frame[target])
    features = frame.drop(columns=target)
    values = np.column_stack([_numbers(path.name, features[name]) for name in features.columns])
    return Table(values, labels, tuple(features.columns), class_names)


def check_rows(file: str, rows: int) -> None:
    """Raise ``ValueError`` where there are too few rows to train on some and score others."""
    if rows < MIN_ROWS:
        raise ValueError(
            f"{file} must have at least {MIN_ROWS} rows to train on some and hold out others, "
            f"got {rows}"
        )


def check_classes(file: str, target: str, values: Sequence[object], rows: int) -> None:
    """Check that the different values of a column are classes.

    Args:
        file: what errors call it.
        target: the column.
        values: each once.
        rows: how many there are in all.

    Raises:
        ValueError: there is only one, one is a fraction, or nearly each row has its own.
    """
    if len(values) < 2:
        raise ValueError(
            f"{file}: the target column {target!r} must hold at least two classes, got only "
            f"{values[0]!r}"
        )
    real = any(isinstance(value, float) and value % 1 != 0 for value in values)
    if real or len(values) > max(MAX_NUMERIC_CLASSES, rows // 10):
        raise ValueError(
            f"{file}: the target column {target!r} must hold classes, got {len(values)} "
            f"different values in {rows} rows; choose another column, put it into bins, or "
            "predict the number itself: compare --task regression, train --loss mse"
        )


def _frame(path: Path) -> pd.DataFrame:
    paths = paths_of(path)
    if not is_csv(paths[0]):
        with table(path, ROWS) as rows:
            frames = list(rows.frames)
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=rows.names)
    try:
        with warnings.catch_warnings():
            # Rows longer than the header would lose their last fields.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            # In one go: a column read in parts may hold 1 and "1" as two classes.
            frame = pd.read_csv(path, skipinitialspace=True, index_col=False, low_memory=False)
            header = pd.read_csv(path, skipinitialspace=True, header=None, nrows=1, dtype=str)
    except pd.errors.EmptyDataError:
        raise ValueError(f"{path.name} is empty; a header and rows are needed") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path.name} is not text in UTF-8; is it a CSV file?") from None
    except pd.errors.ParserWarning:
        raise ValueError(
            f"{path.name} is not a regular table: a row has more fields than the header"
        ) from None
    except pd.errors.ParserError as error:
        reason = str(error).removeprefix("Error tokenizing data. C error: ").strip()
        raise ValueError(f"{path.name} is not a regular table: {reason}") from None
    names = header.iloc[0].dropna()
    if names.duplicated().any():
        twice = names[names.duplicated()].iloc[0]
        raise ValueError(f"{path.name} has two columns called {twice!r}; rename or drop one")
    return frame


def _labels(file: str, column: pd.Series[str]) -> tuple[Int[np.ndarray, "rows"], tuple[str, ...]]:
    missing = column.isna().to_numpy()
    if missing.any():
        raise ValueError(
            f"{file}: the target column {column.name!r} has no value in {_row(missing)}; "
            "fill or drop it"
        )
    numbers, classes = pd.factorize(column, sort=True)
    check_classes(file, str(column.name), classes.tolist(), len(column))
    return numbers.astype(np.int64), tuple(str(name) for name in classes)


def _numbers(
    file: str, column: pd.Series[float], cure: str = "fill it, drop it or leave the column out"
) -> Float[np.ndarray, "rows"]:
    refuse_times(column, f"{file}: column {column.name!r}")
    values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    bad = ~np.isfinite(values)
    if bad.any():
        value = column[bad].tolist()[0]
        what = "no value" if pd.isna(value) else f"{value!r}"
        kind = "a number" if isinstance(value, str) else "a finite number"
        raise ValueError(
            f"{file}: column {column.name!r} must hold {kind} in every row, got {what} in "
            f"{_row(bad)}; {cure}"
        )
    return values


def _row(bad: np.ndarray) -> str:
    """Name the first bad row as an editor shows it, the header being line 1."""
    first = int(bad.argmax())
    return f"row {first + 1} (line {first + 2})"
