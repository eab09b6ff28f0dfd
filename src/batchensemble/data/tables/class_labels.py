"""Columns of labels as classes: which texts are the same class, and the order of classes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np

from batchensemble.core.arguments import nearest
from batchensemble.data.tables.columns import (
    NUMBER_PATTERN,
    Array,
    RowError,
    as_text,
    check_finite,
    few,
    is_missing,
)
from batchensemble.data.tables.dialects import GAPS

# A number written plainly: no zeros before it, no plus, no exponent. `007` and `1e5` are texts.
PLAIN = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")

MIDNIGHT = " 00:00:00"


class ClassNames(tuple[str, ...]):
    """Names of classes in the order of their numbers.

    Attributes:
        ordered: whether the order is meaningful: the classes are numbers, or their order was
            declared, by an ordered categorical or by ``class_names=``. Words in alphabetical order
            are not ordered.

    Example:
        >>> ClassNames(["low", "high"], ordered=True).ordered
        True
    """

    ordered: bool

    def __new__(cls, names: Iterable[str] = (), *, ordered: bool = False) -> ClassNames:
        """Return the names; ``ordered`` is taken over from ``names`` where it is not set."""
        found = super().__new__(cls, names)
        found.ordered = ordered or bool(getattr(names, "ordered", False))
        return found

    def __getnewargs_ex__(self) -> tuple[tuple[tuple[str, ...]], dict[str, bool]]:
        """Return the arguments of a copy, which keeps ``ordered`` in other processes."""
        return (tuple(self),), {"ordered": self.ordered}


def class_names_of(names: Sequence[Any]) -> ClassNames:
    """Return class names as text; those of a user are ordered, those of other data may not be.

    Example:
        >>> class_names_of([-1, 1]), class_names_of([-1, 1]).ordered
        (('-1', '1'), True)
    """
    return ClassNames(map(as_text, names), ordered=getattr(names, "ordered", bool(names)))


def is_plain(text: str) -> bool:
    """Return whether text is a number written plainly.

    Example:
        >>> [text for text in ("7", "-3", "1.5", "007", "+7", "1e5", ".5") if is_plain(text)]
        ['7', '-3', '1.5']
    """
    return PLAIN.fullmatch(text) is not None


def are_numbers(texts: Iterable[str]) -> bool:
    """Return whether all labels are numbers written plainly."""
    return all(map(is_plain, texts))


def are_measured(texts: Iterable[str], decimal: str = ".") -> bool:
    """Return whether a column of unknown use holds measurements rather than class labels.

    All values must be numbers; and either all are written plainly, or one has a fraction or an
    exponent: ``1e-05`` is a measurement, ``007`` is a code.

    Example:
        >>> are_measured(["1", "2"]), are_measured(["0.5", "1e-05"]), are_measured(["007", "7"])
        (True, True, False)
    """
    texts = [text.replace(decimal, ".") for text in texts]
    if not all(map(NUMBER_PATTERN.fullmatch, texts)):
        return False
    return are_numbers(texts) or any(set(text) & set(".eE") for text in texts)


def are_ordered(names: Sequence[str]) -> bool:
    """Return whether the order of classes means something, as an ordinal loss needs it.

    It was declared, or the classes are plain numbers sorted by size.

    Args:
        names: the classes in the order of their numbers; none where the targets are numbers.

    Example:
        >>> are_ordered(["1", "2", "10"]), are_ordered(["1", "10", "2"]), are_ordered(["007", "08"])
        (True, False, False)
        >>> are_ordered(ClassNames(["low", "high"], ordered=True))
        True
    """
    if getattr(names, "ordered", False):
        return True
    return are_numbers(names) and list(names) == sorted(names, key=Decimal)


def class_names_in(texts: Iterable[str], declared: Sequence[str] = ()) -> ClassNames:
    """Return the classes of a column of labels, in order.

    Plain numbers are sorted by size, and equal ones (``1`` and ``1.0``) are one class, named by the
    shortest text. Otherwise every text is a class, in alphabetical order.

    Args:
        texts: the distinct labels, without blanks around them.
        declared: the order that the column declares, which may have further classes.

    Example:
        >>> class_names_in({"10", "9"}), class_names_in({"10", "9", "007"})
        (('9', '10'), ('007', '10', '9'))
        >>> class_names_in({"1", "1.0"})
        ('1',)
        >>> class_names_in({"low", "high"}, ["low", "mid", "high"])
        ('low', 'high')
    """
    found = set(texts)
    if declared:
        return ClassNames((name for name in declared if name in found), ordered=True)
    if not are_numbers(found):
        return ClassNames(sorted(found))
    by_size: dict[Decimal, str] = {}
    for text in sorted(found, key=lambda text: (len(text), text)):
        by_size.setdefault(Decimal(text), text)
    return ClassNames((by_size[size] for size in sorted(by_size)), ordered=True)


def gap_among(texts: Iterable[str], gaps: Sequence[str] = GAPS) -> str | None:
    """Return the word that means a missing label, or ``None``.

    Among words, ``NA`` is a class; where all other labels are numbers, it is a missing value.

    Example:
        >>> gap_among(["0", "1", "NA"]), gap_among(["EU", "NA"])
        ('NA', None)
    """
    found = set(texts)
    others = {text for text in found if not NUMBER_PATTERN.fullmatch(text)}
    words = others & set(gaps)
    return min(words) if words and words == others and len(others) < len(found) else None


def numbers_of(texts: Sequence[str], names: Sequence[str], *, by_value: bool = False) -> list[int]:
    """Return the class number of each label; -1 for a label that is not one of the classes.

    A label matches the class of the same text, or, if both are plain numbers, of the same value. A
    date matches itself at midnight, as classes of streamed tables were called by early versions.

    Args:
        texts: labels, without blanks around them.
        names: the classes in the order of their numbers.
        by_value: match numbers by value however they are written (``7`` and ``007``), as early
            versions did; needed for models that they saved.

    Example:
        >>> numbers_of(["1.0", "2", "007"], ["1", "2", "7"])
        [0, 1, -1]
        >>> numbers_of(["2026-01-31"], ["2026-01-31 00:00:00"])
        [0]
    """
    position = {name: number for number, name in enumerate(names)}
    by_size = {Decimal(name): number for name, number in position.items() if is_plain(name)}
    values: dict[float | str, int] = {}
    for name, number in position.items() if by_value else ():
        # Where several classes have the same value, only the text can tell which.
        values[_value(name)] = -1 if _value(name) in values else number
    found = []
    for text in texts:
        number = position.get(text, position.get(text + MIDNIGHT, -1))
        if number < 0 and is_plain(text):
            number = by_size.get(Decimal(text), -1)
        found.append(values.get(_value(text), -1) if number < 0 and by_value else number)
    return found


def is_text(values: Array) -> bool:
    """Return whether a column holds text or dates, by its first value that is not missing."""
    if values.dtype.kind != "O":
        return values.dtype.kind in "UTM"
    first = next((each for each in values if not is_missing(each)), 0)
    return not isinstance(first, (Real, Decimal, np.bool_))


def labels_of(
    values: Array,
    where: str,
    names: Sequence[Any] = (),
    first_row: int = 0,
    *,
    declared: Sequence[str] = (),
) -> tuple[Array, ClassNames]:
    """Return a column of targets as class numbers and classes, or as numbers without classes.

    Numbers stay numbers, unless ``names`` are numbers too or the column declares an order that is
    not that of their size.

    Args:
        values: the column ``[rows]``: numbers, or labels as text.
        where: the table and the column, for error messages.
        names: the classes in the order of their numbers; by default those of the column, see
            :func:`class_names_in`.
        first_row: number of the first of them in the table, from 0.
        declared: the order of classes that the column declares.

    Raises:
        ValueError: a value is missing, or is not one of ``names``.

    Example:
        >>> labels_of(np.array(["dog", "cat", "dog"]), "column 'y'")
        (array([1, 0, 1]), ('cat', 'dog'))
    """
    names, declared = class_names_of(names), tuple(declared)
    by_size = class_names_in(declared) == declared
    if not is_text(values) and not _name_numbers(names) and (by_size or names):
        return check_finite(values, where, first_row), ClassNames()
    codes, texts = coded(values, where, first_row)
    if not names:
        refuse_gap(codes, texts, where, first_row)
        names = class_names_in(texts, declared)
    return numbered(codes, texts, names, where, first_row), names


def numbered(
    codes: Array,
    texts: Sequence[str],
    names: Sequence[str],
    where: str,
    first_row: int = 0,
    *,
    by_value: bool = False,
) -> Array:
    """Return the class number of each row.

    Args:
        codes: the label of each row ``[rows]``, as positions in ``texts``; from :func:`coded`.
        texts: the distinct labels.
        names: the classes in the order of their numbers.
        where: the table and the column, for error messages.
        first_row: number of the first of them in the table, from 0.
        by_value: see :func:`numbers_of`.

    Raises:
        ValueError: a label is none of the classes.
    """
    numbers = np.array(numbers_of(texts, names, by_value=by_value), np.int64)
    found: Array = numbers[codes]
    if (numbers < 0).any():
        row = int((found < 0).argmax())
        strange = texts[codes[row]]
        raise RowError(
            f"{where} must hold one of {few(names)}, got {strange!r}",
            first_row + row,
            nearest(strange, names),
        )
    return found


def coded(values: Any, where: str, first_row: int = 0) -> tuple[Array, list[str]]:
    """Return the position of each value's label ``[rows]`` in a list of the distinct labels.

    Raises:
        ValueError: a value is missing, or is empty.
    """
    import pandas as pd  # which is slow to import, and needed for labels alone

    codes, found = pd.factorize(values if values.dtype.kind != "U" else values.astype(object))
    texts = [as_text(each) for each in pd.Index(found)]  # of dates Timestamps, however they came
    together: dict[str, int] = {}
    places = np.array([together.setdefault(text, len(together)) for text in texts] + [-1], np.int64)
    codes = places[codes]
    empty = codes == together.get("", -1)
    if empty.any() or (codes < 0).any():
        row = first_row + int((empty | (codes < 0)).argmax())
        raise RowError(
            f"{where} must hold a class in every row, got no value", row, "; fill or drop it"
        )
    return codes, list(together)


def refuse_gap(
    codes: Array,
    texts: list[str],
    where: str,
    first_row: int = 0,
    gaps: Sequence[str] = GAPS,
) -> None:
    """Raise ``ValueError`` if a word such as ``NA`` is among labels that are numbers.

    Args:
        codes: the label of each row ``[rows]``, as positions in ``texts``.
        texts: the distinct labels.
        where: the table and the column, for error messages.
        first_row: number of the first of them in the table, from 0.
        gaps: the words that mean a missing value.
    """
    gap = gap_among(texts, gaps)
    if gap is not None:
        raise RowError(
            f"{where} must hold a class in every row, got no value ({gap!r} among numbers)",
            first_row + int((codes == texts.index(gap)).argmax()),
            "; fill or drop it",
        )


def _name_numbers(names: Sequence[str]) -> bool:
    """Return whether classes are named by numbers, or by True and False."""
    return bool(names) and (are_numbers(names) or set(names) <= {"True", "False"})


def _value(text: str) -> float | str:
    """Return the value of a label: equal for ``1``, ``1.0`` and ``01``, and any case of true."""
    if text.lower() in ("true", "false"):
        return text.lower()
    try:
        return float(text)
    except ValueError:
        return text
