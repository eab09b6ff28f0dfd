"""What is done with one column: a record that JSON can hold, and its application."""

from __future__ import annotations

import math
import warnings
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np

from batchensemble.data.tables.columns import Array, RowError, TableWarning
from batchensemble.data.tables.encoding.cells import (
    Flags,
    Floats,
    factorised,
    levels_in,
    numbers_in,
)
from batchensemble.data.tables.encoding.dates import (
    DATE_FORMATS,
    day_fraction,
    seconds_in,
    weekday,
    year_fraction,
)
from batchensemble.data.tables.encoding.units import FORM

Kind = Literal["number", "truth value", "category", "date", "left out"]
Scale = Literal["normal", "standard"]
DATE_PARTS = ("time", "year", "weekday", "day")
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
FEWEST_UNSEEN_ROWS = 10  # that are warned of where all hold the same unknown level
MIDDLE: dict[Scale, str] = {"normal": "the median", "standard": "the mean"}  # for a gap
GAP = "(gap)"  # what the level of missing values is called


@dataclass(frozen=True)
class Parts:
    """What a column becomes.

    Attributes:
        numbers: scaled numbers ``[rows]``, by the end of the name of each.
        flags: numbers that need no scaling, between -1 and 1.
        codes: levels as whole numbers from 1; 0 is an unknown level.
    """

    numbers: dict[str, Floats]
    flags: dict[str, Floats]
    codes: dict[str, Floats]


@dataclass(frozen=True)
class Treatment:
    """What is done with one column.

    Attributes:
        name: of the column.
        kind: what the column holds; ``"left out"``: it is not used.
        note: why, where that is not obvious.
        gaps: whether values were missing in the training data.
        mean, scale: mean and standard deviation of the numbers, or of a date's seconds.
        knots, normal: numbers, ascending, and the quantiles of the normal distribution that they
            are mapped to; numbers between are interpolated.
        levels: names of the levels in the order of their codes, the first of which is 1.
        gap_words: words that stand for a missing number in the training data.
        form: how dates are written, one of
            :data:`~batchensemble.data.tables.encoding.dates.DATE_FORMATS`; or how numbers are that
            have a unit, see :mod:`~batchensemble.data.tables.encoding.units`.
        parts: the parts of a date that are used, of :data:`DATE_PARTS`.
    """

    name: str
    kind: Kind
    note: str = ""
    gaps: bool = False
    mean: float = 0.0
    scale: float = 1.0
    knots: tuple[float, ...] = ()
    normal: tuple[float, ...] = ()
    levels: tuple[str, ...] = ()
    gap_words: tuple[str, ...] = ()
    form: str = ""
    parts: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, written: Any) -> Treatment:
        """Return the treatment that :meth:`to_dict` wrote.

        Raises:
            ValueError: it is not one.
        """
        known = {each.name: each for each in fields(cls)}
        if not isinstance(written, dict) or not {"name", "kind"} <= set(written) <= set(known):
            raise ValueError(
                f"a column must have a name, a kind and settings of it, got {written!r:.99}"
            )
        found: dict[str, Any] = {}
        for name, value in written.items():
            kind: Any = type(known[name].default) if name not in ("name", "kind") else str
            if kind is float and isinstance(value, int) and not isinstance(value, bool):
                value = float(value)
            if not isinstance(value, list if kind is tuple else kind):
                raise ValueError(f"a column's {name} must be a {kind.__name__}, got {value!r:.99}")
            found[name] = tuple(value) if kind is tuple else value
        return cls(**found).checked()

    def checked(self) -> Treatment:
        """Return the treatment.

        Raises:
            ValueError: its settings cannot be.
        """
        numbers, texts = (*self.knots, *self.normal), (*self.levels, *self.gap_words, *self.parts)
        if (
            self.kind not in get_args(Kind)
            or not all(type(each) in (int, float) for each in numbers)
            or not all(type(each) is str for each in texts)
            or not self.scale > 0
            or len(self.knots) != len(self.normal)
            or any(low >= high for low, high in zip(self.knots, self.knots[1:], strict=False))
            or len(set(self.levels)) < len(self.levels)
            or not set(self.parts) <= set(DATE_PARTS)
            or (self.kind == "date" and self.form not in DATE_FORMATS)
            or (self.kind != "date" and self.form and not FORM.fullmatch(self.form))
            or not all(map(math.isfinite, (*numbers, self.mean, self.scale)))
        ):
            raise ValueError(f"the treatment of column {self.name!r} has settings that cannot be")
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return the settings that are not the defaults, as JSON can hold them."""
        written = asdict(self)
        defaults = {each.name: each.default for each in fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in written.items()
            if name in ("name", "kind") or value != defaults[name]
        }

    def apply(
        self, values: Array, where: str, scale: Scale, first_row: int = 0, decimal: str = "."
    ) -> Parts:
        """Return what values of the column become; all numbers are finite.

        Args:
            values: ``[rows]``.
            where: the table and the column, for error messages.
            scale: ``"normal"``: numbers are mapped to quantiles of the normal distribution;
                ``"standard"``: to mean 0 and standard deviation 1.
            first_row: number of the first of them in the table, from 0.
            decimal: the decimal sign of text.

        Raises:
            ValueError: a value is of another kind than in the training data.
        """
        if self.kind == "category":
            return Parts({}, {}, {"": self._codes(values, where, decimal)})
        if self.kind == "date":
            return self._date(values, where, scale, first_row)
        numbers, words = numbers_in(values, where, decimal, self.form)
        self._refuse_words(values, words, where, first_row, "a number")
        self._refuse_infinite(numbers, where, first_row)
        gaps, flags = np.isnan(numbers), {}
        filled = "False" if self.kind == "truth value" else MIDDLE[scale]
        self._warn_of_gaps(gaps, where, filled)
        if self.gaps:
            flags = {" is missing": gaps.astype(np.float64)}
        if self.kind == "truth value":
            return Parts({}, {"": np.where(gaps, 0.0, numbers), **flags}, {})
        return Parts({"": self._scaled(numbers, scale)}, flags, {})

    def code_levels(self) -> dict[str, tuple[str, ...]]:
        """Return the levels of each code, by the end of its name."""
        if self.kind == "category":
            return {"": (*self.levels, *([GAP] if self.gaps else []))}
        if self.kind == "date" and "weekday" in self.parts:
            return {" (weekday)": WEEKDAYS}
        return {}

    def _scaled(self, numbers: Floats, scale: Scale) -> Floats:
        """Return numbers on another scale, and 0 for gaps: the mean or the median."""
        if scale == "normal":
            found = np.interp(numbers, *self._curve)
        else:
            found = (numbers - self.mean) / self.scale
        return np.where(np.isnan(numbers), 0.0, found)

    @cached_property
    def _curve(self) -> tuple[Floats, Floats]:
        return np.array(self.knots), np.array(self.normal)

    @cached_property
    def _code_of(self) -> dict[str, int]:
        return {level: code for code, level in enumerate(self.levels, 1)}

    def _codes(self, values: Array, where: str, decimal: str) -> Floats:
        positions, texts = levels_in(values, where, decimal)
        gap = float(len(self.levels) + 1) if self.gaps else 0.0
        codes = np.array([*(float(self._code_of.get(text, 0)) for text in texts), gap])
        # A single row may well hold a level that was too rare to be kept.
        several = len(texts) > 1 or len(positions) >= FEWEST_UNSEEN_ROWS
        if texts and several and not codes[:-1].any() and self.levels:
            some = ", ".join(map(repr, texts[:3]))
            self._warn(
                f"{where} has none of the levels of the training data ({some} instead of "
                f"{', '.join(map(repr, self.levels[:3]))}); all are taken as unknown"
            )
        return codes[positions]

    def _date(self, values: Array, where: str, scale: Scale, first_row: int) -> Parts:
        seconds, words = seconds_in(values, self.form, where)
        self._refuse_words(values, words, where, first_row, f"a date ({self.form})")
        gaps = np.isnan(seconds)
        self._warn_of_gaps(gaps, where, MIDDLE[scale])
        numbers, flags, codes = {}, {}, {}
        if "time" in self.parts:
            numbers[""] = self._scaled(seconds, scale)
        for part, fraction in (("year", year_fraction), ("day", day_fraction)):
            if part in self.parts:
                angle = 2 * np.pi * np.where(gaps, np.nan, fraction(seconds))
                for name, wave in (("sine", np.sin), ("cosine", np.cos)):
                    flags[f" ({name} of the {part})"] = np.nan_to_num(wave(angle))
        if "weekday" in self.parts:
            codes[" (weekday)"] = np.nan_to_num(weekday(seconds))
        if self.gaps:
            flags[" is missing"] = gaps.astype(np.float64)
        return Parts(numbers, flags, codes)

    def _refuse_words(
        self, values: Array, words: Flags, where: str, first_row: int, expected: str
    ) -> None:
        """Raise for values of another kind, but for the words that were gaps in training."""
        if not words.any():
            return
        codes, cells = factorised(values, where)
        known = np.array([str(cell) in self.gap_words for cell in cells] + [True])
        strange = words & ~known[codes]
        if strange.any():
            row = int(strange.argmax())
            raise RowError(
                f"{where} must hold {expected}, as in the training data, got {cells[codes[row]]!r}",
                first_row + row,
                "; correct it, or leave it empty",
            )

    def _refuse_infinite(self, numbers: Floats, where: str, first_row: int) -> None:
        infinite = np.isinf(numbers)
        if infinite.any():
            row = int(infinite.argmax())
            raise RowError(
                f"{where} must hold finite numbers, got {numbers[row]}",
                first_row + row,
                "; replace it by a gap",
            )

    def _warn_of_gaps(self, gaps: Flags, where: str, filled: str) -> None:
        if not self.gaps and gaps.any():
            self._warn(
                f"{where} has gaps, and had none in the training data; each is taken as {filled}"
            )

    @cached_property
    def _warned(self) -> set[str]:
        return set()

    def _warn(self, text: str) -> None:
        """Warn once of what a column holds, though it comes in many blocks."""
        about = text.partition(" (")[0]
        if about not in self._warned:
            self._warned.add(about)
            warnings.warn(text, TableWarning, stacklevel=2)
