"""What is found out about a column in one pass over a table, block by block, in bounded memory."""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Mapping

import numpy as np

from batchensemble.data.tables.blocks import Block
from batchensemble.data.tables.columns import LARGEST_FEATURE, Array, RowError
from batchensemble.data.tables.encoding.cells import (
    NUMERIC,
    Floats,
    as_number,
    factorised,
    level_of,
)

SAMPLE = 20_000  # numbers of a column that are kept at least, evenly spread over the rows
MOST_COUNTED_LEVELS = 200_000  # different values of a column that are counted
MOST_COUNTED_NUMBERS = 1_000  # different numbers that are counted where nobody asks for categories
MOST_WORDS = 1_000  # different words that are kept
MOST_SEEN = 1 << 22  # numbers of a column whose name is that of an identifier that are compared
# What columns that only name the row are called: `id`, `PassengerId`, `customer_id`, `rownames`.
NAMES_ROWS = re.compile(
    r"(?i:(?:.*[_ .-])?(?:id|uuid|guid|index|rownames?|rowid|row|nr|no))|.*[a-z]I[dD]"
    r"|Unnamed: \d+|"
)


class ColumnSummary:
    """What is found out about one column.

    Args:
        name: of the column.
        categorical: whether the column is to be a category, so that all its values are counted.

    Attributes:
        rows: number of rows.
        gaps: rows without a value.
        numbers: rows with a finite number.
        words: rows with something else.
        truths: rows with ``True`` or ``False``.
        times: ``"datetime"`` or ``"duration"`` where the type of the column says so.
        counts: rows by level; ``None`` where there are too many.
        low, high: the smallest and the largest number.
        running: whether each number is the one before plus 1.
        whole: whether all numbers are whole.
        mean: of the numbers.
        refused: the error of the first number that is too large; categories may hold it.
        decimal: the decimal sign of text.
    """

    def __init__(self, name: str, *, categorical: bool = False) -> None:
        self.name = name
        self.limit = MOST_COUNTED_LEVELS if categorical else MOST_COUNTED_NUMBERS
        self.rows = self.gaps = self.numbers = self.words = self.truths = 0
        self.times: str | None = None
        self.counts: Counter[str] | None = Counter()
        self.low, self.high = np.inf, -np.inf
        self.running, self.whole = True, True
        self.mean = self._squares = 0.0
        self.refused: RowError | None = None
        self.decimal = "."
        self._words: dict[str, None] = {}
        self._named = NAMES_ROWS.fullmatch(name) is not None
        self._seen: list[Floats] = []
        self._last: float | None = None
        self._sample: list[Floats] = []
        self._step = 1
        self._offset = 0

    def add_block(self, block: Block, where: str) -> None:
        """Take in a block of a table, see :meth:`add`."""
        refused, column = self.refused, f"{where}: column {self.name!r}"
        with block.numbered():
            self.add(block.columns[self.name], column, block.first_row, block.decimal)
        if refused is None and self.refused is not None:
            self.refused = block.renumbered(self.refused)

    def add(self, values: Array, where: str, first_row: int, decimal: str) -> None:
        """Take in a block of the column.

        Args:
            values: the block ``[rows]``.
            where: the table and the column, for error messages.
            first_row: number of its first row in the table, from 0.
            decimal: the decimal sign of text.

        Raises:
            ValueError: a value has no place in a cell.
        """
        self.rows += len(values)
        self.decimal = decimal
        if values.dtype.kind in "mM":
            self.times = "datetime" if values.dtype.kind == "M" else "duration"
            self.gaps += int(np.isnat(values).sum())
            return
        if values.dtype.kind == "b":
            self.truths += len(values)
        if values.dtype.kind in NUMERIC:
            numbers = values.astype(np.float64)
            self.gaps += int(np.isnan(numbers).sum())
            if values.dtype.kind == "b":
                self._count(*np.unique(values, return_counts=True))
            elif self.counts is not None:
                self._count(*np.unique(numbers[~np.isnan(numbers)], return_counts=True))
        else:
            numbers = self._take_cells(values, where, decimal)
        self._take_numbers(numbers, where, first_row)

    def _take_cells(self, values: Array, where: str, decimal: str) -> Floats:
        """Take in values of any type, and return them as numbers, NaN where they are none."""
        codes, cells = factorised(values, where, decimal)
        counts = np.bincount(codes + 1, minlength=len(cells) + 1)
        self.gaps += int(counts[0])
        known = np.array([as_number(cell) for cell in cells] + [np.nan])
        for cell, number, count in zip(cells, known, counts[1:], strict=False):
            if isinstance(cell, datetime.timedelta):
                self.times = "duration"
            elif isinstance(cell, datetime.date):
                self.times = "datetime"
            elif isinstance(cell, bool):
                self.truths += int(count)
            if np.isnan(number):
                self.words += int(count)
                if len(self._words) < MOST_WORDS:
                    self._words[str(cell)] = None
        if self.words:
            self.limit = MOST_COUNTED_LEVELS
        self._count(np.array(cells, object), counts[1:])
        found: Floats = known[codes]
        return found

    def _count(self, values: Array, counts: Array) -> None:
        if self.counts is None or len(values) > self.limit:
            self.counts = None
            return
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            self.counts[level_of(value)] += count
        if len(self.counts) > self.limit:
            self.counts = None

    def _take_numbers(self, numbers: Floats, where: str, first_row: int) -> None:
        large = np.abs(numbers) > LARGEST_FEATURE
        if large.any():
            self._refuse(numbers, int(large.argmax()), where, first_row)
        known = numbers[~(large | np.isnan(numbers))]
        if not len(known):
            self.running = False
            return
        # Chan, Golub and LeVeque 1983; for each column, scikit-learn's scaler takes a millisecond.
        mean, before = float(known.mean()), self.numbers
        self.numbers += len(known)
        step = mean - self.mean
        self.mean += step * len(known) / self.numbers
        self._squares += float(np.square(known - mean).sum())
        self._squares += step**2 * before * len(known) / self.numbers
        self.low, self.high = min(self.low, known.min()), max(self.high, known.max())
        if self.whole:
            self.whole = bool((known == np.floor(known)).all())
        if self.running:
            last = known[0] - 1 if self._last is None else self._last
            steps = np.diff(known, prepend=last)
            self.running = self.whole and len(known) == len(numbers) and bool((steps == 1).all())
            self._last = float(known[-1])
        if self._named and self.whole and self.numbers <= MOST_SEEN:
            self._seen.append(known)
        self._keep(known)

    def _refuse(self, numbers: Floats, row: int, where: str, first_row: int) -> None:
        """Keep the error of a number that is infinite, or too large to be squared."""
        expected = "finite numbers"
        cure = "replace it by a gap, or leave the column out"
        if np.isfinite(numbers[row]):
            expected = f"numbers up to {LARGEST_FEATURE:.0e}"
            cure = "give it in another unit, or leave the column out"
        if self.refused is None:
            self.refused = RowError(
                f"{where} must hold {expected}, got {numbers[row]:.6g}",
                first_row + row,
                f"; {cure}",
            )

    def _keep(self, known: Floats) -> None:
        """Keep each ``step``-th number; the step doubles whenever there are too many."""
        self._sample.append(known[self._offset :: self._step])
        taken = len(self._sample[-1])
        self._offset += taken * self._step - len(known)
        while sum(map(len, self._sample)) > 2 * SAMPLE:
            everything = np.concatenate(self._sample)
            self._offset += self._step * (len(everything) % 2)
            self._sample, self._step = [everything[::2]], 2 * self._step

    @property
    def sample(self) -> Floats:
        """Return numbers of the column, evenly spread over the rows, sorted."""
        return np.sort(np.concatenate(self._sample)) if self._sample else np.empty(0)

    @property
    def some_words(self) -> list[str]:
        """Return different words, at most :data:`MOST_WORDS`."""
        return list(self._words)

    @property
    def counted_words(self) -> dict[str, int]:
        """Return how often words occur; once each, where there are too many levels to count."""
        counts: Mapping[str, int] = self.counts or {}
        return {word: counts.get(word, 1) for word in self._words}

    @property
    def distinct(self) -> bool:
        """Return whether whole numbers in a column with the name of an identifier all differ."""
        if not self._named or not self.whole or not self._seen:
            return False
        seen = np.concatenate(self._seen)
        return len(np.unique(seen)) == len(seen)

    @property
    def filled(self) -> int:
        """Number of rows with a value."""
        return self.rows - self.gaps

    @property
    def levels(self) -> int | None:
        """Number of different values; ``None`` where there are too many to count."""
        return None if self.counts is None else len(self.counts)

    @property
    def mean_and_scale(self) -> tuple[float, float]:
        """Mean and standard deviation of the numbers; the latter is 1 where all are equal."""
        # As scikit-learn's scaler does: what differs by rounding only is equal.
        variance, rounding = self._squares / self.numbers, self.numbers * np.finfo(np.float64).eps
        equal = variance <= rounding * variance + (rounding * self.mean) ** 2
        return self.mean, 1.0 if equal else float(np.sqrt(variance))
