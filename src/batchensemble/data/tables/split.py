"""Which rows of a table are held out for testing: every rule there is, and the record of one.

A saved model remembers the rule (:class:`Split`), so the same rows are held out again, bit by bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np

from batchensemble.data.tables.columns import Array

TEST_FRACTION = 0.2
SPLIT_SEED = 42  # of random splits
GROUP = round(1 / TEST_FRACTION)  # consecutive rows, one of which a HashSplit holds out
COUNTED = 1 << 20  # rows that are counted at a time

Part = Literal["training", "stopping", "calibration", "scoring"]
# Of the rows of a table. What is measured on one part says nothing about it once it was used.
SHARES: dict[Part, float] = {
    "training": 0.6, "stopping": 0.1, "calibration": 0.15, "scoring": 0.15
}  # fmt: skip
PARTED = 20  # consecutive rows of a streamed table, of which each part gets its share

SplitParts = tuple[Array, Array, Array, Array]  # train_X, test_X, train_y, test_y

Rule = Literal["named", "drawn", "hashed", "file"]


@dataclass(frozen=True)
class Split:
    """How the held-out rows of a training were chosen, and from which table.

    Attributes:
        rule: ``"named"``: the split of a named data set; ``"drawn"``: :func:`random_split` of a
            table in memory; ``"hashed"``: :class:`HashSplit` of a streamed table; ``"file"``: a
            separate file of held-out rows.
        table: checksum of the table that was split, or that was trained on whole; ``None`` for a
            named data set.
        held_out: checksum of the separate file.
        parts: whether the other rows are parted in three: to train on, to stop the training by and
            to calibrate with, see :data:`SHARES`; otherwise all of them are trained on.
    """

    rule: Rule
    table: str | None = None
    held_out: str | None = None
    parts: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the split as JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, written: Mapping[str, Any] | None) -> Split | None:
        """Return the split that :meth:`to_dict` wrote; ``None`` for ``None``.

        Raises:
            ValueError: it is not a split, or has an unknown rule.

        Example:
            >>> Split.from_dict({"rule": "hashed", "table": "ab12", "held_out": None})
            Split(rule='hashed', table='ab12', held_out=None, parts=False)
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


def last_rows_split(X: Array, y: Array) -> SplitParts:
    """Hold out the last fifth of the rows, in the order of the table.

    Args:
        X: features ``[rows, columns]``.
        y: targets ``[rows]``.

    Returns:
        ``train_X, test_X, train_y, test_y``, as scikit-learn's ``train_test_split`` returns them.

    Example:
        >>> last_rows_split(np.arange(10)[:, None], np.arange(10))[3].tolist()
        [8, 9]
    """
    train = round(len(X) * (1 - TEST_FRACTION))
    return X[:train], X[train:], y[:train], y[train:]


def random_split(X: Array, y: Array, *, classes: int = 0) -> SplitParts:
    """Hold out a random fifth of the rows, the same one each time.

    Classes keep their proportions (stratified) where each has two rows or more.

    Args:
        X: features ``[rows, columns]``.
        y: targets ``[rows]``: class numbers, or numbers.
        classes: the number of classes; 0 where numbers are predicted.

    Returns:
        ``train_X, test_X, train_y, test_y``.

    Example:
        >>> y = np.repeat([0, 1], [40, 10])
        >>> np.bincount(random_split(np.zeros((50, 1)), y, classes=2)[3]).tolist()
        [8, 2]
    """
    from sklearn.model_selection import train_test_split  # slow to import

    test = round(len(y) * TEST_FRACTION)
    stratified = classes and np.bincount(y).min() >= 2 and test >= classes
    parts = train_test_split(
        X, y, test_size=test, random_state=SPLIT_SEED, stratify=y if stratified else None
    )
    return tuple(parts)


def hold_out(
    rows: int, share: float, *, seed: int, classes: Array | None = None
) -> tuple[Array, Array]:
    """Return which rows to train on and which to hold out, drawn at random, both in order.

    With classes the held-out rows have them in the proportions of all rows, as nearly as whole
    rows can; the only row of a class is never held out.

    Args:
        rows: number of rows.
        share: of the rows that are held out, above 0 and below 1; at least one row is.
        seed: of the draw.
        classes: the class of each row, ``[rows]``; by default rows are drawn from all alike.

    Raises:
        ValueError: there are too few rows for two parts.

    Example:
        >>> train, held_out = hold_out(10, 0.2, seed=0, classes=np.repeat([0, 1], 5))
        >>> len(train), (held_out // 5).tolist()
        (8, [0, 1])
    """
    if rows < 2:
        raise ValueError(f"there must be at least 2 rows to hold some out, got {rows}")
    draw, wanted = np.random.default_rng(seed), min(max(1, round(rows * share)), rows - 1)
    groups = [np.arange(rows)]
    if classes is not None:
        order = np.argsort(classes, kind="stable")
        starts = np.flatnonzero(np.diff(classes[order])) + 1
        several = [each for each in np.split(order, starts) if len(each) > 1]
        groups = several or groups
    sizes = np.array([len(each) for each in groups])
    due = wanted * sizes / sizes.sum()
    counts = np.minimum(np.floor(due), sizes - 1).astype(int)
    while counts.sum() < wanted and (counts < sizes - 1).any():
        lacking = np.where(counts < sizes - 1, due - counts, -np.inf)
        counts[lacking.argmax()] += 1
    drawn = [
        draw.permutation(each)[:count] for each, count in zip(groups, counts, strict=True) if count
    ]
    held = np.zeros(rows, bool)
    held[np.concatenate(drawn)] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


@dataclass(frozen=True)
class HashSplit:
    """One row of every five consecutive ones, or the four others: a split of a streamed table.

    Which of the five is chosen by a hash of their position (the finaliser of SplitMix64, Steele et
    al. 2014, doi 10.1145/2714064.2660195). So the split needs no memory, is the same each time, and
    does not depend on any period in the table.

    Attributes:
        held_out: ``True``: the held-out rows; ``False``: the rows to train on.

    Example:
        >>> HashSplit(held_out=True).positions(0, 20).tolist()
        [0, 5, 14, 19]
        >>> len(HashSplit(held_out=False).positions(0, 20))
        16
    """

    held_out: bool

    def positions(self, start: int, rows: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return which rows of a block belong to this part, as positions in the block.

        Args:
            start: number of the block's first row in the table, from 0.
            rows: number of rows in the block.
        """
        numbers = np.arange(start, start + rows, dtype=np.int64)
        groups, places = np.divmod(numbers, GROUP)
        chosen = _splitmix64(groups.astype(np.uint64)) % np.uint64(GROUP)
        found = (places.astype(np.uint64) == chosen) == self.held_out
        return np.flatnonzero(found).astype(np.int64)

    def count(self, start: int, rows: int) -> int:
        """Return how many rows of a block belong to this part."""
        return sum(len(self.positions(*part)) for part in _parts(start, rows))


def strata(classes: Array, count: int) -> Array | None:
    """Return the classes to stratify a draw of ``count`` rows by; ``None`` where one is too rare.

    Example:
        >>> strata(np.array([0, 0, 1, 1]), 2), strata(np.array([0, 0, 0, 1]), 2)
        (array([0, 0, 1, 1]), None)
    """
    counts = np.unique(classes, return_counts=True)[1]
    room = min(count, len(classes) - count) >= len(counts)
    return classes if counts.min() >= 2 and room else None


def table_parts(y: Array, *, classes: int = 0, scoring: bool = True) -> dict[Part, Array]:
    """Return the random rows of each part, the same ones each time.

    Classes keep their proportions (stratified) where each has enough rows.

    Args:
        y: targets ``[rows]``: class numbers, or numbers.
        classes: the number of classes; 0 where numbers are predicted.
        scoring: whether there is a part for scoring; without it the other parts grow.

    Example:
        >>> found = table_parts(np.repeat([0, 1], [80, 20]), classes=2)
        >>> {part: len(rows) for part, rows in found.items()}
        {'training': 60, 'stopping': 10, 'calibration': 15, 'scoring': 15}
    """
    from sklearn.model_selection import train_test_split  # slow to import

    rest, found = np.arange(len(y)), dict[Part, Array]()
    for part in ("scoring", "calibration", "stopping"):
        if part == "scoring" and not scoring:
            continue
        count = max(1, round(SHARES[part] * len(y)))
        rest, found[part] = train_test_split(
            rest,
            test_size=count,
            random_state=SPLIT_SEED,
            stratify=strata(y[rest], count) if classes else None,
        )
    parts: dict[Part, Array] = {"training": rest, **found}
    order: list[Part] = [part for part in SHARES if part in parts]
    return {part: np.sort(parts[part]) for part in order}


@dataclass(frozen=True)
class HashPart:
    """One part of a streamed table: its share of every twenty consecutive rows.

    Which of the twenty is chosen by the hash of :class:`HashSplit`.

    Attributes:
        part: the part.
        scoring: whether there is a part for scoring; without it, its rows are for training.

    Example:
        >>> [len(HashPart(part).positions(0, 200)) for part in SHARES]
        [120, 20, 30, 30]
    """

    part: Part
    scoring: bool = True

    def positions(self, start: int, rows: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return which rows of a block belong to this part, see :meth:`HashSplit.positions`."""
        numbers = np.arange(start, start + rows, dtype=np.int64)
        groups, places = np.divmod(numbers, PARTED)
        # A turn of the twenty places, another one for each group.
        turn = (_splitmix64(groups.astype(np.uint64)) % np.uint64(PARTED)).astype(np.int64)
        ends = np.cumsum([round(share * PARTED) for share in SHARES.values()])
        number = np.searchsorted(ends, (places + turn) % PARTED, "right")
        if not self.scoring:
            number[number == list(SHARES).index("scoring")] = 0
        return np.flatnonzero(number == list(SHARES).index(self.part)).astype(np.int64)

    def count(self, start: int, rows: int) -> int:
        """Return how many rows of a block belong to this part."""
        return sum(len(self.positions(*part)) for part in _parts(start, rows))


ChosenRows = HashSplit | HashPart


def _parts(start: int, rows: int) -> Iterator[tuple[int, int]]:
    for first in range(start, start + rows, COUNTED):
        yield first, min(COUNTED, start + rows - first)


def _splitmix64(
    values: np.ndarray[Any, np.dtype[np.uint64]],
) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Return a hash of each number; integer arrays overflow without a warning, as wanted here."""
    values = (values + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
