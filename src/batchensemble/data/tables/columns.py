"""Tables of pandas, polars and Arrow, column by column, as arrays.

A table is recognised by the module of its class; polars and Arrow are not imported.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np

from batchensemble.core.arguments import nearest
from batchensemble.data.tables.dialects import WITH_COMMA

Array = np.ndarray[Any, np.dtype[Any]]
Names = tuple[str, ...]

# A column of text with more different values than this holds no classes.
MAX_CLASSES = 100_000
LARGEST_FEATURE = (
    1e100  # in a column that is standardised, so that the sum of squares does not overflow
)
# Text that is a number, but for a decimal comma; Python's float takes more, such as 1_000 and ١٢.
NUMBER_PATTERN = re.compile(
    r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|inf(?:inity)?)", re.IGNORECASE
)
CURE = "fill it, drop it or leave the column out"
TARGET_CURE = "fill it or drop the row; if these are classes, leave the loss of numbers out"
TRUTH = {"True": 1.0, "TRUE": 1.0, "true": 1.0, "False": 0.0, "FALSE": 0.0, "false": 0.0}


class TableWarning(UserWarning):
    """A table holds something that is left out, or that the training data did not hold."""


class RowError(ValueError):
    """An error in one row of a table. In the message, rows and lines are counted from 1.

    Args:
        before: the message up to the row.
        row: counted from 0.
        after: the rest of the message.
        line: of the file, counted from 1.

    Example:
        >>> raise RowError("y must be finite, got nan", 6, "; drop it").on_line(8)
        Traceback (most recent call last):
        batchensemble.data.tables.columns.RowError: y must be finite, got nan in row 7 \
(line 8); drop it
    """

    def __init__(self, before: str, row: int, after: str, line: int | None = None) -> None:
        self.before, self.row, self.after, self.line = before, row, after, line
        place = f"row {row + 1}" + ("" if line is None else f" (line {line})")
        super().__init__(f"{before} in {place}{after}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Return the arguments of a copy, so that it can be sent to another process."""
        return RowError, (self.before, self.row, self.after, self.line)

    def on_line(self, line: int | None) -> RowError:
        """Return the same error with the line of the file."""
        return RowError(self.before, self.row, self.after, line)


@dataclass(frozen=True)
class ColumnarTable:
    """Columns by name.

    Attributes:
        names: of the columns.
        rows: how many.
        column: returns the values of a column, missing ones as ``None`` or NaN.
        declared: returns the order of classes that a column declares; empty if it declares none.
    """

    names: Names
    rows: int
    column: Callable[[str], Array]
    declared: Callable[[str], Names] = lambda name: ()


def library_of(value: Any) -> str:
    """Return the package that defines the class of a value.

    Example:
        >>> library_of(np.zeros(2))
        'numpy'
    """
    return type(value).__module__.partition(".")[0]


def as_table(value: Any) -> ColumnarTable | None:
    """Return a data frame or an Arrow table as columns; ``None`` for anything else.

    Raises:
        TypeError: it is a lazy frame of polars, which holds no rows.
        ValueError: two columns have the same name.
    """
    library = library_of(value)
    if library == "pandas" and hasattr(value, "columns"):
        by_name = {str(name): number for number, name in enumerate(value.columns)}
        _check_different(tuple(map(str, value.columns)))
        return _table(tuple(by_name), len(value), lambda name: value.iloc[:, by_name[name]])
    if library == "polars" and hasattr(value, "collect"):
        raise TypeError("a LazyFrame of polars holds no rows yet; give frame.collect()")
    if library == "polars" and hasattr(value, "columns") and hasattr(value, "height"):
        return _table(tuple(value.columns), value.height, value.__getitem__)
    if library == "pyarrow" and hasattr(value, "column_names"):
        names = tuple(value.column_names)
        _check_different(names)
        return _table(names, value.num_rows, value.column)
    return None


def _check_different(names: Names) -> None:
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(
            f"the table has two columns of the same name, {twice!r}; rename or drop one"
        )


def _table(names: Names, rows: int, get: Callable[[str], Any]) -> ColumnarTable:
    return ColumnarTable(
        names, rows, lambda name: as_array(get(name)), lambda name: declared_by(get(name))
    )


def as_text(value: Any) -> str:
    """Return a label as text, without blanks around it.

    Example:
        >>> as_text(" no "), as_text(7), as_text(1.0)
        ('no', '7', '1.0')
    """
    return value.strip() if isinstance(value, str) else str(value)


def declared_by(column: Any) -> Names:
    """Return the order of classes that a column of pandas, polars or Arrow declares.

    Ordered categoricals and an ``Enum`` of polars declare one; the categories of an unordered
    categorical are in no meaningful order.

    Example:
        >>> import pandas as pd
        >>> declared_by(pd.Series(pd.Categorical(["low"], ["low", "high"], ordered=True)))
        ('low', 'high')
    """
    kind: Any = getattr(column, "dtype", None)
    found: Any = ()
    if library_of(column) == "pyarrow":
        if getattr(column.type, "ordered", False):
            chunks = getattr(column, "chunks", [column])
            found = merged_order([_texts(chunk.dictionary.to_pylist()) for chunk in chunks])
    elif type(kind).__name__ == "Enum" or getattr(kind, "ordered", None) is True:
        found = list(kind.categories)
    return _texts(found)


def merged_order(orders: Sequence[Names]) -> Names:
    """Return the order of classes that the parts of a column declare together.

    Raises:
        ValueError: they declare different orders.
    """
    longest = max(orders, key=len, default=())
    for order in orders:
        if order != tuple(name for name in longest if name in set(order)):
            raise ValueError(
                f"the classes must have one order in all parts of a column, got {few(longest)} "
                f"and {few(order)}; declare the same categories everywhere"
            )
    return longest


def _texts(values: Sequence[Any]) -> Names:
    return tuple(dict.fromkeys(map(as_text, values)))


def as_array(column: Any) -> Array:
    """Return the values of one column of pandas, polars or Arrow, or an array as it is."""
    if library_of(column) != "pyarrow":
        values: Array = column.to_numpy() if hasattr(column, "to_numpy") else np.asarray(column)
        return values
    if hasattr(column, "combine_chunks"):  # a chunked one
        chunks = [as_array(chunk) for chunk in column.chunks]
        return np.concatenate(chunks) if chunks else np.empty(0)
    found: Array = column.to_numpy(zero_copy_only=False)
    return found


def feature_columns(table: ColumnarTable, target: str | None, where: str) -> Names:
    """Return all columns but the target.

    Raises:
        ValueError: there is no such target, or no other column.
    """
    if target is not None and target not in table.names:
        raise ValueError(
            f"{where} has no column {target!r}{nearest(target, table.names)} "
            f"(columns: {', '.join(table.names)})"
        )
    features = tuple(name for name in table.names if name != target)
    if not features:
        raise ValueError(f"{where} must have at least one column of features, got none")
    return features


def features_of(table: ColumnarTable, names: Sequence[str], dtype: Any, where: str) -> Array:
    """Return columns of numbers as an array ``[rows, columns]``.

    Args:
        table: the table.
        names: of the columns, in the order of the result.
        dtype: of the result.
        where: the table, for error messages.

    Raises:
        ValueError: a value is missing, infinite or no number; the message says where.
    """
    values = np.empty((table.rows, len(names)), dtype)
    for number, name in enumerate(names):
        column = check_finite(table.column(name), f"{where}: column {name!r}")
        fill_column(values, number, column, f"{where}: column {name!r}")
    return values


def fill_column(values: Array, number: int, column: Array, where: str, first_row: int = 0) -> None:
    """Write a column of finite numbers into an array of lower precision.

    Args:
        values: the array ``[rows, columns]`` to write into.
        number: of the column in it.
        column: the numbers ``[rows]``.
        where: the file and the column, for error messages.
        first_row: number of the first of them in the file, from 0.

    Raises:
        ValueError: a number is too large for the type of ``values``.
    """
    with np.errstate(over="ignore"):
        values[:, number] = column
    if column.dtype.kind == "f" and column.dtype.itemsize > values.dtype.itemsize:
        beyond = ~np.isfinite(values[:, number])
        if beyond.any():
            first = int(beyond.argmax())
            limit = f"{np.finfo(values.dtype).max:.2g} ({values.dtype})"
            raise RowError(
                f"{where} must hold numbers up to {limit}, got {column[first]:.6g}",
                first_row + first,
                "; give it in another unit, or leave the column out",
            )


def check_finite(
    values: Array, where: str, first_row: int = 0, decimal: str = ".", cure: str = CURE
) -> Array:
    """Return a column as finite numbers.

    Text that is a number is converted, with or without blanks around it; ``True`` and ``False`` are
    1 and 0.

    Args:
        values: the column ``[rows]``.
        where: the table and the column, for error messages.
        first_row: number of the first of them in the table, from 0.
        decimal: the decimal sign of text.
        cure: what to do, for error messages.

    Raises:
        ValueError: one is not; the message names the first.

    Example:
        >>> check_finite(np.array([1.0, np.nan]), "points.csv: column 'x'")
        Traceback (most recent call last):
        batchensemble.data.tables.columns.RowError: points.csv: column 'x' must hold a finite \
number in every row, got no value in row 2; fill it, drop it or leave the column out
    """
    refuse_times(values, where)
    kind = values.dtype.kind
    if kind in "biu":
        return values
    found = values if kind == "f" else np.array([_number(each, decimal) for each in values], float)
    bad = ~np.isfinite(found)
    if bad.any():
        first = int(bad.argmax())
        value = values[first]
        what = "a number" if isinstance(value, str) else "a finite number"
        if isinstance(value, str) and WITH_COMMA.fullmatch(value.strip()):
            cure += "; where the comma is the decimal sign, give --decimal ,"
        raise RowError(
            f"{where} must hold {what} in every row, got {_shown(value)}",
            first_row + first,
            f"; {cure}",
        )
    return found


def refuse_times(values: Any, where: str) -> None:
    """Raise ``ValueError`` for dates, times and durations: as numbers, they depend on their unit.

    Args:
        values: an array or a column.
        where: the table and the column, for error messages.

    Example:
        >>> refuse_times(np.array(["2026-11-30"], "datetime64[D]"), "visits: column 'day'")
        Traceback (most recent call last):
        ValueError: visits: column 'day' must hold numbers, got datetime64[D]; give times as \
numbers in a unit of your choice, such as days since the first
    """
    if getattr(values.dtype, "kind", "") in "mM":
        raise ValueError(
            f"{where} must hold numbers, got {values.dtype}; give times as numbers in a unit of "
            "your choice, such as days since the first"
        )


def _number(value: Any, decimal: str) -> float:
    """Return a value as a number, NaN if it is not one."""
    if isinstance(value, str):
        text = value.strip()
        if text in TRUTH:
            return TRUTH[text]
        if decimal != ".":
            # 1.5 is no number where 1,5 is one.
            text = text.replace(".", " ").replace(decimal, ".")
        return float(text) if NUMBER_PATTERN.fullmatch(text) else np.nan
    return float(value) if isinstance(value, (Real, Decimal, np.bool_)) else np.nan


def few(names: Sequence[str]) -> str:
    """Return names for an error message, at most twenty."""
    return ", ".join(map(repr, names[:20])) + (", ..." if len(names) > 20 else "")


def is_missing(value: Any) -> bool:
    """Return whether a value is ``None``, NaN, or the missing value of pandas."""
    return value is None or type(value).__name__ == "NAType" or bool(value != value)


def _shown(value: Any) -> str:
    if is_missing(value) or (isinstance(value, str) and not value.strip()):
        return "no value"
    return repr(value.item() if isinstance(value, np.generic) else value)
