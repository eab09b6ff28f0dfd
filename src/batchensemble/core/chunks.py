"""Large arrays in blocks of rows, so that temporary results stay small."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

# float64 numbers of one block: 2 MiB, so that a few temporaries of its size stay in a core's cache.
CHUNK_SIZE = 2**18


def row_blocks(rows: int, width: int) -> Iterator[slice]:
    """Yield slices that divide ``rows`` rows into blocks.

    Args:
        rows: number of rows.
        width: largest number of float64 values per row in any temporary result.

    Example:
        >>> list(row_blocks(5, width=2**17))
        [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    step = max(CHUNK_SIZE // max(width, 1), 1)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def by_row_blocks(
    function: Callable[[FloatArray], tuple[FloatArray, ...]], array: NDArray[Any]
) -> list[FloatArray]:
    """Apply a row-wise function to an array, block by block.

    Args:
        function: maps a block ``[rows, ...]``, float64, to a tuple of arrays ``[rows, ...]``.
        array: ``[rows, ...]`` of numbers, at least one row.

    Example:
        >>> by_row_blocks(lambda block: (block.sum(1),), np.ones((3, 2)))
        [array([2., 2., 2.])]
    """
    results: list[FloatArray] = []
    for block in row_blocks(len(array), array[0].size):
        parts = function(np.asarray(array[block], dtype=np.float64))
        if not results:
            results = [np.empty((len(array), *part.shape[1:])) for part in parts]
        for result, part in zip(results, parts, strict=True):
            result[block] = part
    return results
