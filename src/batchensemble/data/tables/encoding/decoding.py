"""From the inputs of a network back to the columns: which inputs are whose, and what they show."""

from __future__ import annotations

from typing import Any

import numpy as np

from batchensemble.data.tables.columns import Array
from batchensemble.data.tables.encoding.encoding import TableEncoding
from batchensemble.data.tables.encoding.treatment import GAP, Treatment

UNKNOWN = "(unknown)"


def positions_of(encoding: TableEncoding) -> dict[str, list[int]]:
    """Return the positions of the inputs that each column becomes.

    Example:
        >>> one = Treatment("age", "number", gaps=True), Treatment("job", "category", levels=("a",))
        >>> positions_of(TableEncoding(one))
        {'age': [0, 1], 'job': [2]}
    """
    found: dict[str, list[int]] = {name: [] for name in encoding.names}
    owner = {
        name: one.name
        for one in encoding.used
        for name in TableEncoding((one,), encoding.layout).input_names
    }
    for position, name in enumerate(encoding.input_names):
        found[owner[name]].append(position)
    return found


def shown_value(encoding: TableEncoding, name: str, row: Array) -> Any:
    """Return what a column held in a row of inputs: a number, or text.

    Args:
        encoding: of the table.
        name: of the column.
        row: the inputs of the row.

    Example:
        >>> encoding = TableEncoding((Treatment("job", "category", levels=("cook", "smith")),))
        >>> shown_value(encoding, "job", np.array([2.0]))
        'smith'
    """
    one = next(each for each in encoding.used if each.name == name)
    alone = TableEncoding((one,), encoding.layout)
    values = dict(zip(alone.input_names, row[positions_of(encoding)[name]].tolist(), strict=True))
    if values.get(f"{name} is missing", 0.0) > 0.5:
        return GAP
    if one.kind == "truth value":
        return str(values[name] > 0.5)
    if one.kind == "category":
        return _level(one, name, values, encoding.layout == "codes")
    number = values.get(name, 0.0)
    if encoding.layout == "codes":
        number = float(np.interp(number, one.normal, one.knots))
    else:
        number = number * one.scale + one.mean
    if one.kind == "date" and one.form != "duration":
        return str(np.datetime64(round(number), "s"))[:10]
    return number


def _level(one: Treatment, name: str, values: dict[str, float], coded: bool) -> str:
    levels = one.code_levels()[""]
    if coded:
        code = round(values[name])
        return levels[code - 1] if code else UNKNOWN
    chosen = [level for level in levels if values.get(f"{name} = {level}", 0.0) > 0.5]
    return chosen[0] if chosen else UNKNOWN
