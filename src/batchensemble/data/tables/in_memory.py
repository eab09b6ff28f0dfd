"""A whole table in memory: features and targets, checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from batchensemble.core.arguments import nearest
from batchensemble.data.tables.blocks import Block, joined
from batchensemble.data.tables.class_labels import (
    ClassNames,
    class_names_in,
    coded,
    is_plain,
    numbered,
    refuse_gap,
)
from batchensemble.data.tables.columns import NUMBER_PATTERN, TARGET_CURE, check_size
from batchensemble.data.tables.dialects import GAPS, Dialect
from batchensemble.data.tables.rows import BLOCK_ROWS, open_rows

MIN_ROWS = 10
# A column with more distinct numbers than this, and than a tenth of its rows, holds no classes.
MAX_NUMERIC_CLASSES = 50


@dataclass(frozen=True)
class LabelledTable:
    """Features and targets of a table, in the order of its rows.

    Attributes:
        features: ``[rows, columns]``, finite.
        labels: ``[rows]``, class numbers (int64) or numbers (float64).
        feature_names: the columns of ``features``.
        class_names: the classes, in the order of their numbers; empty for numbers.
        dialect: of the CSV file.
    """

    features: Float[np.ndarray, "rows columns"]
    labels: Int[np.ndarray, "rows"] | Float[np.ndarray, "rows"]
    feature_names: tuple[str, ...]
    class_names: ClassNames
    dialect: Dialect


def read_table(
    path: Path,
    target: str,
    *,
    numbers: bool = False,
    class_names: Sequence[str] = (),
    by_value: bool = False,
    dialect: Dialect | None = None,
) -> LabelledTable:
    """Read numeric features and one column of targets.

    Args:
        path: a CSV file with a header, a Parquet or Feather file, or a folder of Parquet files.
        target: the column of targets.
        numbers: whether the targets are numbers to predict, not labels.
        class_names: the classes, in the order of their numbers; by default they are found.
        by_value: see :func:`~batchensemble.data.tables.class_labels.numbers_of`.
        dialect: how a CSV file is written; what it leaves open is detected.

    Raises:
        ValueError: the file is not such a table; the message says where, and what to do.
        OSError: it cannot be read.
    """
    with open_rows(path, dialect=dialect) as rows:
        if target not in rows.names:
            raise ValueError(
                f"{path.name} has no column {target!r}{nearest(target, rows.names)} "
                f"(columns: {', '.join(rows.names)}){other_separator(rows.names)}"
            )
        names = [name for name in rows.names if name != target and name not in rows.index]
        if not names:
            raise ValueError(
                f"{path.name} has only the column {target!r}; at least one feature is needed "
                f"beside it{other_separator(rows.names)}"
            )
        features: list[Float[np.ndarray, "rows columns"]] = []
        parts: list[Block] = []
        for block in rows.blocks(BLOCK_ROWS, [*names, target], [] if numbers else [target]):
            columns = [block.numbers(path.name, each) for each in names]
            for each, values in zip(names, columns, strict=True):
                check_size(values, f"{path.name}: column {each!r}", block.first_row)
            features.append(np.column_stack(columns))
            parts.append(block.only([target]))
        check_rows(path.name, sum(part.rows for part in parts))
        column = joined(parts)
        found = ClassNames(class_names)
        labels: Int[np.ndarray, "rows"] | Float[np.ndarray, "rows"]
        if numbers:
            labels = column.numbers(path.name, target, TARGET_CURE)
        else:
            gaps = rows.dialect.gaps or GAPS
            labels, found = _labels(path.name, target, column, found, by_value=by_value, gaps=gaps)
    return LabelledTable(np.concatenate(features), labels, tuple(names), found, rows.dialect)


def other_separator(names: Sequence[str]) -> str:
    """Return a hint for a table of one column: its separator may be wrong."""
    return "; if a character separates more columns, give --separator" if len(names) == 1 else ""


def check_rows(file: str, rows: int) -> None:
    """Raise ``ValueError`` if a table has too few rows to hold some of them out."""
    if rows < MIN_ROWS:
        raise ValueError(
            f"{file} must have at least {MIN_ROWS} rows to train on some and hold out others, "
            f"got {rows}"
        )


def check_class_count(file: str, target: str, labels: Sequence[str], rows: int) -> None:
    """Check that the distinct labels of a column can be classes.

    Args:
        file: what errors call it.
        target: the column.
        labels: the distinct labels.
        rows: number of rows of the table.

    Raises:
        ValueError: there is only one, one is a fraction, or there are nearly as many as rows.
    """
    if len(labels) < 2:
        only = labels[0] if is_plain(labels[0]) else repr(labels[0])
        raise ValueError(
            f"{file}: the target column {target!r} must hold at least two classes, got only {only}"
        )
    numbers = all(map(NUMBER_PATTERN.fullmatch, labels))
    real = numbers and any(float(label) % 1 != 0 for label in labels)
    if real or len(labels) > max(MAX_NUMERIC_CLASSES, rows // 10):
        raise ValueError(
            f"{file}: the target column {target!r} must hold classes, got {len(labels)} "
            f"different values in {rows} rows; choose another column, put it into bins, or "
            "predict the number itself with --task regression"
        )


def _labels(
    file: str,
    target: str,
    block: Block,
    names: ClassNames,
    *,
    by_value: bool,
    gaps: Sequence[str],
) -> tuple[Int[np.ndarray, "rows"], ClassNames]:
    where = f"{file}: the target column {target!r}"
    codes, texts = coded(block.columns[target], where)
    if not names:
        refuse_gap(codes, texts, where, 0, gaps)
        names = class_names_in(texts, block.declared.get(target, ()))
        check_class_count(file, target, names, block.rows)
    return numbered(codes, texts, names, where, by_value=by_value), names
