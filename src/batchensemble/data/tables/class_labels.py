"""What stands in a column of labels, as classes: which texts are one class, and their order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np

from batchensemble.core.arguments import nearest
from batchensemble.data.tables.columns import (
    NUMBER,
    Array,
    RowError,
    as_text,
    few,
    finite,
    is_missing,
)
from batchensemble.data.tables.dialects import GAPS

# A number written plainly: no zeros before it, no plus, no exponent. `007` and `1e5` are texts.
PLAIN = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")


class ClassNames(tuple[str, ...]):
    """Names of classes in the order of their numbers.

    Attributes:
        ordered: whether that order means something: the classes are numbers, or it was declared by
            an ordered categorical or given with ``class_names=``. Words that are sorted by the
            alphabet are not ordered.

    Example:
        >>> ClassNames(["low", "high"], ordered=True).ordered
        True
    """

    ordered: bool

    def __new__(cls, names: Iterable[str] = (), *, ordered: bool = False) -> ClassNames:
        """Return the names; without ``ordered`` they are as ordered as those given are."""
        found = super().__new__(cls, names)
        found.ordered = ordered or bool(getattr(names, "ordered", False))
        return found

    def __getnewargs_ex__(self) -> tuple[tuple[tuple[str, ...]], dict[str, bool]]:
        """Return what makes a copy, so that one in another process is as ordered."""
        return (tuple(self),), {"ordered": self.ordered}


def given_names(names: Sequence[Any]) -> ClassNames:
    """Return names that a user gives, whose order counts, or those of other data.

    Example:
        >>> given_names([-1, 1]), given_names([-1, 1]).ordered
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
    """Return whether a column whose use is not known holds numbers, not classes.

    So it does where all are numbers, and either all are written plainly, or one has a fraction or
    an exponent: ``1e-05`` stands among measured values, ``007`` among codes.

    Example:
        >>> are_measured(["1", "2"]), are_measured(["0.5", "1e-05"]), are_measured(["007", "7"])
        (True, True, False)
    """
    texts = [text.replace(decimal, ".") for text in texts]
    if not all(map(NUMBER.fullmatch, texts)):
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


def names_of(texts: Iterable[str], declared: Sequence[str] = ()) -> ClassNames:
    """Return the classes that labels are of, in their order.

    Where all are numbers written plainly they are sorted by size, and equal ones (``1`` and
    ``1.0``) are one class, called by the shortest; otherwise each text is a class of its own.

    Args:
        texts: each label once, without blanks around it.
        declared: the order that the column declares, of these and maybe others.

    Example:
        >>> names_of({"10", "9"}), names_of({"10", "9", "007"}), names_of({"1", "1.0"})
        (('9', '10'), ('007', '10', '9'), ('1',))
        >>> names_of({"low", "high"}, ["low", "mid", "high"])
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
    """Return the word that stands for no label where all others are numbers; ``None``: none does.

    A word such as ``NA`` is a class among words. Among numbers it is a gap.

    Example:
        >>> gap_among(["0", "1", "NA"]), gap_among(["EU", "NA"])
        ('NA', None)
    """
    found = set(texts)
    others = {text for text in found if not NUMBER.fullmatch(text)}
    words = others & set(gaps)
    return min(words) if words and words == others and len(others) < len(found) else None


def numbers_of(texts: Sequence[str], names: Sequence[str], *, by_value: bool = False) -> list[int]:
    """Return the class number of each label, -1 where it is none of the classes.

    A label is the class of its text, or the one of the same number, both written plainly.

    Args:
        texts: labels, without blanks around them.
        names: the classes in the order of their numbers.
        by_value: match numbers however they are written, as models did that were saved before
            labels were kept as they stand.

    Example:
        >>> numbers_of(["1.0", "2", "007"], ["1", "2", "7"])
        [0, 1, -1]
    """
    position = {name: number for number, name in enumerate(names)}
    by_size = {Decimal(name): number for name, number in position.items() if is_plain(name)}
    values: dict[float | str, int] = {}
    for name, number in position.items() if by_value else ():
        # Of several the text itself must say which.
        values[_value(name)] = -1 if _value(name) in values else number
    found = []
    for text in texts:
        number = position.get(text, -1)
        if number < 0 and is_plain(text):
            number = by_size.get(Decimal(text), -1)
        found.append(values.get(_value(text), -1) if number < 0 and by_value else number)
    return found


def is_text(values: Array) -> bool:
    """Return whether a column holds text, or dates, which are called as they are written.

    Of objects the first value that is not missing tells.
    """
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
    """Return a column of targets as numbers, and the classes that they stand for.

    Numbers stay as they are, unless ``names`` are numbers too, or a column declares another order
    than that of their size.

    Args:
        values: of the column: numbers, or classes as text.
        where: the table and the column, for the sentence.
        names: the classes in the order of their numbers; by default those of the column, see
            :func:`names_of`.
        first_row: how many rows of its table are before them.
        declared: the order that the column declares.

    Raises:
        ValueError: a value is missing, or is none of the ``names``.

    Example:
        >>> labels_of(np.array(["dog", "cat", "dog"]), "column 'y'")
        (array([1, 0, 1]), ('cat', 'dog'))
    """
    names, declared = given_names(names), tuple(declared)
    by_size = names_of(declared) == declared
    if not is_text(values) and not _name_numbers(names) and (by_size or names):
        return finite(values, where, first_row), ClassNames()
    codes, texts = coded(values, where, first_row)
    if not names:
        refuse_gap(codes, texts, where, first_row)
        names = names_of(texts, declared)
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
        codes: which label each row has, from :func:`coded`.
        texts: the labels.
        names: the classes in the order of their numbers.
        where: the table and the column, for the sentence.
        first_row: how many rows of the table are before them.
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
    """Return which label each value of a column is, and the different labels as text.

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
    """Raise ``ValueError`` where a word such as ``NA`` stands among labels that are numbers.

    Args:
        codes: which label each row has.
        texts: the labels.
        where: the table and the column, for the sentence.
        first_row: how many rows of the table are before them.
        gaps: the words.
    """
    gap = gap_among(texts, gaps)
    if gap is not None:
        raise RowError(
            f"{where} must hold a class in every row, got no value ({gap!r} among numbers)",
            first_row + int((codes == texts.index(gap)).argmax()),
            "; fill or drop it",
        )


def _name_numbers(names: Sequence[str]) -> bool:
    """Return whether classes are called by numbers, or true and false."""
    return bool(names) and (are_numbers(names) or set(names) <= {"True", "False"})


def _value(text: str) -> float | str:
    """Return a label so that ``1``, ``1.0`` and ``01`` are one, as ``true`` and ``True`` are."""
    if text.lower() in ("true", "false"):
        return text.lower()
    try:
        return float(text)
    except ValueError:
        return text
