"""Tables of pandas, polars and Arrow, a column at a time, as numbers and as classes.

Nothing of these libraries is imported: a table is known by the module of its class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np

from batchensemble.checks import nearest
from batchensemble.targets import without_objects

Array = np.ndarray[Any, np.dtype[Any]]
Names = tuple[str, ...]

# A column of text with more different values than this holds no classes.
MAX_CLASSES = 100_000


@dataclass(frozen=True)
class Table:
    """Columns by name.

    Attributes:
        names: of the columns.
        rows: how many.
        column: returns the values of a column; missing ones as ``None`` or NaN.
    """

    names: Names
    rows: int
    column: Callable[[str], Array]


def library_of(value: Any) -> str:
    """Return the package that the class of a value comes from.

    Example:
        >>> library_of(np.zeros(2))
        'numpy'
    """
    return type(value).__module__.partition(".")[0]


def as_table(value: Any) -> Table | None:
    """Return a data frame or an Arrow table as columns; ``None`` for anything else.

    Raises:
        ValueError: two columns have the same name.
    """
    library = library_of(value)
    if library == "pandas" and hasattr(value, "columns"):
        by_name = {str(name): number for number, name in enumerate(value.columns)}
        if len(by_name) < len(value.columns):
            raise ValueError("the table has two columns of the same name; rename or drop one")
        return Table(tuple(by_name), len(value), lambda n: as_array(value.iloc[:, by_name[n]]))
    if library == "polars" and hasattr(value, "columns") and hasattr(value, "height"):
        return Table(tuple(value.columns), value.height, lambda n: as_array(value[n]))
    if library == "pyarrow" and hasattr(value, "column_names"):
        names = tuple(value.column_names)
        if len(set(names)) < len(names):
            raise ValueError("the table has two columns of the same name; rename or drop one")
        return Table(names, value.num_rows, lambda n: as_array(value.column(n)))
    return None


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


def split(table: Table, target: str | None, where: str) -> tuple[Names, str | None]:
    """Return the columns of features, and the target's.

    Raises:
        ValueError: there is no such column, or none beside it.
    """
    if target is not None and target not in table.names:
        raise ValueError(
            f"{where} has no column {target!r}{nearest(target, table.names)} "
            f"(columns: {', '.join(table.names)})"
        )
    features = tuple(name for name in table.names if name != target)
    if not features:
        raise ValueError(f"{where} must have at least one column of features, got none")
    return features, target


def features_of(table: Table, names: Sequence[str], dtype: Any, where: str) -> Array:
    """Return columns of numbers side by side, ``[rows, columns]``.

    Raises:
        ValueError: a value is missing, infinite or no number; the sentence says where.
    """
    values = np.empty((table.rows, len(names)), dtype)
    for number, name in enumerate(names):
        column = finite(table.column(name), f"{where}: column {name!r}")
        fill(values, number, column, f"{where}: column {name!r}")
    return values


def fill(values: Array, number: int, column: Array, where: str, first_row: int = 0) -> None:
    """Write a column of finite numbers into a table of fewer digits.

    Raises:
        ValueError: a number is too large for them.
    """
    with np.errstate(over="ignore"):
        values[:, number] = column
    if column.dtype.kind == "f" and column.dtype.itemsize > values.dtype.itemsize:
        finite(values[:, number], f"{where}, which has numbers beyond {values.dtype},", first_row)


def finite(values: Array, where: str, first_row: int = 0) -> Array:
    """Return values that are all finite numbers.

    Args:
        values: of one column.
        where: the table and the column, for the sentence.
        first_row: the number of the first of them in its table.

    Raises:
        ValueError: one is not; the sentence names the first.

    Example:
        >>> finite(np.array([1.0, np.nan]), "points.csv: column 'x'")
        Traceback (most recent call last):
        ValueError: points.csv: column 'x' must hold a finite number in every row, got no value in \
row 1 (counted from 0); fill it, drop it or leave the column out
    """
    kind = values.dtype.kind
    if kind in "biu":
        return values
    if kind == "f":
        bad = ~np.isfinite(values)
        first = int(bad.argmax()) if bad.any() else None
    else:
        wrong = (row for row, value in enumerate(values) if not _is_finite(value))
        first = next(wrong, None)
    if first is not None:
        raise ValueError(
            f"{where} must hold a finite number in every row, got {_shown(values[first])} in row "
            f"{first_row + first} (counted from 0); fill it, drop it or leave the column out"
        )
    return values if kind == "f" else values.astype(np.float64)


def refuse_times(values: Any, where: str) -> None:
    """Raise ``ValueError`` for dates, times and spans, whose numbers depend on a file's unit.

    Args:
        values: an array or a column.
        where: the table and the column, for the sentence.

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


def is_text(values: Array) -> bool:
    """Return whether a column holds text: its first value that is not missing does."""
    if values.dtype.kind != "O":
        return values.dtype.kind in "UT"
    return isinstance(next((each for each in values if not _is_missing(each)), None), str)


def labels_of(
    values: Array, where: str, names: Sequence[str] = (), first_row: int = 0
) -> tuple[Array, Names]:
    """Return a column of targets as numbers, and the classes that they stand for.

    Args:
        values: of the column: numbers, or classes as text.
        where: the table and the column, for the sentence.
        names: the classes in the order of their numbers; by default those of the column, sorted.
        first_row: the number of the first value in its table.

    Raises:
        ValueError: a value is missing, or is none of the ``names``.

    Example:
        >>> labels_of(np.array(["dog", "cat", "dog"]), "column 'y'")
        (array([1, 0, 1]), ('cat', 'dog'))
    """
    if not is_text(values):
        return finite(without_objects(values), where, first_row), ()
    missing = np.fromiter(map(_is_missing, values), bool, len(values))
    if missing.any():
        row = first_row + int(missing.argmax())
        raise ValueError(
            f"{where} must hold a class in every row, got no value in row {row} (counted from 0); "
            "fill or drop it"
        )
    found, numbers = np.unique(values.astype(str), return_inverse=True)
    names = tuple(names) or tuple(map(str, found))
    position = {name: number for number, name in enumerate(names)}
    for each in found:
        if str(each) not in position:
            row = first_row + int((values.astype(str) == each).argmax())
            raise ValueError(
                f"{where} must hold one of {_few(names)}, got {str(each)!r} in row {row} (counted "
                f"from 0){nearest(str(each), names)}"
            )
    of_found = np.array([position[str(each)] for each in found], np.int64)
    return of_found[numbers], tuple(names)


def _few(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:20])) + (", ..." if len(names) > 20 else "")


def _is_missing(value: Any) -> bool:
    """Return whether a value is ``None``, NaN or the one of pandas, which is equal to nothing."""
    return value is None or type(value).__name__ == "NAType" or bool(value != value)


def _is_finite(value: Any) -> bool:
    return isinstance(value, (Real, Decimal)) and bool(np.isfinite(float(value)))


def _shown(value: Any) -> str:
    if _is_missing(value):
        return "no value"
    return repr(value.item() if isinstance(value, np.generic) else value)
