"""The column of targets: which rows have none, and whether it holds classes or numbers."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from batchensemble.core.arguments import nearest
from batchensemble.data.tables.class_labels import gap_among
from batchensemble.data.tables.columns import Array, TableWarning
from batchensemble.data.tables.dialects import GAPS, Dialect
from batchensemble.data.tables.encoding.cells import Flags
from batchensemble.data.tables.encoding.dates import formats_of
from batchensemble.data.tables.encoding.summary import ColumnSummary
from batchensemble.data.tables.rows import BLOCK_ROWS, open_rows

Task = Literal["classification", "regression"]
TASKS: tuple[Task, ...] = ("classification", "regression")
MOST_WHOLE_CLASSES = 20  # different whole numbers that are taken as classes
ROWS_A_CLASS = 10
DATES = (
    "{where} holds dates, which cannot be predicted; give numbers or classes, or, where the dates "
    "are classes, --task classification"
)


@dataclass(frozen=True)
class TaskChoice:
    """The task of a target, and why.

    Attributes:
        task: ``"classification"`` or ``"regression"``.
        reason: what the column holds.
    """

    task: Task
    reason: str


def gap_words(texts: Iterable[str], gaps: Sequence[str] = GAPS) -> frozenset[str]:
    """Return the words that mean a missing target, of all different ones in a column.

    A word such as ``NA`` is a missing number among numbers, and a class among words.

    Args:
        texts: all different values of the column.
        gaps: the words that may mean it.

    Example:
        >>> gap_words(["0", "1", "NA"]), gap_words(["EU", "NA"])
        (frozenset({'NA'}), frozenset())
    """
    found, words = set(texts) - {""}, set[str]()
    while (gap := gap_among(found, gaps)) is not None:
        words.add(gap)
        found.remove(gap)
    return frozenset(words)


def missing_targets(
    values: Array, where: str, gaps: Sequence[str] = GAPS, words: Collection[str] | None = None
) -> Flags:
    """Return which rows have no target.

    Args:
        values: the column, or a block of it, ``[rows]``.
        where: the table and the column, for error messages.
        gaps: the words that may mean a missing number.
        words: those that do, see :func:`gap_words`; by default told from these values, which must
            then be the whole column.

    Example:
        >>> missing_targets(np.array(["1", "NA", ""], dtype=object), "y")
        array([False,  True,  True])
        >>> missing_targets(np.array(["EU", "NA", None], dtype=object), "y")
        array([False, False,  True])
    """
    if values.dtype.kind == "f":
        return np.isnan(values)
    if values.dtype.kind in "mM":
        return np.isnat(values)
    if values.dtype.kind in "biu":
        return np.zeros(len(values), np.bool_)
    texts = np.array(
        [each.strip() if isinstance(each, str) else each for each in values.tolist()], object
    )
    import pandas as pd

    missing: Flags = pd.isna(texts) | (texts == "")
    if words is None:
        words = gap_words({str(each) for each in pd.unique(texts[~missing])}, gaps)
    for word in words:
        missing |= texts == word
    return missing


def warn_of_missing(count: int, where: str) -> None:
    """Warn that rows without a target are left out."""
    if count:
        rows, verb = ("1 row has", "is") if count == 1 else (f"{count:,} rows have", "are")
        text = f"{where}: {rows} no target and {verb} left out"
        warnings.warn(text, TableWarning, stacklevel=3)


def task_of(values: Iterable[Array], where: str, decimal: str = ".") -> TaskChoice:
    """Return whether a column of targets holds classes or numbers.

    Words and truth values are classes, and so are few different whole numbers; all other numbers
    are to be predicted as such.

    Args:
        values: blocks of the column.
        where: the table and the column, for error messages.
        decimal: the decimal sign of text.

    Raises:
        ValueError: it has no values, one number only, or dates.

    Example:
        >>> task_of([np.array([1.5, 2.5])], "y").task, task_of([np.array(["a", "b"])], "y").task
        ('regression', 'classification')
    """
    found, first = ColumnSummary(where, categorical=True), 0
    for block in values:
        found.add(block, where, first, decimal)
        first += len(block)
    if not found.filled:
        raise ValueError(f"{where} has no values; there is nothing to learn")
    if found.refused is not None and not found.words:
        raise found.refused
    if found.times is not None:
        raise ValueError(DATES.format(where=where))
    if found.words == found.filled and formats_of(found.some_words):
        raise ValueError(DATES.format(where=where))
    if found.words or found.truths == found.filled:
        return TaskChoice("classification", "words" if found.words else "truth values")
    levels = found.levels or found.filled
    few = levels <= min(MOST_WHOLE_CLASSES, max(2, found.filled // ROWS_A_CLASS))
    if found.whole and few:
        return TaskChoice("classification", f"{levels} different whole numbers")
    if found.low == found.high:
        raise ValueError(f"{where} has the value {found.low:g} only; there is nothing to learn")
    kind = "whole numbers" if found.whole else "numbers"
    return TaskChoice("regression", f"{levels:,} different {kind}")


def task_of_file(path: Path, target: str, dialect: Dialect | None = None) -> TaskChoice:
    """Return whether the target column of a file holds classes or numbers, see :func:`task_of`.

    Raises:
        ValueError: there is no such column, or it has no values.
        OSError: the file cannot be read.
    """
    with open_rows(path, dialect=dialect) as rows:
        if target not in rows.names:
            raise ValueError(
                f"{path.name} has no column {target!r}{nearest(target, rows.names)} "
                f"(columns: {', '.join(rows.names)})"
            )
        blocks = rows.blocks(BLOCK_ROWS, [target])
        values = (block.columns[target] for block in blocks)
        decimal = rows.dialect.decimal or "."
        return task_of(values, f"{path.name}: the target column {target!r}", decimal)
