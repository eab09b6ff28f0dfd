"""Tables of every kind, and their encoding cell by cell: slow, and plain to see."""

import calendar
import datetime
import math

import numpy as np
import pandas as pd

from batchensemble.data.tables.blocks import Block
from batchensemble.data.tables.columns import as_table
from batchensemble.data.tables.encoding.encoding import TableEncoding, fit_encoding

ROWS = 120


def everything(rows: int = ROWS, seed: int = 0) -> pd.DataFrame:
    """Return a table with a column of each kind, as a CSV file can hold it."""
    rng = np.random.default_rng(seed)
    start = pd.Timestamp("2024-01-30 07:00")
    hours = pd.to_timedelta(rng.integers(0, 20_000, rows), "h")
    frame = pd.DataFrame(
        {
            "length": rng.lognormal(3, 2, rows),
            "count": rng.integers(0, 5, rows),
            "gappy": np.where(rng.random(rows) < 0.3, np.nan, rng.normal(size=rows)),
            "open": rng.random(rows) < 0.4,
            "job": rng.choice(["cook", "smith", "baker"], rows),
            "street": rng.choice(["A", "B", None], rows),
            "price": [f"${each:,.2f}" for each in rng.uniform(10, 9_000, rows)],
            "when": (start + hours).strftime("%Y-%m-%d %H:%M:%S"),
            "day": (start + hours).strftime("%d.%m.%Y"),
            "stray": [f"{each:.3f}" for each in rng.normal(size=rows)],
            "same": 7,
            "id": [f"n{row}" for row in range(rows)],
        }
    )
    frame.loc[3, "stray"] = "x"
    frame.loc[5, "when"] = None
    frame.loc[7, "job"] = "seen once"
    return frame


def block_of(frame) -> Block:
    """Return a table of any library as a block."""
    table = as_table(frame)
    return Block(table.rows, {name: table.column(name) for name in table.names})


def encoding_of(frame, layout="codes", size=None, **options) -> TableEncoding:
    """Return the encoding of a table, read in blocks of so many rows."""
    block = block_of(frame)
    size = size or max(block.rows, 1)
    starts = range(0, max(block.rows, 1), size)
    parts = lambda: [block.part(start, start + size) for start in starts]  # noqa: E731
    return fit_encoding(parts, tuple(block.columns), "table", layout=layout, **options)


def treatment_of(values, name="x", **options):
    """Return what is done with one column, beside another."""
    frame = pd.DataFrame({name: values})
    frame["beside"] = np.arange(len(frame)) % 2 + 0.5
    return encoding_of(frame, **options).treatments[0]


def slowly_encoded(encoding: TableEncoding, frame: pd.DataFrame) -> np.ndarray:
    """Return the inputs of a network in the layout of codes, cell by cell."""
    rows = []
    for number in range(len(frame)):
        numbers, flags, codes = [], [], []
        for one in encoding.treatments:
            if one.kind == "left out":
                continue
            value = frame[one.name].iloc[number]
            for found, more in zip((numbers, flags, codes), _slowly(one, value), strict=True):
                found += more
        rows.append([*numbers, *flags, *codes])
    return np.array(rows, np.float32)


def _slowly(one, value):
    gap = value is None or value != value or str(value) in one.gap_words
    missing = [float(gap)] if one.gaps else []
    if one.kind == "category":
        if gap:
            return [], [], [len(one.levels) + 1 if one.gaps else 0]
        return [], [], [one.levels.index(value) + 1 if value in one.levels else 0]
    if one.kind == "truth value":
        return [], [0.0 if gap else float(value), *missing], []
    if one.kind == "number":
        text = str(value).replace("$", "").replace(",", "")
        return [0.0 if gap else _interpolated(one, float(text))], missing, []
    forms = {"ISO8601": "%Y-%m-%d %H:%M:%S"}
    waves, number, weekday = [], 0.0, 0
    if gap:
        waves = [0.0] * 2 * ("year" in one.parts) + [0.0] * 2 * ("day" in one.parts)
    else:
        time = datetime.datetime.strptime(value, forms.get(one.form, one.form))
        time = time.replace(tzinfo=datetime.timezone.utc)
        number, weekday = _interpolated(one, time.timestamp()), time.isoweekday()
        midnight = time.replace(hour=0, minute=0, second=0)
        seconds = (time - time.replace(month=1, day=1, hour=0, minute=0, second=0)).total_seconds()
        if "year" in one.parts:
            waves += _waves(seconds / (86_400 * (365 + calendar.isleap(time.year))))
        if "day" in one.parts:
            waves += _waves((time - midnight).total_seconds() / 86_400)
    return [number], [*waves, *missing], [weekday] if "weekday" in one.parts else []


def _waves(fraction):
    return [math.sin(2 * math.pi * fraction), math.cos(2 * math.pi * fraction)]


def _interpolated(one, number):
    if number <= one.knots[0]:
        return one.normal[0]
    for place in range(1, len(one.knots)):
        low, high = one.knots[place - 1], one.knots[place]
        if number <= high:
            share = (number - low) / (high - low)
            return one.normal[place - 1] * (1 - share) + one.normal[place] * share
    return one.normal[-1]
