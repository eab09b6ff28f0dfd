"""Which rows of a table are held out: told by their numbers alone, and remembered as a rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

ROWS_A_TURN = 5  # one of these is held out: a fifth, as of tables in memory
COUNTED = 1 << 20  # rows that are counted at a time

Numbers = np.ndarray[Any, np.dtype[np.int64]]

Rule = Literal["named", "drawn", "hashed", "file"]


@dataclass(frozen=True)
class Split:
    """How rows were held out from a training, and of which table: what its model remembers.

    Attributes:
        rule: ``"named"``, as a named data set holds them out; ``"drawn"``, a fifth drawn at random
            of a table that is read whole; ``"hashed"``, a :class:`HashSplit` of one that is
            streamed; ``"file"``, all rows of a file of their own.
        table: the checksum of what was split, or trained on whole; ``None`` of a named set.
        held_out: the checksum of the file of their own.
    """

    rule: Rule
    table: str | None = None
    held_out: str | None = None

    @classmethod
    def of(cls, written: Mapping[str, Any] | None) -> Split | None:
        """Return what ``dataclasses.asdict`` made of it; ``None`` where nothing was written.

        Raises:
            ValueError: it is none.

        Example:
            >>> Split.of({"rule": "hashed", "table": "ab12", "held_out": None})
            Split(rule='hashed', table='ab12', held_out=None)
        """
        if written is None:
            return None
        try:
            found = cls(**written)
        except TypeError:
            found = None
        if found is None or found.rule not in get_args(Rule):
            raise ValueError(
                f"the split of a model must be a rule of {', '.join(get_args(Rule))} with its "
                f"checksums, got {written!r}; train it again, or with the version that wrote it"
            )
        return found


@dataclass(frozen=True)
class HashSplit:
    """One row of each five that follow each other, or the four others.

    Which of the five is drawn by a hash of where they are (the finaliser of SplitMix64, Steele et
    al. 2014, doi 10.1145/2714064.2660195): a table in which every fifth row is special is split as
    well as any, and the same row is held out each time.

    Attributes:
        held_out: whether it is these rows, or the others.

    Example:
        >>> HashSplit(held_out=True).positions(0, 20).tolist()
        [0, 5, 14, 19]
        >>> len(HashSplit(held_out=False).positions(0, 20))
        16
    """

    held_out: bool

    def positions(self, start: int, rows: int) -> Numbers:
        """Return which of some rows belong, counted from the first of them.

        Args:
            start: the number of the first row in the table.
            rows: how many.
        """
        numbers = np.arange(start, start + rows, dtype=np.int64)
        turns, places = np.divmod(numbers, ROWS_A_TURN)
        drawn = _mixed(turns.astype(np.uint64)) % np.uint64(ROWS_A_TURN)
        found = (places.astype(np.uint64) == drawn) == self.held_out
        return np.flatnonzero(found).astype(np.int64)

    def count(self, start: int, rows: int) -> int:
        """Return how many of some rows belong."""
        return sum(len(self.positions(*part)) for part in _parts(start, rows))


def _parts(start: int, rows: int) -> Iterator[tuple[int, int]]:
    for first in range(start, start + rows, COUNTED):
        yield first, min(COUNTED, start + rows - first)


def _mixed(values: np.ndarray[Any, np.dtype[np.uint64]]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Return numbers that look drawn at random; arrays wrap around without a warning."""
    values = (values + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
