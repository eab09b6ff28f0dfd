"""What becomes of a column is told from its values, and a sentence says what is not obvious."""

import datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from batchensemble.data.tables.encoding.encoding import ColumnChoices
from batchensemble.data.tables.encoding.rules import normal_curve
from tables import block_of, encoding_of, treatment_of

ROWS = 60
RNG = np.random.default_rng(0)
DAYS = pd.date_range("2023-05-01", periods=ROWS, freq="9D")


@pytest.mark.parametrize(
    ("values", "kind", "levels"),
    [
        (RNG.normal(size=ROWS), "number", ()),
        ([1, 2, 3] * 20, "number", ()),
        ([Decimal(row) / 4 for row in range(ROWS)], "number", ()),
        ([f"{row}e-1" for row in range(ROWS)], "number", ()),
        ([0.0] * 59 + [7.0], "number", ()),
        ([1e99, -1e99, 0.0] * 20, "number", ()),
        ([True, False, True] * 20, "truth value", ()),
        (["True", "FALSE", "true"] * 20, "truth value", ()),
        (np.array([True, None, False] * 20, object), "truth value", ()),
        ([True, False, 2] * 20, "number", ()),
        (np.array([True, "a", 1, "b"] * 15, object), "category", ("1", "True", "a", "b")),
        (["b", "a", "b"] * 20, "category", ("b", "a")),
        (["yes", "no", "no"] * 20, "category", ("no", "yes")),
        (["007", "x", "7"] * 20, "category", ("7", "x")),
        (["12e150", "a7c0", "9e999"] * 20, "category", ("1.2e+151", "a7c0", "inf")),
        (["INF", "SS", "1B"] * 20, "category", ("1B", "SS", "inf")),
        (pd.Categorical(["a", "b"] * 30, ["c", "b", "a"]), "category", ("a", "b")),
        ([b"x", b"y"] * 30, "category", ("x", "y")),
        ([b"\xff", b"y"] * 30, "category", ("\\xff", "y")),
        (["z" * 5_000, "y"] * 30, "category", ("y", "z" * 1_000)),
        ([1 + 2j, 3j] * 30, "category", ("(1+2j)", "3j")),
        (["10+ years", "< 1 year"] * 30, "category", ("10+ years", "< 1 year")),
    ],
)  # fmt: skip
def test_the_kind_is_told_from_the_values(values, kind, levels):
    one = treatment_of(values)
    assert (one.kind, one.levels, one.note) == (kind, levels, "")


@pytest.mark.parametrize(
    ("values", "form"),
    [
        (DAYS, "datetime"),
        (DAYS.tz_localize("UTC"), "datetime"),
        (DAYS.date, "datetime"),
        (DAYS.strftime("%Y-%m-%d"), "ISO8601"),
        (DAYS.strftime("%Y-%m-%dT%H:%M:%SZ"), "ISO8601"),
        (DAYS.strftime("%Y-%m-%d %H:%M:%S+00:00"), "ISO8601"),
        (DAYS.strftime("%Y/%m/%d"), "%Y/%m/%d"),
        (DAYS.strftime("%d.%m.%Y"), "%d.%m.%Y"),
        (DAYS.strftime("%m/%d/%Y"), "%m/%d/%Y"),
        (DAYS.strftime("%d/%m/%Y"), "%d/%m/%Y"),
        (DAYS.strftime("%d/%m/%y"), "%d/%m/%y"),
        (DAYS.strftime("%d-%m-%Y"), "%d-%m-%Y"),
        (DAYS.strftime("%m/%d/%Y %H:%M"), "%m/%d/%Y %H:%M"),
        (DAYS.strftime("%d.%m.%Y %H:%M"), "%d.%m.%Y %H:%M"),
        (DAYS.strftime("%d-%b-%Y"), "%d-%b-%Y"),
        (DAYS.strftime("%d-%b-%y"), "%d-%b-%y"),
        (DAYS.strftime("%b %d, %Y"), "%b %d, %Y"),
        ([each for each in DAYS.strftime("%B %d, %Y") if "May" not in each], "%B %d, %Y"),
    ],
)
def test_dates_are_read_however_they_are_written(values, form):
    one = treatment_of(values)
    assert (one.kind, one.form, one.parts) == ("date", form, ("time", "year", "weekday"))
    if len(values) == ROWS:
        assert one.mean == pytest.approx(DAYS.mean().timestamp(), abs=1)


@pytest.mark.parametrize(
    ("values", "form", "parts"),
    [
        ([datetime.time(row % 24, row) for row in range(ROWS)], "%H:%M:%S", ("time", "day")),
        ([f"{row % 24}:{row:02}" for row in range(ROWS)], "%H:%M", ("time", "day")),
        ([datetime.timedelta(hours=row) for row in range(ROWS)], "duration", ("time",)),
        ([f"{row} days" for row in range(ROWS)], "duration", ("time",)),
        (pd.date_range("2024-01-01", periods=ROWS, freq="h"), "datetime", ("time", "day")),
        (pd.date_range("2024-01-01", periods=ROWS), "datetime", ("time", "weekday")),
        (
            pd.date_range("2024-01-01", periods=ROWS, tz="Europe/Berlin"),
            "datetime",
            ("time", "weekday", "day"),
        ),
        (pd.period_range("2020-01", periods=ROWS, freq="M"), "%Y-%m", ("time", "year", "weekday")),
        (["9999-12-31", "2020-01-01", "0001-01-01"] * 20, "ISO8601", ("time", "year", "weekday")),
    ],
)
def test_a_date_has_the_parts_that_vary(values, form, parts):
    one = treatment_of(values)
    assert (one.kind, one.form, one.parts) == ("date", form, parts)


def test_a_date_that_can_be_read_in_two_ways_says_so():
    one = treatment_of(["1/2/2026", "3/4/2026", "5/6/2026"] * 10)
    assert one.note == "read as %m/%d/%Y, though %d/%m/%Y fits as well"


def test_an_odd_value_among_dates_is_a_gap():
    one = treatment_of([*DAYS.strftime("%d.%m.%Y")[:-2], "soon", "31.02.2024"])
    assert (one.kind, one.gap_words, one.gaps) == ("date", ("soon", "31.02.2024"), True)
    assert one.note == "2 values that are no dates, such as 'soon', are taken as gaps"


@pytest.mark.parametrize(
    ("values", "form", "mean"),
    [
        ([f"{each:,}" for each in range(900, 1_500, 10)], "#", 1_195),
        ([f"${each},000.50" for each in range(1, 61)], "$#", 30_500.5),
        ([f"{each} €" for each in range(60)], "# €", 29.5),
        ([f"USD {each}" for each in range(60)], "USD #", 29.5),
        ([f"{each}%" for each in range(60)], "#%", 29.5),
        ([f"{each / 2} km" for each in range(60)], "# km", 14.75),
        ([f"-{each}°C" for each in range(60)], "#°C", -29.5),
        ([f"{each} km/h" for each in range(58)] + ["fast", "7"], "# km/h", None),
    ],
)
def test_numbers_with_a_unit_are_numbers(values, form, mean):
    one = treatment_of(values)
    assert (one.kind, one.form) == ("number", form)
    assert f"read as numbers, written as in {form.replace('#', '1,234.5')!r}" in one.note
    assert ("give --decimal" in one.note) == (form == "#")
    assert mean is None or one.mean == pytest.approx(mean)
    assert one.gap_words == (("fast",) if mean is None else ())


@pytest.mark.parametrize(
    "values",
    [
        [f"{row % 9}{'abcdef'[row % 6]}" for row in range(ROWS)],
        ["3 kg", "2 lb", "5 oz"] * 20,
        ["1.2.3", "1.2.4"] * 30,
    ],
)
def test_codes_are_no_numbers_with_a_unit(values):
    assert treatment_of(values).kind == "category"


@pytest.mark.parametrize("sign", ["?", "-", ".", "missing", "Unknown", "--"])
def test_a_sign_for_a_gap_may_stand_in_half_of_the_rows(sign):
    one = treatment_of([sign, "1.5", "2.5", "4"] * 15)
    assert (one.kind, one.gap_words, one.gaps) == ("number", (sign,), True)
    assert one.note == f"15 values that are no numbers, such as {sign!r}, are taken as gaps"
    assert treatment_of([sign, sign, "1.5"] * 20).kind == "category"


def test_stray_words_among_numbers_are_gaps_up_to_a_tenth():
    numbers = [f"{row / 7:.4f}" for row in range(54)]
    one = treatment_of([*numbers, *["low", "high"] * 3])
    assert (one.kind, one.gap_words) == ("number", ("low", "high"))
    assert treatment_of([*numbers, *["low", "high"] * 4]).kind == "category"


@pytest.mark.parametrize(
    ("name", "values", "note"),
    [
        ("x", [None] * ROWS, "it has no values"),
        ("x", ["  ", "NA", ""] * 20, "it has no values"),
        ("x", [7] * ROWS, "it has one value only"),
        ("x", ["a"] * ROWS, "it has one value only"),
        ("x", [True] * ROWS, "it has one value only"),
        ("x", ["2024-01-01"] * ROWS, "it has one value only"),
        ("x", ["$5"] * ROWS, "it has one value only"),
        ("x", 1 + RNG.random(ROWS) * 1e-7, "its values differ by less than 0.000001"),
        ("x", range(3, 63), "it numbers the rows"),
        ("Unnamed: 0", range(ROWS), "it numbers the rows"),
        ("x", [f"name {row}" for row in range(ROWS)], "its values are all different"),
        ("PassengerId", RNG.permutation(ROWS), "all different and its name is that of an"),
        ("customer_id", RNG.permutation(ROWS), "all different and its name is that of an"),
        ("ID", RNG.permutation(ROWS) * 3, "all different and its name is that of an"),
        ("x", [f"CUS00{row}" for row in range(10, 70)], "its values are all different"),
        ("x", [f"name {row}" for row in range(15)], "none of its values occurs twice"),
    ],
)
@pytest.mark.parametrize("size", [1, 7, None])
def test_what_says_nothing_is_left_out_with_the_reason(name, values, note, size):
    one = treatment_of(list(values), name, size=size)
    assert one.kind == "left out"
    assert note in one.note


@pytest.mark.parametrize("size", [1, 7, None])
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("id", [*range(30), *range(30)]),
        ("hybrid", RNG.permutation(ROWS)),
        ("paid", RNG.permutation(ROWS)),
        ("x", RNG.permutation(ROWS)),
        ("id", RNG.normal(size=ROWS)),
        ("id", range(10)),
    ],
)
def test_what_only_looks_like_a_name_of_the_row_is_used(name, values, size):
    assert treatment_of(list(values), name, size=size).kind == "number"


def test_one_value_and_gaps_leave_the_gaps_as_an_input():
    for values in ([50_000.0, None] * 30, ["50000", None] * 30):
        frame = pd.DataFrame({"x": values})
        for layout in ("codes", "plain"):
            encoding = encoding_of(frame, layout)
            assert encoding.notes() == ("column 'x': it has one value only, beside gaps",)
            found = encoding.encode(block_of(frame), "table")
            assert found.tolist() == [[0, 0], [0, 1]] * 30


def test_levels_are_kept_by_how_often_they_occur_and_rare_ones_are_unknown():
    values = ["c"] * 5 + ["b"] * 2 + ["a"] * 2 + ["once", "twice"]
    one = treatment_of(values)
    assert one.levels == ("c", "a", "b")
    assert one.note == "2 rare levels taken as unknown"


def test_ten_thousand_categories_are_kept_and_no_more():
    values = np.repeat([f"level {number}" for number in range(12_000)], 2)
    one = treatment_of(values)
    assert len(one.levels) == 10_000
    assert one.note == "2,000 rare levels taken as unknown"


def test_the_user_has_the_last_word():
    frame = pd.DataFrame(
        {"code": [1, 2, 3] * 20, "id": range(60), "size": ["1", "big", "3"] * 20, "more": 1.5}
    )
    choices = ColumnChoices(("more",), ("id",), ("code",), ("size",))
    code, row, size, more = encoding_of(frame, choices=choices).treatments
    assert (code.kind, code.levels) == ("category", ("1", "2", "3"))
    assert row.kind == "number"
    assert (size.kind, size.gap_words) == ("number", ("big",))
    assert (more.kind, more.note) == ("left out", "as asked")
    dates = pd.DataFrame({"day": ["2024-01-01", "2024-01-02"] * 10})
    one = encoding_of(dates, choices=ColumnChoices(categorical=("day",))).treatments[0]
    assert one.levels == ("2024-01-01", "2024-01-02")


@pytest.mark.parametrize(
    ("choices", "sentence"),
    [
        (ColumnChoices(drop=("jop",)), "drop names 'jop', .* did you mean 'job'"),
        (ColumnChoices(categorical=("a",), numeric=("a",)), "both categorical and numeric"),
        (ColumnChoices(numeric=("job",)), "'job' must hold numbers, got 'cook'"),
        (ColumnChoices(drop=("a", "job")), "no column to learn from"),
    ],
)
def test_choices_that_cannot_be_are_refused(choices, sentence):
    frame = pd.DataFrame({"a": np.arange(30) % 7, "job": ["cook", "smith", "cook"] * 10})
    with pytest.raises(ValueError, match=sentence):
        encoding_of(frame, choices=choices)


@pytest.mark.parametrize("size", [1, 7, None])
@pytest.mark.parametrize("bad", [np.inf, -np.inf, "inf", "1e400", 10**400])
def test_infinite_numbers_are_refused_with_their_row(bad, size):
    values = np.array([*range(7, 47), bad, 5], object)
    with pytest.raises(ValueError, match=r"'x' must hold finite numbers, got -?inf in row 41;"):
        treatment_of(values, size=size)


@pytest.mark.parametrize("size", [1, 7, None])
def test_numbers_too_large_to_be_squared_are_refused_with_their_row(size):
    with pytest.raises(
        ValueError, match=r"'x' must hold numbers up to 1e\+100, got 1e\+160 in row 9"
    ):
        treatment_of([*range(3, 11), 1e160, *range(90)], size=size)


@pytest.mark.parametrize("cell", [[1], {"a": 1}, np.zeros(2)])
def test_a_cell_that_is_a_table_is_refused(cell):
    values = np.empty(30, object)
    for row in range(30):
        values[row] = cell
    with pytest.raises(ValueError, match=r"'x' must hold numbers, words or dates, got a "):
        treatment_of(values)


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_tables_of_no_rows_and_of_one_have_nothing_to_learn_from(rows):
    frame = pd.DataFrame({"x": [1.5] * rows, "y": ["a"] * rows})
    with pytest.raises(ValueError, match="table has no column to learn from: column 'x' is left"):
        encoding_of(frame)


NUMBERS = st.lists(st.integers(-20, 20) | st.floats(-1e6, 1e6), min_size=1, max_size=300)


@settings(deadline=None)
@given(NUMBERS)
def test_the_curve_is_that_of_ranks(numbers):
    values = np.sort(np.array(numbers, np.float64))
    knots, normal = normal_curve(values)
    ranks = stats.rankdata(values)  # those of equal numbers in the middle
    expected = stats.norm.ppf((ranks - 0.5) / len(values))
    at = dict(zip(values.tolist(), expected.tolist(), strict=True))
    assert np.all(np.diff(knots) > 0)
    np.testing.assert_allclose(normal, [at[knot] for knot in knots], atol=1e-12)
    assert {knots[0], knots[-1]} == {values[0], values[-1]}


def test_the_curve_of_many_numbers_is_close_to_that_of_all_ranks():
    values = np.sort(np.random.default_rng(0).lognormal(0, 3, 20_000))
    ranks = stats.norm.ppf((stats.rankdata(values) - 0.5) / len(values))
    found = np.interp(values, *normal_curve(values))
    assert np.abs(found - ranks)[100:-100].max() < 0.02
