"""Which treatment a column gets: told from what was found out about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy.special import ndtri

from batchensemble.data.tables.blocks import Block
from batchensemble.data.tables.encoding.cells import Floats, factorised, numbers_in
from batchensemble.data.tables.encoding.dates import formats_of, seconds_in
from batchensemble.data.tables.encoding.summary import (
    MOST_COUNTED_LEVELS,
    MOST_WORDS,
    NAMES_ROWS,
    ColumnSummary,
)
from batchensemble.data.tables.encoding.treatment import Treatment
from batchensemble.data.tables.encoding.units import form_of

SMALLEST_RANGE = 1e-6  # of numbers; below it a column counts as constant
MOST_KNOTS = 500
ROWS_A_KNOT = 10
MOST_GAP_SIGNS = 0.5  # share of signs such as ? among numbers
MOST_STRAY_WORDS = 0.1  # share of words among numbers, or of texts that are no dates among dates
FEWEST_NUMBERED_ROWS = 20  # of a column that can be seen to number its rows
MOST_KEPT_LEVELS = 10_000
# Words that stand for a missing number; alone among numbers, they may be as many as the numbers.
GAP_SIGNS = frozenset(
    ("?", "-", "--", "---", ".", "..", "*", "missing", "unknown", "none", "na", "n.a.", "n/a")
)
DAY = 86_400
YEAR = 365.25 * DAY
KEEP = "name it in keep (--keep) to use it"


def treatment_of(
    summary: ColumnSummary, *, kind: str | None = None, keep: bool = False
) -> Treatment:
    """Return what is done with a column.

    Args:
        summary: what was found out about it.
        kind: ``"number"`` or ``"category"`` if the user says so.
        keep: use the column even if it seems to name the rows, or not to vary.

    Raises:
        ValueError: the column is said to hold numbers, and holds none.
    """
    name = summary.name
    if not summary.filled:
        return Treatment(name, "left out", "it has no values")
    if kind is None and not keep and (reason := _names_rows(summary)):
        return Treatment(name, "left out", f"{reason}; {KEEP}")
    if kind == "category":
        return _category(summary, keep=True)
    if summary.times is not None and kind is None:
        return _date(summary, [summary.times])
    share = summary.words / summary.filled
    if kind == "number" or share == 0:
        return _number(summary, keep or kind is not None)
    words = summary.some_words
    if all(word.lower() in GAP_SIGNS for word in words) and share <= MOST_GAP_SIGNS:
        return _number(summary, keep)
    if not summary.numbers or share > 1 - MOST_STRAY_WORDS:
        forms = formats_of(words)
        if forms:
            return _date(summary, forms)
    form = form_of(summary.counted_words, summary.decimal)
    if form:
        return Treatment(name, "number", form=form)
    stray = share <= MOST_STRAY_WORDS and len(words) < MOST_WORDS
    if stray and (
        summary.counts is None or len(set(summary.sample.tolist())) > FEWEST_NUMBERED_ROWS
    ):
        return _number(summary, keep)
    return _category(summary, keep)


def _names_rows(summary: ColumnSummary) -> str:
    """Return why a column only names its rows; empty if it does not."""
    rows, filled = summary.rows, summary.filled
    if rows < FEWEST_NUMBERED_ROWS or summary.times is not None:
        return ""
    if summary.numbers == rows and summary.running:
        return "it numbers the rows"
    if summary.words:
        different = summary.levels or MOST_COUNTED_LEVELS
        written = formats_of(summary.some_words) or form_of(summary.counted_words, summary.decimal)
        if different == filled and not summary.numbers and not written:
            return "its values are all different, so that it only identifies the row"
        return ""
    named = NAMES_ROWS.fullmatch(summary.name) is not None
    if named and summary.whole and summary.distinct and summary.numbers == rows:
        return "its values are all different and its name is that of an identifier"
    return ""


def _number(summary: ColumnSummary, keep: bool) -> Treatment:
    name = summary.name
    if summary.refused is not None:
        raise summary.refused
    if not summary.numbers:
        some = ", ".join(map(repr, summary.some_words[:3]))
        raise ValueError(
            f"column {name!r} must hold numbers, got {some}; leave out --numeric for it"
        )
    gaps = summary.gaps + summary.words > 0
    narrow = summary.high - summary.low < SMALLEST_RANGE
    if summary.truths == summary.filled and summary.high <= 1 and summary.low >= 0:
        if narrow and not gaps and not keep:
            return Treatment(name, "left out", "it has one value only")
        return Treatment(name, "truth value", gaps=gaps)
    note = ""
    if narrow and not (keep and summary.high > summary.low):
        one = summary.high == summary.low
        note = "it has one value only" if one else "its values differ by less than 0.000001"
        if not gaps:
            cure = "" if one else f"; {KEEP}"
            return Treatment(name, "left out", note + cure)
        note += ", beside gaps"
    words = tuple(summary.some_words)
    if words:
        note = _joined(note, _strays("number", words[0], summary.words))
    mean, scale = summary.mean_and_scale
    return Treatment(
        name, "number", note, gaps, mean, scale, *normal_curve(summary.sample), gap_words=words
    )


def _category(summary: ColumnSummary, keep: bool) -> Treatment:
    name, counts = summary.name, summary.counts
    if counts is None:
        if not keep:
            return Treatment(
                name, "left out", f"it has more than {MOST_COUNTED_LEVELS:,} different values"
            )
        raise ValueError(
            f"column {name!r} must have at most {MOST_COUNTED_LEVELS:,} different values to be a "
            "category"
        )
    order = sorted(counts, key=lambda level: (-counts[level], level))
    levels = tuple(level for level in order if counts[level] > 1)[:MOST_KEPT_LEVELS]
    rest, gaps = len(order) - len(levels), summary.gaps > 0
    if not levels:
        return Treatment(name, "left out", "none of its values occurs twice")
    if len(levels) == 1 and not rest and not gaps:
        return Treatment(name, "left out", "it has one value only")
    note = f"{rest:,} rare level{'s' if rest > 1 else ''} taken as unknown" if rest else ""
    return Treatment(name, "category", note, gaps, levels=levels)


def _date(summary: ColumnSummary, forms: Sequence[str]) -> Treatment:
    """Return the treatment of dates; it needs the values, see :class:`SecondSummary`."""
    note = ""
    if len(forms) > 1:
        note = f"read as {forms[0]}, though {forms[1]} fits as well"
    return Treatment(summary.name, "date", note, summary.gaps > 0, form=forms[0])


def _strays(expected: str, word: str, count: int) -> str:
    """Return the sentence about words that are taken as gaps."""
    if count == 1:
        return f"1 value that is no {expected}, {word!r}, is taken as a gap"
    return f"{count:,} values that are no {expected}s, such as {word!r}, are taken as gaps"


def _written(form: str, decimal: str) -> str:
    """Return the sentence about numbers that are written with more than digits."""
    example = "1,234.5" if decimal == "." else "1.234,5"
    note = f"read as numbers, written as in {form.replace('#', example)!r}"
    if form == "#" and decimal == ".":
        note += " (where the comma is the decimal sign, give --decimal ,)"
    return note


def _joined(*notes: str) -> str:
    return "; ".join(filter(None, notes))


def needs_values(treatment: Treatment) -> bool:
    """Return whether the values of a column have to be read once more before they can be scaled."""
    if treatment.kind == "date":
        return not treatment.parts
    return bool(treatment.form) and not treatment.knots


class SecondSummary:
    """What is found out about a column of dates, or of numbers with a unit, in a second pass.

    Args:
        treatment: of the column, incomplete.
    """

    def __init__(self, treatment: Treatment) -> None:
        self.treatment = treatment
        self.summary = ColumnSummary(treatment.name)
        self.strays: Counter[str] = Counter()
        self.times_of_day = False
        self.decimal = "."

    def add_block(self, block: Block, where: str) -> None:
        """Take in a block of a table."""
        name, form = self.treatment.name, self.treatment.form
        values, column = block.columns[name], f"{where}: column {name!r}"
        self.decimal = block.decimal
        with block.numbered():
            if self.treatment.kind == "date":
                found, strays = seconds_in(values, form, column)
                rest = np.mod(found[~np.isnan(found)], DAY)
                self.times_of_day |= bool((rest != 0).any())
            else:
                found, strays = numbers_in(values, column, block.decimal, form)
            if strays.any():
                codes, cells = factorised(values[strays], column, block.decimal)
                self.strays.update(str(cells[code]) for code in codes)
            self.summary.add(found, column, block.first_row, block.decimal)

    def complete(self) -> Treatment:
        """Return the complete treatment."""
        summary, before, strays = self.summary, self.treatment, self.strays
        gaps, note = summary.gaps > 0, before.note
        if strays:
            kind = "date" if before.kind == "date" else "number"
            note = _joined(note, _strays(kind, next(iter(strays)), sum(strays.values())))
        if before.kind == "number":
            written = _written(before.form, self.decimal)
            one = summary.high == summary.low
        else:
            written, one = "", summary.high - summary.low < 1
        if not summary.numbers or (one and not gaps):
            return Treatment(before.name, "left out", "it has one value only")
        mean, scale = summary.mean_and_scale
        return Treatment(
            before.name, before.kind, _joined(written, note), gaps, mean, scale,
            *normal_curve(summary.sample), gap_words=tuple(strays), form=before.form,
            parts=self._parts() if before.kind == "date" else (),
        )  # fmt: skip

    def _parts(self) -> tuple[str, ...]:
        form, span = self.treatment.form, self.summary.high - self.summary.low
        parts = ["time"]
        if form not in ("duration", "%H:%M", "%H:%M:%S"):
            parts += ["year"] if span > YEAR / 6 else []
            parts += ["weekday"] if span >= 7 * DAY else []
        if form != "duration" and self.times_of_day:
            parts.append("day")
        return tuple(parts)


def normal_curve(sample: Floats) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return a curve that maps a sample to quantiles of the normal distribution.

    A number is mapped to the quantile of the middle of its ranks, so that equal numbers stay in
    the middle of their share. scikit-learn's ``QuantileTransformer`` sends the most frequent
    number of a column to an end of the scale where it is the smallest one.

    Args:
        sample: numbers, sorted.

    Returns:
        Some numbers, ascending, and the quantile of each.

    Example:
        >>> numbers, normal = normal_curve(np.array([0.0, 0.0, 1.0, 5.0]))
        >>> numbers, [round(each, 2) for each in normal]
        ((0.0, 1.0, 5.0), [-0.67, 0.32, 1.15])
    """
    different = sample[np.append(True, sample[1:] > sample[:-1])] if len(sample) else sample
    count = int(np.clip(len(sample) // ROWS_A_KNOT, ROWS_A_KNOT, MOST_KNOTS))
    knots = different
    if len(different) > count:
        places = np.linspace(0, len(sample) - 1, count).round().astype(np.int64)
        knots = np.unique(sample[places])
    below, upto = (np.searchsorted(sample, knots, side) for side in ("left", "right"))
    normal = ndtri((below + upto) / 2 / len(sample))
    return tuple(knots.tolist()), tuple(normal.tolist())
