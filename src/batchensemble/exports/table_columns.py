"""The columns of a table in an ONNX graph: one input a column, and what becomes of it.

The graph computes in float64 what :class:`~batchensemble.data.tables.encoding.treatment.Treatment`
does. Numbers, truth values (0 and 1) and times (seconds since 1970 in UTC, durations in seconds)
are float64, NaN where a value is missing; categories are text, empty where it is missing. What is
left to who calls the file is to read these out of a table: a unit or a date that is written in
words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from batchensemble.data.tables.columns import TRUTH, Array, ColumnarTable
from batchensemble.data.tables.encoding.cells import TEXT_GAPS, levels_in, numbers_in
from batchensemble.data.tables.encoding.dates import SECONDS_A_DAY, seconds_in
from batchensemble.data.tables.encoding.encoding import ONE_HOT_LEVELS, TableEncoding
from batchensemble.data.tables.encoding.treatment import Treatment

ENCODED = "encoded columns"  # the input of the network within the graph
DAYS_TO_1970 = 719_468  # from 1 March of the year 0
DAYS_OF_AN_ERA = 146_097  # 400 years


class ColumnGraph:
    """The nodes of an ONNX graph that encodes a table.

    Args:
        encoding: what becomes of the columns.
    """

    def __init__(self, encoding: TableEncoding) -> None:
        import onnx

        self.onnx: Any = onnx
        self.encoding = encoding
        self.nodes: list[Any] = []
        self.constants: dict[bytes, Any] = {}
        self.inputs = [self._input(one) for one in encoding.used]
        parts = [self._columns(one) for one in encoding.used]
        columns = [value for kind in range(3) for part in parts for value in part[kind]]
        joined = self.op("Concat", *(self._as_column(each) for each in columns), axis=1)
        self.op("Cast", joined, to=onnx.TensorProto.FLOAT, output=ENCODED)

    def op(self, kind: str, *inputs: Any, output: str = "", **attributes: Any) -> str:
        """Add an operation on values and constants; return the name of its result."""
        name = output or f"column value {len(self.nodes)}"
        names = [each if isinstance(each, str) else self.constant(each) for each in inputs]
        domain = {"domain": "ai.onnx.ml"} if kind == "LabelEncoder" else {}
        self.nodes.append(self.onnx.helper.make_node(kind, names, [name], **attributes, **domain))
        return name

    def constant(self, value: Any) -> str:
        """Return the name of a constant: an array, or a number as float64."""
        array = np.asarray(value, None if isinstance(value, np.ndarray) else np.float64)
        key = repr((array.dtype, array.shape)).encode() + array.tobytes()
        if key not in self.constants:
            name = f"column constant {len(self.constants)}"
            self.constants[key] = self.onnx.numpy_helper.from_array(array, name)
        return str(self.constants[key].name)

    def joined_to(self, proto: Any, input_name: str) -> None:
        """Put the nodes before a graph whose input they compute."""
        graph, helper = proto.graph, self.onnx.helper
        for node in graph.node:
            node.input[:] = [ENCODED if name == input_name else name for name in node.input]
        nodes, constants = list(graph.node), list(graph.initializer)
        for field in ("node", "input", "initializer"):
            graph.ClearField(field)
        graph.node.extend([*self.nodes, *nodes])
        graph.input.extend(self.inputs)
        graph.initializer.extend([*constants, *self.constants.values()])
        if not any(each.domain == "ai.onnx.ml" for each in proto.opset_import):
            proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))

    def _input(self, one: Treatment) -> Any:
        types = self.onnx.TensorProto
        kind = types.STRING if one.kind == "category" else types.DOUBLE
        return self.onnx.helper.make_tensor_value_info(one.name, kind, ["batch"])

    def _as_column(self, value: str) -> str:
        return self.op("Unsqueeze", value, np.array([1]))

    def _columns(self, one: Treatment) -> tuple[list[str], list[str], list[str]]:
        """Return the numbers, flags and codes of a column."""
        numbers: list[str] = []
        flags: list[str] = []
        codes: list[str] = []
        if one.kind == "category":
            codes = [self._code(one)]
            return numbers, flags, self._by_layout(one, codes)
        gaps = self.op("IsNaN", one.name)
        if one.kind == "date":
            numbers, flags, codes = self._date(one, gaps)
        elif one.kind == "truth value":
            flags = [self.op("Where", gaps, 0.0, one.name)]
        else:
            numbers = [self._scaled(one, gaps)]
        if one.gaps:
            flags = [*flags, self.op("Cast", gaps, to=self.onnx.TensorProto.DOUBLE)]
        return numbers, flags, self._by_layout(one, codes)

    def _by_layout(self, one: Treatment, codes: Sequence[str]) -> list[str]:
        """Return codes, or in the plain layout an input for each of their levels."""
        if self.encoding.layout == "codes":
            return list(codes)
        levels = one.code_levels().values()
        return [
            self.op(
                "Cast",
                self.op("Equal", code, float(number)),
                to=self.onnx.TensorProto.DOUBLE,
            )
            for code, names in zip(codes, levels, strict=True)
            for number in range(1, len(names[:ONE_HOT_LEVELS]) + 1)
        ]

    def _code(self, one: Treatment) -> str:
        """Return the numbers of levels, from 1; 0 is an unknown one."""
        codes = level_codes(one)
        found = self.op(
            "LabelEncoder",
            one.name,
            keys_strings=list(codes),
            values_int64s=list(codes.values()),
            default_int64=0,
        )
        return self.op("Cast", found, to=self.onnx.TensorProto.DOUBLE)

    def _scaled(self, one: Treatment, gaps: str) -> str:
        """Return numbers on the scale of the network, and 0 for gaps."""
        if self.encoding.layout == "plain":
            found = self.op("Div", self.op("Sub", one.name, one.mean), one.scale)
        else:
            found = self._interpolated(one)
        return self.op("Where", gaps, 0.0, found)

    def _interpolated(self, one: Treatment) -> str:
        """Return numbers on a curve of straight lines, constant beyond its ends."""
        knots, normal = np.array(one.knots), np.array(one.normal)
        if len(knots) < 2:
            return self.op("Add", self.op("Mul", one.name, 0.0), float(normal[0]))
        slopes = np.diff(normal) / np.diff(knots)
        within = self.op("Max", self.op("Min", one.name, knots[-1]), knots[0])
        if len(knots) == 2:
            place = self.op("Cast", self.op("Mul", within, 0.0), to=self.onnx.TensorProto.INT64)
        else:
            passed = self.op("GreaterOrEqual", self._as_column(within), knots[1:-1][None])
            ones = self.op("Cast", passed, to=self.onnx.TensorProto.INT64)
            place = self.op("ReduceSum", ones, np.array([1]), keepdims=0)
        start, height, slope = (self.op("Gather", each, place) for each in (knots, normal, slopes))
        return self.op("Add", height, self.op("Mul", slope, self.op("Sub", within, start)))

    def _date(self, one: Treatment, gaps: str) -> tuple[list[str], list[str], list[str]]:
        numbers = [self._scaled(one, gaps)] if "time" in one.parts else []
        seconds = self.op("Where", gaps, 0.0, one.name)
        flags = []
        for part, fraction in (("year", self._year_fraction), ("day", self._day_fraction)):
            if part in one.parts:
                angle = self.op("Mul", fraction(seconds), 2 * math.pi)
                flags += [self._wave(kind, angle, gaps) for kind in ("Sin", "Cos")]
        codes = []
        if "weekday" in one.parts:
            day = self._modulo(self.op("Add", self._days(seconds), 3.0), 7.0)
            codes = [self.op("Where", gaps, 0.0, self.op("Add", day, 1.0))]
        return numbers, flags, codes

    def _wave(self, kind: str, angle: str, gaps: str) -> str:
        """Return the sine or cosine of angles, which runtimes have in float32 alone."""
        types = self.onnx.TensorProto
        wave = self.op(kind, self.op("Cast", angle, to=types.FLOAT))
        return self.op("Where", gaps, 0.0, self.op("Cast", wave, to=types.DOUBLE))

    def _days(self, seconds: str) -> str:
        return self._whole(seconds, SECONDS_A_DAY)

    def _day_fraction(self, seconds: str) -> str:
        return self.op("Div", self._modulo(seconds, SECONDS_A_DAY), SECONDS_A_DAY)

    def _whole(self, value: str, divisor: Any) -> str:
        return self.op("Floor", self.op("Div", value, divisor))

    def _modulo(self, value: str, divisor: float) -> str:
        return self.op("Sub", value, self.op("Mul", self._whole(value, divisor), divisor))

    def _year_fraction(self, seconds: str) -> str:
        """Return how much of its year has passed at each time, in the Gregorian calendar.

        By counting from 1 March, so that the day of a leap year is a year's last (Hinnant,
        http://howardhinnant.github.io/date_algorithms.html).
        """
        since = self.op("Add", self._days(seconds), float(DAYS_TO_1970))
        day = self._modulo(since, float(DAYS_OF_AN_ERA))
        leaps = [self._whole(day, divisor) for divisor in (1460.0, 36524.0, 146096.0)]
        counted = self.op("Add", self.op("Sub", day, leaps[0]), leaps[1])
        of_era = self._whole(self.op("Sub", counted, leaps[2]), 365.0)
        eras = self.op("Mul", self._whole(since, float(DAYS_OF_AN_ERA)), 400.0)
        year = self.op("Add", eras, of_era)
        # From 1 January of the next year on, 306 days after 1 March.
        later = self.op("GreaterOrEqual", since, self.op("Add", self._first_of_march(year), 306.0))
        year = self.op("Add", year, self.op("Cast", later, to=self.onnx.TensorProto.DOUBLE))
        before = self.op("Sub", year, 1.0)
        start, end = (
            self.op("Mul", self.op("Add", self._first_of_march(each), shift), SECONDS_A_DAY)
            for each, shift in ((before, 306.0 - DAYS_TO_1970), (year, 306.0 - DAYS_TO_1970))
        )
        return self.op("Div", self.op("Sub", seconds, start), self.op("Sub", end, start))

    def _first_of_march(self, year: str) -> str:
        """Return the days from 1 March of the year 0 to that of another year."""
        days = self.op("Mul", year, 365.0)
        for divisor, sign in ((4.0, "Add"), (100.0, "Sub"), (400.0, "Add")):
            days = self.op(sign, days, self._whole(year, divisor))
        return days


def level_codes(one: Treatment) -> dict[str, int]:
    """Return the number of each text that a category may be: its levels, and words for gaps.

    Example:
        >>> found = level_codes(Treatment("job", "category", levels=("cook", "3"), gaps=True))
        >>> found["cook"], found["3"], found["3.0"], found[""]
        (1, 2, 2, 3)
    """
    codes = dict.fromkeys(sorted(TEXT_GAPS), len(one.levels) + 1 if one.gaps else 0)
    for number, level in enumerate(one.levels, 1):
        for text in (level, *(word for word, truth in TRUTH.items() if level == str(bool(truth)))):
            codes[text] = number
        if level.lstrip("-").isdigit():
            codes[f"{level}.0"] = number
    return codes


def column_arrays(encoding: TableEncoding, table: ColumnarTable) -> dict[str, Array]:
    """Return the columns of a table as the graph takes them."""
    found: dict[str, Array] = {}
    for one in encoding.used:
        values, where = table.column(one.name), f"column {one.name!r}"
        if one.kind == "category":
            places, levels = levels_in(values, where)
            found[one.name] = np.array([*levels, ""], dtype=object)[places]
        elif one.kind == "date":
            found[one.name] = seconds_in(values, one.form, where)[0]
        else:
            found[one.name] = numbers_in(values, where, form=one.form)[0]
    return found


def column_duties(encoding: TableEncoding) -> tuple[str, ...]:
    """Return what who calls the file must do with columns, in sentences."""
    notes = []
    for one in encoding.used:
        if one.kind == "date":
            kind = "a duration in seconds" if one.form == "duration" else "seconds since 1970 (UTC)"
            notes.append(f"column {one.name!r} takes {kind}, since ONNX reads no dates")
        elif one.form:
            notes.append(f"column {one.name!r} takes the number of {one.form!r} without its unit")
    return tuple(notes)


def columns_as_json(encoding: TableEncoding) -> list[dict[str, Any]]:
    """Return the inputs of the file, in the words of its metadata."""
    kinds = {"category": "text", "truth value": "0 or 1", "date": "seconds", "number": "number"}
    return [
        {
            "name": one.name,
            "takes": kinds[one.kind],
            "missing": "empty text" if one.kind == "category" else "NaN",
            **({"levels": list(one.levels)} if one.levels else {}),
            **({"written": one.form} if one.form else {}),
        }
        for one in encoding.used
    ]
