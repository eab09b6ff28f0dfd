"""A fifth of the rows, told by their numbers: exact, the same each time, at no fixed distance."""

import numpy as np
import pytest

from batchensemble.data.tables import split as row_split
from batchensemble.data.tables.encoding.encoding import TableEncoding
from batchensemble.data.tables.files import Files
from batchensemble.data.tables.split import HashSplit

HELD_OUT, TRAIN = HashSplit(held_out=True), HashSplit(held_out=False)


def test_each_row_is_in_one_part_and_one_of_five_is_held_out():
    held_out, train = HELD_OUT.positions(0, 1000), TRAIN.positions(0, 1000)
    assert sorted([*held_out, *train]) == list(range(1000))
    assert (held_out // 5).tolist() == list(range(200))


def test_a_row_belongs_wherever_the_block_begins():
    whole = HELD_OUT.positions(0, 300)
    for start in (0, 1, 7, 250):
        np.testing.assert_array_equal(
            HELD_OUT.positions(start, 50) + start,
            whole[(whole >= start) & (whole < start + 50)],
        )


def test_places_are_drawn_evenly_and_without_a_period():
    places = HELD_OUT.positions(0, 100_000) % 5
    assert np.bincount(places).min() > 0.9 * 20_000 / 5
    for period in range(1, 8):
        same = (places[period:] == places[:-period]).mean()
        assert abs(same - 0.2) < 0.02


@pytest.mark.parametrize("rows", [0, 3, 64, 1000])
def test_rows_are_counted_in_parts(rows, monkeypatch):
    monkeypatch.setattr(row_split, "COUNTED", 7)
    for part in (HELD_OUT, TRAIN):
        assert part.count(13, rows) == len(part.positions(13, rows))


def test_checksums_of_split_files_are_those_that_stored_models_remember(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("x,y\n" + "".join(f"{row % 7}.5,{'ab'[row % 2]}\n" for row in range(50)))
    files = Files([path], "y")
    scaled = TableEncoding.of_scaling(("x",), ((1.0,), (2.0,)))
    train = files.view(rows=TRAIN, encoding=scaled)
    assert files.describe().endswith("(checksum 09e953c1)")
    assert train.describe().endswith("(checksum f0b2d5ee)")
    assert files.view(rows=HELD_OUT).describe().endswith("(checksum e4652107)")
