"""Tables of numbers with a column of labels, read from CSV and checked before anything is done."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from batchensemble.checks import nearest

MIN_ROWS = 10
# More different numbers than this, and more than a tenth of the rows, is no column of classes.
MAX_NUMERIC_CLASSES = 50


@dataclass(frozen=True)
class Table:
    """Features and labels of a file, in its order.

    Attributes:
        features: ``[rows, columns]``, finite.
        labels: class numbers, or the numbers to predict.
        feature_names: the columns of ``features``.
        class_names: what the class numbers stand for in the file; none where it holds numbers.
    """

    features: Float[np.ndarray, "rows columns"]
    labels: Int[np.ndarray, "rows"] | Float[np.ndarray, "rows"]
    feature_names: tuple[str, ...]
    class_names: tuple[str, ...]


def read_table(path: Path, target: str, *, numbers: bool = False) -> Table:
    """Read a CSV file with a header, numeric features and one column of targets.

    Args:
        path: the file.
        target: the column of labels of any kind.
        numbers: it holds numbers, not labels.

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
    if len(frame) < MIN_ROWS:
        raise ValueError(
            f"{path.name} must have at least {MIN_ROWS} rows to train on some and hold out others, "
            f"got {len(frame)}"
        )
    labels: np.ndarray
    class_names: tuple[str, ...] = ()
    if numbers:
        labels = _numbers(path.name, frame[target])
    else:
        labels, class_names = _labels(path.name, frame[target])
    features = frame.drop(columns=target)
    values = np.column_stack([_numbers(path.name, features[name]) for name in features.columns])
    return Table(values, labels, tuple(features.columns), class_names)


def _frame(path: Path) -> pd.DataFrame:
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give a CSV file")
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
    if len(classes) < 2:
        raise ValueError(
            f"{file}: the target column {column.name!r} must hold at least two classes, got only "
            f"{classes.tolist()[0]!r}"
        )
    real = pd.api.types.is_float_dtype(column) and not (column % 1 == 0).all()
    if real or len(classes) > max(MAX_NUMERIC_CLASSES, len(column) // 10):
        raise ValueError(
            f"{file}: the target column {column.name!r} must hold classes, got {len(classes)} "
            f"different values in {len(column)} rows; choose another column, put it into bins, or "
            "predict the number itself: --task regression"
        )
    return numbers.astype(np.int64), tuple(str(name) for name in classes)


def _numbers(file: str, column: pd.Series[float]) -> Float[np.ndarray, "rows"]:
    values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    bad = ~np.isfinite(values)
    if bad.any():
        value = column[bad].tolist()[0]
        what = "no value" if pd.isna(value) else f"{value!r}"
        kind = "a number" if isinstance(value, str) else "a finite number"
        raise ValueError(
            f"{file}: column {column.name!r} must hold {kind} in every row, got {what} in "
            f"{_row(bad)}; fill it, drop it or leave the column out"
        )
    return values


def _row(bad: np.ndarray) -> str:
    """Name the first bad row as an editor shows it, the header being line 1."""
    first = int(bad.argmax())
    return f"row {first + 1} (line {first + 2})"
