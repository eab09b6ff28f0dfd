"""Four parts of the rows: to train on, to stop by, to calibrate with and to score."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchensemble.data.tables import split as row_split
from batchensemble.data.tables.split import SHARES, HashPart, Split, table_parts

ROWS = [10, 11, 20, 99, 1_000]


@pytest.mark.parametrize("scoring", [True, False])
@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("rows", ROWS)
def test_each_row_is_in_one_part_and_no_part_is_empty(rows, classes, scoring):
    y = np.arange(rows) % 3 if classes else np.arange(rows) / 7
    found = table_parts(y, classes=classes, scoring=scoring)
    assert list(found) == [part for part in SHARES if scoring or part != "scoring"]
    assert sorted(np.concatenate(list(found.values()))) == list(range(rows))
    for part, chosen in found.items():
        assert len(chosen) >= 1
        assert (np.diff(chosen) > 0).all()
        if part != "training":
            assert abs(len(chosen) - SHARES[part] * rows) <= 1
    again = table_parts(y.copy(), classes=classes, scoring=scoring)
    assert all((again[part] == chosen).all() for part, chosen in found.items())


def test_classes_keep_their_shares():
    y = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [700, 270, 30]))
    for part, chosen in table_parts(y, classes=3).items():
        expected = np.array([700, 270, 30]) * SHARES[part]
        assert np.abs(np.bincount(y[chosen]) - expected).max() <= 1.5


@pytest.mark.parametrize("rows", ROWS)
def test_a_class_of_one_row_or_of_none_is_parted_too(rows):
    y = np.arange(rows) % 2
    y[rows // 2] = 2
    for classes in (3, 4):
        found = table_parts(y, classes=classes)
        assert sorted(np.concatenate(list(found.values()))) == list(range(rows))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 4), min_size=10, max_size=60))
def test_any_targets_can_be_parted(labels):
    found = table_parts(np.array(labels), classes=5)
    assert sorted(np.concatenate(list(found.values()))) == list(range(len(labels)))
    assert min(map(len, found.values())) >= 1


@pytest.mark.parametrize("scoring", [True, False])
@pytest.mark.parametrize("rows", [0, 1, 10, 19, 20, 1_000])
def test_streamed_parts_are_disjoint_and_cover_all_rows(rows, scoring):
    parts = [part for part in SHARES if scoring or part != "scoring"]
    found = {part: HashPart(part, scoring).positions(0, rows) for part in parts}
    assert sorted(np.concatenate(list(found.values()))) == list(range(rows))
    if rows == 1_000:
        shares = {**SHARES, **({} if scoring else {"training": 0.75})}
        assert {part: len(rows) for part, rows in found.items()} == {
            part: round(1_000 * shares[part]) for part in parts
        }


def test_without_scoring_the_other_streamed_parts_stay():
    for part in ("stopping", "calibration"):
        one, other = (HashPart(part, scoring).positions(0, 500) for scoring in (True, False))
        assert one.tolist() == other.tolist()


@pytest.mark.parametrize("part", SHARES)
def test_a_streamed_row_is_in_its_part_wherever_the_block_begins(part, monkeypatch):
    rule = HashPart(part)
    whole = rule.positions(0, 500)
    for size in (1, 7, 20, 333):
        found = [
            rule.positions(start, min(size, 500 - start)) + start for start in range(0, 500, size)
        ]
        np.testing.assert_array_equal(np.concatenate(found), whole)
    monkeypatch.setattr(row_split, "COUNTED", 7)
    assert rule.count(13, 400) == len(rule.positions(13, 400))


def test_streamed_parts_have_no_period():
    numbers = np.zeros(100_000, np.int64)
    for number, part in enumerate(SHARES):
        numbers[HashPart(part).positions(0, len(numbers))] = number
    by_place = numbers.reshape(-1, 20)
    for place in range(20):
        shares = np.bincount(by_place[:, place], minlength=4) / len(by_place)
        np.testing.assert_allclose(shares, list(SHARES.values()), atol=0.03)


def test_parts_of_streamed_rows_stay_where_stored_models_left_them():
    assert {part: HashPart(part).positions(0, 20).tolist() for part in SHARES} == {
        "training": [5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16],
        "stopping": [17, 18],
        "calibration": [0, 1, 19],
        "scoring": [2, 3, 4],
    }


def test_a_split_remembers_whether_it_has_parts():
    for parts in (True, False):
        split = Split("hashed", "ab", parts=parts)
        assert Split.from_dict(split.to_dict()) == split
    assert not Split.from_dict({"rule": "drawn", "table": "ab", "held_out": None}).parts
