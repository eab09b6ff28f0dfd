"""A whole table in memory: the columns of features as they are, and the targets, checked."""

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
from batchensemble.data.tables.columns import NUMBER_PATTERN, TARGET_CURE, Array
from batchensemble.data.tables.dialects import GAPS, Dialect
from batchensemble.data.tables.encoding.encoding import (
    ColumnChoices,
    InputLayout,
    TableEncoding,
    fit_encoding,
)
from batchensemble.data.tables.rows import BLOCK_ROWS, open_rows
from batchensemble.data.tables.targets import missing_targets, warn_of_missing

MIN_ROWS = 10
# A column with more distinct numbers than this, and than a tenth of its rows, holds no classes.
MAX_NUMERIC_CLASSES = 50


@dataclass(frozen=True)
class LabelledTable:
    """Columns of features and targets of a table, in the order of its rows.

    Attributes:
        block: the columns of features, of all rows.
        rows: positions of the rows that have a target.
        labels: of these rows: class numbers (int64) or numbers (float64).
        class_names: the classes, in the order of their numbers; empty for numbers.
        dialect: of the CSV file.
    """

    block: Block
    rows: Int[np.ndarray, "rows"]
    labels: Int[np.ndarray, "rows"] | Float[np.ndarray, "rows"]
    class_names: ClassNames
    dialect: Dialect

    def encoded(
        self,
        path: Path,
        training: Array,
        known: TableEncoding | None,
        choices: ColumnChoices | None,
        layout: InputLayout,
    ) -> tuple[TableEncoding, Float[np.ndarray, "rows inputs"]]:
        """Return the encoding of the features, and the inputs of all rows that have a target.

        Args:
            path: of the table, for error messages.
            training: positions ``[rows]`` of the rows that the encoding is found by.
            known: the encoding, where it is known.
            choices: what the user says about columns.
            layout: of an encoding that is found.

        Raises:
            ValueError: a value cannot be used; the message says where.
        """
        with open_rows(path, dialect=self.dialect):  # errors get their line in a CSV file
            encoding = known or fit_encoding(
                lambda: [self.block.take(training)],
                tuple(self.block.columns),
                path.name,
                choices=choices,
                layout=layout,
            )
            return encoding, encoding.encode(self.block.take(self.rows), path.name)


def read_table(
    path: Path,
    target: str,
    *,
    numbers: bool = False,
    class_names: Sequence[str] = (),
    by_value: bool = False,
    dialect: Dialect | None = None,
) -> LabelledTable:
    """Read the columns of features as they are, and one column of targets.

    Rows without a target are left out, with a warning.

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
        names = feature_names(path.name, rows.names, target, rows.index)
        where = f"{path.name}: the target column {target!r}"
        blocks = rows.blocks(BLOCK_ROWS, [*names, target], [] if numbers else [target])
        whole = joined(list(blocks) or [Block(0, dict.fromkeys([*names, target], np.empty(0)))])
        values = whole.columns[target]
        gaps = rows.dialect.gaps or GAPS
        missing = missing_targets(values, where, gaps, gaps if numbers else None)
        labelled = np.flatnonzero(~missing)
        if whole.rows and not len(labelled):
            raise ValueError(f"{where} has no values; there is nothing to learn")
        check_rows(path.name, len(labelled))
        warn_of_missing(int(missing.sum()), where)
        column = whole.only([target]).take(labelled)
        found = ClassNames(class_names)
        labels: Int[np.ndarray, "rows"] | Float[np.ndarray, "rows"]
        with column.numbered():
            if numbers:
                labels = column.numbers(path.name, target, TARGET_CURE)
                if labels.min() == labels.max():
                    raise ValueError(
                        f"{where} has the value {labels[0]:g} only; there is nothing to learn"
                    )
            else:
                labels, found = _labels(
                    path.name, target, column, found, by_value=by_value, gaps=gaps
                )
    return LabelledTable(whole.only(names), labelled, labels, found, rows.dialect)


def feature_names(
    file: str, names: Sequence[str], target: str, index: Sequence[str] = ()
) -> list[str]:
    """Return all columns of a file but the target and the index of a data frame.

    Raises:
        ValueError: there is no such target, or no other column.
    """
    if target not in names:
        raise ValueError(
            f"{file} has no column {target!r}{nearest(target, names)} "
            f"(columns: {', '.join(names)}){other_separator(names)}"
        )
    found = [name for name in names if name != target and name not in index]
    if not found:
        raise ValueError(
            f"{file} has only the column {target!r}; at least one feature is needed "
            f"beside it{other_separator(names)}"
        )
    return found


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
            f"different values in {rows} rows; choose another column"
            + (
                ", put it into bins, or predict the number itself with --task regression"
                if numbers
                else ", or join rare ones"
            )
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
