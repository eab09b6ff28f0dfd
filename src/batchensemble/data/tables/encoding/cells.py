"""The values of one column, of whatever type, as numbers, as levels or as dates."""

from __future__ import annotations

from collections.abc import Hashable
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchensemble.data.tables.columns import NUMBER_PATTERN, TRUTH, Array, is_missing
from batchensemble.data.tables.dialects import GAPS
from batchensemble.data.tables.encoding.units import in_unit

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Codes = NDArray[np.int64]

TEXT_GAPS = frozenset(("", *GAPS))
NUMERIC = "biuf"  # kinds of NumPy types that hold numbers
LARGEST_EXACT = 2**53  # from here on, floats do not hold all whole numbers
LONGEST_LEVEL = 1_000  # characters of a level that are kept


def factorised(values: Array, where: str, decimal: str = ".") -> tuple[Codes, list[Any]]:
    """Return the position of each value in a list of the distinct ones; -1 for missing values.

    Text is stripped; an empty one, and words such as ``NA``, are missing. Text that is a number or
    a truth value is taken as such, so that it does not matter how a file or a part of it was read.

    Args:
        values: a column ``[rows]``.
        where: the table and the column, for error messages.
        decimal: the decimal sign of text.

    Raises:
        ValueError: a value is a list or another thing that has no place in a cell.

    Example:
        >>> factorised(np.array(["b", " b", None, "NA", "07"], dtype=object), "column 'x'")
        (array([ 0,  0, -1, -1,  1]), ['b', 7.0])
    """
    import pandas as pd  # slow to import

    if values.dtype.kind not in "biufmM":
        values = _with_own_truths(values.astype(object))
    try:
        codes, found = pd.factorize(values)
    except TypeError:
        odd = next((each for each in values.tolist() if not isinstance(each, Hashable)), values)
        raise ValueError(
            f"{where} must hold numbers, words or dates, got a {type(odd).__name__}; give each of "
            "its parts a column, or leave the column out"
        ) from None
    cells: dict[Any, int] = {}
    place = np.full(len(found) + 1, -1, np.int64)
    for number, value in enumerate(np.asarray(found, object)):
        cell = _cell(value, decimal)
        if cell is not None:
            # The type is part of the key: True and 1 are equal in Python.
            place[number] = cells.setdefault((type(cell) is bool, cell), len(cells))
    return place[codes], [cell for _, cell in cells]


def _with_own_truths(values: Array) -> Array:
    """Return objects with truth values as text where there are others: pandas takes True for 1."""
    from pandas.api.types import infer_dtype

    if infer_dtype(values, skipna=True) not in ("mixed", "mixed-integer", "integer-na"):
        return values
    truths = [isinstance(each, (bool, np.bool_)) for each in values]
    found = values.copy()
    found[truths] = [str(each) for each in values[truths]]
    return found


def _cell(value: Any, decimal: str) -> Any:
    """Return a value as a bool, a number, a text or another object; ``None`` if it is missing."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if isinstance(value, str):
        value = value.strip()
        if value in TEXT_GAPS:
            return None
        return bool(TRUTH[value]) if value in TRUTH else _as_written(value, decimal)
    if is_missing(value):
        return None
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, np.generic):
        value = value.item()
    return float(value) if isinstance(value, Decimal) else value


def _as_written(text: str, decimal: str) -> float | int | str:
    """Return a text as the number that it is, or as it is."""
    # 1.5 is no number where 1,5 is one.
    plain = text if decimal == "." else text.replace(".", " ").replace(decimal, ".")
    if not NUMBER_PATTERN.fullmatch(plain):
        return text
    number = float(plain)
    return int(plain) if abs(number) >= LARGEST_EXACT and plain.lstrip("+-").isdigit() else number


def level_of(cell: Any) -> str:
    """Return the name of a cell as a level: whole numbers without a fraction, long texts cut.

    Example:
        >>> level_of(3.0), level_of(True), level_of("b")
        ('3', 'True', 'b')
    """
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < LARGEST_EXACT:
        return str(int(cell))
    return str(cell)[:LONGEST_LEVEL]


def as_number(cell: Any) -> float:
    """Return a cell as a number, NaN if it is none; truth values are 0 and 1.

    Example:
        >>> as_number(1.5), as_number("many"), as_number(True)
        (1.5, nan, 1.0)
    """
    try:
        return float(cell) if isinstance(cell, Real) else np.nan
    except OverflowError:  # a whole number beyond all that a float can hold
        return float(np.inf) if cell > 0 else float(-np.inf)


def numbers_in(
    values: Array, where: str, decimal: str = ".", form: str = ""
) -> tuple[Floats, Flags]:
    """Return a column as numbers, NaN where there are none, and which values are no numbers.

    Args:
        values: a column ``[rows]``.
        where: the table and the column, for error messages.
        decimal: the decimal sign of text.
        form: how numbers with a unit are written, see
            :mod:`~batchensemble.data.tables.encoding.units`.

    Returns:
        The numbers ``[rows]``, and for each whether it is a word, that is, neither a number nor
        missing.

    Example:
        >>> numbers_in(np.array(["1", None, "many"], dtype=object), "column 'x'")
        (array([ 1., nan, nan]), array([False, False,  True]))
    """
    if values.dtype.kind in NUMERIC:
        return values.astype(np.float64), np.zeros(len(values), np.bool_)
    codes, cells = factorised(values, where, decimal)
    found = [as_number(cell) for cell in cells]
    if form:
        pairs = zip(cells, found, strict=True)
        found = [
            in_unit(cell, form, decimal) if isinstance(cell, str) else number
            for cell, number in pairs
        ]
    known = np.array([*found, np.nan])
    words = np.isnan(known)
    words[-1] = False
    return known[codes], words[codes]


def levels_in(values: Array, where: str, decimal: str = ".") -> tuple[Codes, list[str]]:
    """Return a column as positions in a list of its levels; -1 for missing values.

    Example:
        >>> levels_in(np.array([2.0, np.nan, 10.0]), "column 'x'")
        (array([ 0, -1,  1]), ['2', '10'])
    """
    codes, cells = factorised(values, where, decimal)
    levels: dict[str, int] = {}
    place = np.array([levels.setdefault(level_of(cell), len(levels)) for cell in cells] + [-1])
    return place[codes], list(levels)
