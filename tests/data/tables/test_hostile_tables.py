"""The tables that other tests are given are as bad as their names say, and the same each time."""

import io

import numpy as np
import pandas as pd
import pytest

from hostile_tables import (
    CATEGORIES,
    FEATURES,
    HOSTILE_PREDICTION,
    HOSTILE_TRAINING,
    TARGET,
    features,
    good_table,
)

BOTH = [HOSTILE_TRAINING, HOSTILE_PREDICTION]
EACH = [
    pytest.param(each, id=f"{'tp'[k]}-{each}") for k, list_ in enumerate(BOTH) for each in list_
]


def named(tables, name):
    return next(each for each in tables if each.name == name)


@pytest.mark.parametrize("tables", BOTH)
def test_names_differ_and_both_ends_are_there(tables):
    assert len({each.name for each in tables}) == len(tables)
    assert {each.expected for each in tables} == {"works", "sentence"}


@pytest.mark.parametrize("table", EACH)
def test_each_can_be_made_written_and_made_again(table, tmp_path):
    frame, content = table.frame(), table.csv(tmp_path).read_bytes()
    assert content == table.csv(tmp_path).read_bytes()
    if frame is None:
        assert isinstance(table.make(), bytes)
    else:
        pd.testing.assert_frame_equal(frame, table.frame())


def test_the_good_table_has_what_tables_have():
    frame = good_table()
    assert set(frame.columns) == {*FEATURES, TARGET}
    assert frame[["income", "job", "since"]].isna().any().all()
    assert set(frame[TARGET]) == {"yes", "no"}
    assert [frame[name].dtype.kind for name in ("age", "member", "since")] == ["f", "b", "M"]
    assert not features().equals(frame.drop(columns=TARGET))


def test_they_are_what_they_are_called():
    made = {each.name: each.make() for each in HOSTILE_TRAINING}
    assert made["10,000 categories"]["job"].nunique() == CATEGORIES
    assert (made["10,000 categories"]["job"].value_counts() == 2).all()
    assert made["a column twice"].columns.tolist().count("age") == 2
    assert np.isinf(made["an infinite number"]["income"]).sum() == 1
    assert made["one class"][TARGET].nunique() == 1
    copy = made["a copy of the target"]
    assert copy["copy"].equals(copy[TARGET])
    with pytest.raises(UnicodeDecodeError):
        made["bytes that are no text"].decode()
    with pytest.raises((pd.errors.OutOfBoundsDatetime, ValueError)):
        pd.to_datetime(made["dates out of range"]["since"]).astype("datetime64[ns]")
    unseen = named(HOSTILE_PREDICTION, "all categories unseen").frame()
    assert not set(unseen["job"]) & set(good_table()["job"].dropna())


def test_a_file_is_written_as_pandas_writes_it(tmp_path):
    table = named(HOSTILE_TRAINING, "dates out of range")
    lines = io.StringIO(table.csv(tmp_path).read_text())
    found = pd.read_csv(lines)
    assert list(found.columns) == list(table.frame().columns)
    assert found["since"].tolist()[:2] == ["0001-01-01", "9999-12-31"]
