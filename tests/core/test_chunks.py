"""Blocks of rows cover each row once and hold what was asked for."""

import numpy as np
import pytest

from batchensemble.core import chunks as row_blocks


@pytest.mark.parametrize("rows", [1, 2, 7, 8, 9])
def test_blocks_cover_each_row_once_and_in_order(rows, monkeypatch):
    monkeypatch.setattr(row_blocks, "CHUNK_SIZE", 12)
    slices = list(row_blocks.row_blocks(rows, width=3))
    assert [row for each in slices for row in range(rows)[each]] == list(range(rows))
    assert max(each.stop - each.start for each in slices) <= 4


def test_a_row_wider_than_a_block_is_a_block():
    assert len(list(row_blocks.row_blocks(3, width=10 * row_blocks.CHUNK_SIZE))) == 3


@pytest.mark.parametrize("block", [1, 10, 10**6])
def test_results_are_those_of_the_whole_array(block, monkeypatch):
    monkeypatch.setattr(row_blocks, "CHUNK_SIZE", block)
    array = np.arange(42, dtype=np.float32).reshape(7, 2, 3)
    sums, doubled = row_blocks.by_row_blocks(lambda part: (part.sum(1), 2 * part), array)
    assert sums.tolist() == array.sum(1).tolist()
    assert doubled.tolist() == (2 * array).tolist()
    assert sums.dtype == np.float64
