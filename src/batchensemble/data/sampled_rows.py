"""Some rows of a table of any size, evenly spread."""

from __future__ import annotations

from typing import Any

import numpy as np

from batchensemble.data.tables.columns import Array
from batchensemble.data.tables.files import Files

SAMPLED = 20_000  # training rows that are looked at before the training, such as for bins


def sampled_rows(part: Any, most: int = SAMPLED) -> tuple[Array, Array]:
    """Return rows ``(X, y)`` of a part of training data, evenly spread; files are read once.

    Args:
        part: arrays ``(X, y)``, or files.
        most: rows to return at most.

    Example:
        >>> sampled_rows((np.arange(5)[:, None], np.arange(5)), 3)[1].tolist()
        [0, 2, 4]
    """
    rows = part.rows if isinstance(part, Files) else len(part[0])
    step, first = max(1, -(-rows // most)), 0
    if not isinstance(part, Files):
        return part[0][::step], part[1][::step]
    blocks = []
    for X, y in part.blocks(part.units, np.float32):
        start = -first % step
        blocks.append((X[start::step].copy(), np.asarray(y)[start::step].copy()))
        first += len(X)
    features, targets = (np.concatenate(each) for each in zip(*blocks, strict=True))
    return features, targets
