"""Rows of a table made up from its encoding, to trace and check a model without its data."""

from __future__ import annotations

from typing import Any

import numpy as np

from batchensemble.data.tables.encoding.encoding import TableEncoding
from batchensemble.data.tables.encoding.treatment import Treatment

MADE_UP = 64  # rows


def example_rows(encoding: TableEncoding) -> Any:
    """Return a data frame with values that the columns held in training, and gaps.

    Example:
        >>> one = Treatment("job", "category", levels=("cook", "smith"))
        >>> example_rows(TableEncoding((one,)))["job"].tolist()[:3]
        ['cook', 'smith', 'cook']
    """
    import pandas as pd

    return pd.DataFrame({one.name: _values(one) for one in encoding.used})


def _values(one: Treatment) -> Any:
    number = np.arange(MADE_UP)
    if one.kind == "category":
        levels = [*one.levels, *([None] if one.gaps else [])] or ["unknown"]
        return np.array(levels, dtype=object)[number % len(levels)]
    if one.kind == "truth value":
        values = (number % 2).astype(np.float64)
    elif one.knots:
        values = np.interp(number * 7 % MADE_UP / (MADE_UP - 1), *_quantiles(one))
    else:
        values = one.mean + one.scale * np.linspace(-2, 2, MADE_UP)[number * 7 % MADE_UP]
    if one.gaps:
        values[5::11] = np.nan
    if one.kind == "date":
        unit = "m8[s]" if one.form == "duration" else "M8[s]"
        whole = np.where(np.isnan(values), 0, values).astype(np.int64).astype(unit)
        whole[np.isnan(values)] = np.array("NaT", unit)
        return whole
    return values


def _quantiles(one: Treatment) -> tuple[np.ndarray, np.ndarray]:
    return np.linspace(0, 1, len(one.knots)), np.array(one.knots)
