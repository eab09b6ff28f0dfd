"""Columns of dates and times: how they are written, and the numbers that they stand for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from batchensemble.data.tables.columns import Array
from batchensemble.data.tables.encoding.cells import Flags, Floats, factorised

ISO = "ISO8601"
# How dates are written, by the shape of the text. Those with two readings are told apart by values.
DATE_SHAPES: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = (
    (re.compile(r"\d{4}-\d{1,2}-\d{1,2}([ T]\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?)? ?"
                r"(Z|UTC|[+-]\d{2}:?\d{2})?"), (ISO,)),
    (re.compile(r"\d{4}/\d{1,2}/\d{1,2}"), ("%Y/%m/%d",)),
    (re.compile(r"\d{1,2}\.\d{1,2}\.\d{4}"), ("%d.%m.%Y",)),
    (re.compile(r"\d{1,2}/\d{1,2}/\d{4}"), ("%m/%d/%Y", "%d/%m/%Y")),
    (re.compile(r"\d{1,2}/\d{1,2}/\d{2}"), ("%m/%d/%y", "%d/%m/%y")),
    (re.compile(r"\d{1,2}-\d{1,2}-\d{4}"), ("%d-%m-%Y", "%m-%d-%Y")),
    (re.compile(r"\d{1,2}/\d{1,2}/\d{4} \d{1,2}:\d{2}"), ("%m/%d/%Y %H:%M", "%d/%m/%Y %H:%M")),
    (re.compile(r"\d{1,2}\.\d{1,2}\.\d{4} \d{1,2}:\d{2}"), ("%d.%m.%Y %H:%M",)),
    (re.compile(r"\d{1,2}-[A-Za-z]{3}-\d{4}"), ("%d-%b-%Y",)),
    (re.compile(r"\d{1,2}-[A-Za-z]{3}-\d{2}"), ("%d-%b-%y",)),
    (re.compile(r"[A-Za-z]{3} \d{1,2}, \d{4}"), ("%b %d, %Y",)),
    (re.compile(r"[A-Za-z]{4,9} \d{1,2}, \d{4}"), ("%B %d, %Y",)),
    (re.compile(r"-?\d+ days?( [+-]?\d{2}:\d{2}:\d{2}(\.\d+)?)?"), ("duration",)),
    (re.compile(r"\d{1,2}:\d{2}"), ("%H:%M",)),
    (re.compile(r"\d{1,2}:\d{2}:\d{2}"), ("%H:%M:%S",)),
    (re.compile(r"\d{4}-\d{2}"), ("%Y-%m",)),
)  # fmt: skip
DATE_FORMATS = (*dict.fromkeys(form for _, forms in DATE_SHAPES for form in forms), "datetime")
LOOKED_AT = 1000  # different texts that are looked at
SECONDS_A_DAY = 86_400.0


def formats_of(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the formats in which texts are dates, the most likely one first; none if they are not.

    Args:
        texts: distinct values of a column.

    Example:
        >>> formats_of(["31/12/2025", "1/2/2026"]), formats_of(["1/2/2026"])
        (('%d/%m/%Y',), ('%m/%d/%Y', '%d/%m/%Y'))
    """
    some = texts[:LOOKED_AT]
    for shape, formats in DATE_SHAPES:
        matching = [text for text in some if shape.fullmatch(text)]
        if matching and len(matching) >= 0.9 * len(some):
            failures = {form: int(_missing(matching, form).sum()) for form in formats}
            fewest = min(failures.values())
            if fewest > 0.1 * len(matching):
                return ()
            return tuple(form for form, count in failures.items() if count == fewest)
    return ()


def _missing(texts: Sequence[str], form: str) -> Flags:
    return np.isnan(_seconds(texts, form))


def _seconds(texts: Sequence[str], form: str) -> Floats:
    """Return dates as seconds since 1970 in UTC, durations as seconds; NaN for other texts."""
    import pandas as pd

    cells: Any = pd.Series(list(texts), dtype=object)
    if form == "duration":
        return pd.to_timedelta(cells, errors="coerce").dt.total_seconds().to_numpy(np.float64)
    found = pd.to_datetime(cells, format=form, errors="coerce", utc=True)
    return _since_1970(found.dt.tz_localize(None).to_numpy("datetime64[us]"))


def _since_1970(times: Array) -> Floats:
    seconds = times.astype("datetime64[us]").astype(np.int64) / 1e6
    return np.where(np.isnat(times), np.nan, seconds)


def seconds_in(values: Array, form: str, where: str) -> tuple[Floats, Flags]:
    """Return a column of dates as seconds since 1970 in UTC, and which values are no dates.

    Args:
        values: a column ``[rows]`` of dates, or of text.
        form: how text is written, one of :data:`DATE_FORMATS`.
        where: the table and the column, for error messages.

    Returns:
        The seconds ``[rows]``, NaN where there is no date, and for each whether it is something
        else.
    """
    if values.dtype.kind == "M":
        return _since_1970(values), np.zeros(len(values), np.bool_)
    if values.dtype.kind == "m":
        seconds = values.astype("timedelta64[us]").astype(np.int64) / 1e6
        return np.where(np.isnat(values), np.nan, seconds), np.zeros(len(values), np.bool_)
    codes, cells = factorised(values, where)
    texts = [cell if isinstance(cell, str) else str(cell) for cell in cells]
    known = np.append(_seconds(texts, ISO if form == "datetime" else form), np.nan)
    words = np.isnan(known)
    words[-1] = False
    return known[codes], words[codes]


def year_fraction(seconds: Floats) -> Floats:
    """Return how much of its year has passed at each time, 0 to 1.

    Example:
        >>> year_fraction(np.array([0.0, 182.5 * 86400]))
        array([0. , 0.5])
    """
    times = np.where(np.isnan(seconds), 0, seconds * 1e6).astype(np.int64).astype("datetime64[us]")
    years = times.astype("datetime64[Y]")
    starts, ends = (each.astype("datetime64[us]") for each in (years, years + 1))
    part: Floats = (times - starts).astype(np.float64) / (ends - starts).astype(np.float64)
    return np.where(np.isnan(seconds), np.nan, part)


def day_fraction(seconds: Floats) -> Floats:
    """Return how much of its day has passed at each time, 0 to 1.

    Example:
        >>> day_fraction(np.array([86400 * 2.25, np.nan]))
        array([0.25,  nan])
    """
    found: Floats = np.mod(seconds, SECONDS_A_DAY) / SECONDS_A_DAY
    return found


def weekday(seconds: Floats) -> Floats:
    """Return the day of the week of each time: 1 for Monday to 7; NaN without a time.

    Example:
        >>> weekday(np.array([0.0]))  # 1970 began on a Thursday
        array([4.])
    """
    found: Floats = np.mod(np.floor(seconds / SECONDS_A_DAY) + 3, 7) + 1
    return found
