"""Tables as they should not be, for training and for prediction, each with what must become of it.

Each either works or gets a sentence before training, so tests of the command line and of estimators
go through the same lists::

    @pytest.mark.parametrize("table", HOSTILE_TRAINING, ids=str)
    def test_a_hostile_table_works_or_gets_a_sentence(table, tmp_path):
        path = table.csv(tmp_path)    # what the command line is given
        frame = table.frame()         # what an estimator is given; None where only a file can be so

``HOSTILE_PREDICTION`` is of tables to predict with a model that was trained on ``good_table()``.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

Expected = Literal["works", "sentence"]
TARGET = "bought"
ROWS = 240
FEATURES = ("age", "income", "job", "member", "since")
CATEGORIES = 10_000


@dataclass(frozen=True)
class HostileTable:
    """A table, and what must become of it.

    Attributes:
        name: what is wrong with it.
        make: function that returns the table: a frame, or the bytes of a file where no frame can
            be like it.
        expected: ``"works"``, or ``"sentence"``: an error in a sentence before any training.
        in_file: the same for it as a CSV file, if that differs, since a file has no types and may
            have columns that are not asked for.
        says: a word of the warning or of the sentence, without regard to capitals; empty for any.
    """

    name: str
    make: Callable[[], pd.DataFrame | bytes]
    expected: Expected
    in_file: Expected | None = None
    says: str = ""

    def __str__(self) -> str:
        return self.name

    def frame(self) -> pd.DataFrame | None:
        """Return the frame, ``None`` if it can only be a file."""
        made = self.make()
        return made if isinstance(made, pd.DataFrame) else None

    def csv(self, folder: Path) -> Path:
        """Write it as pandas writes it, and return the path."""
        made = self.make()
        path = folder / "hostile.csv"
        if isinstance(made, bytes):
            path.write_bytes(made)
        else:
            made.to_csv(path, index=False)
        return path

    @property
    def expected_of_file(self) -> Expected:
        """What must become of the file."""
        return self.expected if self.in_file is None else self.in_file


def good_table(rows: int = ROWS, seed: int = 0) -> pd.DataFrame:
    """Return a table with nothing wrong: numbers, words, truth values, dates, gaps, two classes.

    Args:
        rows: number of rows.
        seed: seed of the random draws.
    """
    rng = np.random.default_rng(seed)
    age = rng.integers(18, 90, rows).astype(float)
    job = rng.choice(["baker", "nurse", "smith", "tailor"], rows)
    days = pd.to_timedelta(rng.integers(0, 4_000, rows), unit="D")
    chance = 1 / (1 + np.exp(-(age - 50) / 10 - 2.0 * (job == "nurse")))
    frame = pd.DataFrame(
        {
            "age": age,
            "income": rng.lognormal(10, 1, rows).round(2),
            "job": job,
            "member": rng.random(rows) < 0.5,
            "since": pd.Timestamp("2012-01-01") + days,
            TARGET: np.where(rng.random(rows) < chance, "yes", "no"),
        }
    )
    frame.loc[::11, "income"] = np.nan
    frame.loc[::13, "job"] = None
    frame.loc[::17, "since"] = pd.NaT
    return frame


def features(rows: int = ROWS, seed: int = 1) -> pd.DataFrame:
    """Return other rows without their target, as they are predicted."""
    return good_table(rows, seed).drop(columns=TARGET)


def training(**columns: object) -> Callable[[], pd.DataFrame]:
    """Return what makes the good table with these columns instead, or besides."""
    return lambda: good_table().assign(**columns)


def predicting(**columns: object) -> Callable[[], pd.DataFrame]:
    """Return what makes other rows with these columns instead, or besides."""
    return lambda: features().assign(**columns)


def twice(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the frame with a column of this name once more."""
    return pd.concat([frame, frame[[name]]], axis=1)


def raw(frame: pd.DataFrame, old: bytes, new: bytes) -> bytes:
    """Return a CSV file with some bytes replaced by others, once."""
    content = frame.to_csv(index=False).encode()
    assert old in content
    return content.replace(old, new, 1)


def every_other(first: object, second: object) -> Callable[[pd.DataFrame], list[object]]:
    """Return what makes a column of two values, in turns."""
    return lambda frame: [first if row % 2 else second for row in range(len(frame))]


def with_value(column: str, value: object) -> Callable[[pd.DataFrame], list[object]]:
    """Return what makes a column with one value replaced."""

    def change(frame: pd.DataFrame) -> list[object]:
        values = frame[column].tolist()
        values[3] = value
        return values

    return change


def many_levels(frame: pd.DataFrame) -> list[str]:
    """Return a word of its own for each row."""
    return [f"level {row}" for row in range(len(frame))]


def ten_thousand(rows_of_each: int = 2) -> pd.DataFrame:
    """Return a table whose jobs are 10,000 words."""
    frame = good_table(rows_of_each * CATEGORIES)
    return frame.assign(job=[f"job {row % CATEGORIES}" for row in range(len(frame))])


def out_of_range(frame: pd.DataFrame) -> list[object]:
    """Return dates that nanoseconds since 1970 cannot hold, among others that they can."""
    days: list[object] = (
        frame["since"].dt.date.astype(object).where(frame["since"].notna()).tolist()
    )
    days[:2] = [datetime.date(1, 1, 1), datetime.date(9999, 12, 31)]
    return days


def no_dates(frame: pd.DataFrame) -> list[object]:
    """Return dates in words, one of which no calendar has."""
    return ["2023-02-31" if row == 3 else f"2023-02-{1 + row % 28:02}" for row in range(len(frame))]


def gaps_only(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame without a single feature."""
    return frame.assign(**dict.fromkeys(FEATURES, np.nan))


HOSTILE_TRAINING = [
    HostileTable("an empty file", lambda: b"", "sentence"),
    HostileTable("a file of a line break", lambda: b"\n", "sentence"),
    HostileTable("no rows and no columns", pd.DataFrame, "sentence"),
    HostileTable("columns without rows", lambda: good_table()[:0], "sentence"),
    HostileTable("one row", lambda: good_table()[:1], "sentence"),
    HostileTable("the target alone", lambda: good_table()[[TARGET]], "sentence"),
    HostileTable("no target", features, "sentence", says=TARGET),
    HostileTable("one feature", lambda: good_table()[["age", TARGET]], "works"),
    HostileTable("one feature, words", lambda: good_table()[["job", TARGET]], "works"),
    HostileTable("a column without values", training(income=np.nan), "works", says="income"),
    HostileTable("no values but the target's", lambda: gaps_only(good_table()), "sentence"),
    HostileTable("a target without values", training(bought=None), "sentence", says=TARGET),
    HostileTable(
        "a target with gaps",
        training(bought=lambda frame: frame[TARGET].where(frame.index % 3 > 0)),
        "works",
        says=TARGET,
    ),
    HostileTable("one class", training(bought="yes"), "sentence", says="class"),
    HostileTable("one number as target", training(bought=3.5), "sentence", says=TARGET),
    HostileTable(
        "an infinite number",
        training(income=with_value("income", np.inf)),
        "sentence",
        says="income",
    ),
    HostileTable(
        "an infinite target",
        training(bought=lambda frame: frame["age"].where(frame.index != 3, -np.inf)),
        "sentence",
        says=TARGET,
    ),
    HostileTable("10,000 categories", ten_thousand, "works"),
    HostileTable("10,000 categories of one row each", lambda: ten_thousand(1), "works", says="job"),
    HostileTable("a target with a class a row", training(bought=many_levels), "sentence"),
    HostileTable("a column twice", lambda: twice(good_table(), "age"), "sentence", says="age"),
    HostileTable("the target twice", lambda: twice(good_table(), TARGET), "sentence", says=TARGET),
    HostileTable(
        "a copy of the target", training(copy=lambda frame: frame[TARGET]), "works", says="copy"
    ),
    HostileTable(
        "the target in other words",
        training(copy=lambda frame: frame[TARGET].map({"yes": 1, "no": 0})),
        "works",
        says="copy",
    ),
    HostileTable(
        "a copy of a target of numbers",
        training(bought=lambda frame: frame["age"] * 1.5, copy=lambda frame: frame["age"] * 3),
        "works",
        says="copy",
    ),
    HostileTable("a constant column", training(income=7.0), "works", says="income"),
    HostileTable("a word among numbers", training(age=with_value("age", "unknown")), "works"),
    HostileTable("a number among words", training(job=with_value("job", 41.0)), "works"),
    HostileTable(
        "numbers and words in turns",
        lambda: good_table().assign(age=every_other(41, "about 41")),
        "works",
    ),
    HostileTable(
        "numbers and words as target",
        lambda: good_table().assign(bought=every_other(1, "one")),
        "works",
    ),
    HostileTable(
        "lists in a column",
        lambda: good_table().assign(job=every_other([1, 2], {"a": 1})),
        "sentence",
        in_file="works",  # where they are words
        says="job",
    ),
    HostileTable(
        "bytes in a column",
        lambda: good_table().assign(job=every_other(b"\xff\xfe", b"\x00")),
        "works",  # as words such as b'\xff'
    ),
    HostileTable(
        "bytes that are no text", lambda: raw(good_table(), b"nurse", b"\xff\xc3"), "sentence"
    ),
    HostileTable("a picture", lambda: b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(200), "sentence"),
    HostileTable("dates out of range", training(since=out_of_range), "works"),
    HostileTable("a date that there is not", training(since=no_dates), "works"),
]
HOSTILE_PREDICTION = [
    HostileTable("an empty file", lambda: b"", "sentence"),
    HostileTable("columns without rows", lambda: features()[:0], "sentence"),
    HostileTable("one row", lambda: features()[:1], "works"),
    HostileTable(
        "a column missing", lambda: features().drop(columns="age"), "sentence", says="age"
    ),
    HostileTable(
        "all columns but one missing", lambda: features()[["age"]], "sentence", says="job"
    ),
    HostileTable("a column more", predicting(extra=1.0), "sentence", in_file="works", says="extra"),
    HostileTable(
        "a column renamed",
        lambda: features().rename(columns={"age": "Age"}),
        "sentence",
        says="age",
    ),
    HostileTable("a column twice", lambda: twice(features(), "age"), "sentence", says="age"),
    HostileTable("words for numbers", predicting(age="old"), "sentence", says="age"),
    HostileTable(
        "a word among numbers", predicting(age=with_value("age", "old")), "sentence", says="age"
    ),
    HostileTable("numbers for words", predicting(job=3.5), "works", says="job"),
    HostileTable("words for dates", predicting(since="yesterday"), "sentence", says="since"),
    HostileTable("words for truth values", predicting(member="maybe"), "sentence", says="member"),
    HostileTable(
        "dates for numbers", predicting(age=pd.Timestamp("2020-01-01")), "sentence", says="age"
    ),
    HostileTable("all categories unseen", predicting(job=many_levels), "works"),
    HostileTable("one category unseen", predicting(job=with_value("job", "pilot")), "works"),
    HostileTable("no values at all", lambda: gaps_only(features()), "works"),
    HostileTable("a column without values", predicting(age=np.nan), "works"),
    HostileTable(
        "an infinite number", predicting(age=with_value("age", -np.inf)), "sentence", says="age"
    ),
    HostileTable("a number far beyond", predicting(income=1e12), "works"),
    HostileTable(
        "lists in a column",
        lambda: features().assign(job=every_other([1, 2], {"a": 1})),
        "sentence",
        in_file="works",  # where they are words that training has not seen
        says="job",
    ),
    HostileTable(
        "bytes that are no text", lambda: raw(features(), b"nurse", b"\xff\xc3"), "sentence"
    ),
    HostileTable("dates out of range", predicting(since=out_of_range), "works"),
]
