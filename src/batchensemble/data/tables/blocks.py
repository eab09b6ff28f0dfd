"""Consecutive rows of a table, as arrays: what every format is read into."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from batchensemble.data.tables.columns import (
    CURE,
    Array,
    Names,
    RowError,
    check_finite,
    merged_order,
)


@dataclass(frozen=True)
class Block:
    """Consecutive rows of a table.

    Attributes:
        rows: how many.
        columns: their values by the name of the column, ``[rows]`` each.
        declared: the order of classes that a column of labels declares, by its name; empty where
            it declares none.
        first_row: number of the first row, from 0: in its file, or in the table as a whole.
        positions: of these rows in the block that they were taken from; ``None``: all of it.
        decimal: the decimal sign of numbers that are text.
    """

    rows: int
    columns: dict[str, Array]
    declared: dict[str, Names] = field(default_factory=dict)
    first_row: int = 0
    decimal: str = "."
    positions: Array | None = None

    def take(self, positions: Array) -> Block:
        """Return some of the rows; errors raised within :meth:`numbered` give their first numbers.

        Args:
            positions: of the rows in this block.
        """
        columns = {name: values[positions] for name, values in self.columns.items()}
        return replace(self, rows=len(positions), columns=columns, positions=positions)

    @contextmanager
    def numbered(self) -> Iterator[None]:
        """Turn the row of an error in rows that were taken into that of the table."""
        try:
            yield
        except RowError as error:
            if self.positions is None:
                raise
            raise self.renumbered(error) from None

    def renumbered(self, error: RowError) -> RowError:
        """Return an error in rows that were taken with the number of the row in the table."""
        if self.positions is None:
            return error
        row = int(self.positions[error.row - self.first_row]) + self.first_row
        return RowError(error.before, row, error.after, error.line)

    def part(self, start: int, stop: int) -> Block:
        """Return the rows from ``start`` up to ``stop``."""
        columns = {name: values[start:stop] for name, values in self.columns.items()}
        rows = min(stop, self.rows) - start
        return replace(self, rows=rows, columns=columns, first_row=self.first_row + start)

    def only(self, names: Sequence[str]) -> Block:
        """Return the same rows with fewer columns."""
        return replace(self, columns={name: self.columns[name] for name in names})

    def numbers(self, file: str, name: str, cure: str = CURE) -> Array:
        """Return a column as finite numbers, float64.

        Args:
            file: what errors call the table.
            name: of the column.
            cure: what errors propose.

        Raises:
            ValueError: a value is missing, infinite or not a number; the message says where.
        """
        where = f"{file}: column {name!r}"
        values = check_finite(self.columns[name], where, self.first_row, self.decimal, cure)
        return values.astype(np.float64)


def joined(blocks: list[Block]) -> Block:
    """Return consecutive blocks, at least one, as one block.

    Raises:
        ValueError: a column declares its classes in different orders.
    """
    filled = [block for block in blocks if block.rows] or blocks[:1]
    if len(filled) == 1:
        return filled[0]
    first = filled[0]
    return replace(
        first,
        rows=sum(block.rows for block in filled),
        columns={
            name: np.concatenate([block.columns[name] for block in filled])
            for name in first.columns
        },
        declared={
            name: merged_order([block.declared[name] for block in filled])
            for name in first.declared
        },
    )
