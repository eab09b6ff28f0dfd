"""What a user should know about columns, above all that one tells the target, as a copy does."""

from __future__ import annotations

import numpy as np

from batchensemble.data.tables.columns import Array
from batchensemble.data.tables.encoding.encoding import TableEncoding

LEAK = (
    "column {name!r} tells the target exactly; if it is not known when you predict, leave it out "
    "with --drop {name!r}"
)
FEWEST_COMPARED_ROWS = 20  # in fewer, a column may be like the target by chance


def column_notes(encoding: TableEncoding, X: Array, y: Array) -> tuple[str, ...]:
    """Return what a user should know about the columns of a table, a sentence each.

    Args:
        encoding: of the table.
        X: encoded training rows ``[rows, inputs]``.
        y: their targets ``[rows]``.
    """
    copies = (LEAK.format(name=name) for name in copies_of_target(encoding, X, y))
    return (*copies, *encoding.notes())


def copies_of_target(encoding: TableEncoding, X: Array, y: Array) -> tuple[str, ...]:
    """Return the columns that tell the target exactly.

    Where the target has classes or few numbers, each value of such a column belongs to one of them
    and the other way round; where it has many, the column rises or falls with it from row to row.

    Args:
        encoding: of the table.
        X: encoded rows ``[rows, inputs]``.
        y: their targets ``[rows]``: class numbers, or numbers.

    Example:
        >>> encoding = TableEncoding.of_scaling(["a", "b"], ((0.0, 0.0), (1.0, 1.0)))
        >>> y = np.arange(30) % 3
        >>> copies_of_target(encoding, np.stack([2 - y, np.arange(30)], 1), y)
        ('a',)
    """
    if len(y) < FEWEST_COMPARED_ROWS:
        return ()
    _, of_target = np.unique(np.asarray(y).ravel(), return_inverse=True)
    inputs = zip(encoding.input_names, X.T, strict=True)
    copies = {name for name, values in inputs if _is_copy(values, of_target)}
    return tuple(
        one.name
        for one in encoding.used
        if copies & set(TableEncoding((one,), encoding.layout).input_names)
    )


def _is_copy(values: Array, of_target: Array) -> bool:
    _, ranks = np.unique(values, return_inverse=True)
    count = int(ranks.max()) + 1
    if count < 2 or count != int(of_target.max()) + 1:
        return False
    if 2 * count > len(ranks):  # nearly all differ, so that one belongs to one in any case
        return bool((ranks == of_target).all() or (ranks == count - 1 - of_target).all())
    return len(np.unique(ranks.astype(np.int64) * count + of_target)) == count
