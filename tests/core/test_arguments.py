"""Every check says what was got and what was expected."""

import numpy as np
import pytest

from batchensemble.core.arguments import fraction, nearest, one_of, positive_number, whole_number

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("value", [1, 7, np.int32(3), np.uint8(200)])
def test_whole_numbers_of_any_making_become_ints(value):
    checked = whole_number("members", value)
    assert checked == value
    assert type(checked) is int


@pytest.mark.parametrize("value", [1.0, NAN, "3", None, True, np.bool_(True), [3], np.array([3])])
def test_what_is_no_whole_number_is_a_type_error(value):
    with pytest.raises(TypeError, match="members must be a whole number of at least 1, got"):
        whole_number("members", value)


@pytest.mark.parametrize(("value", "at_least"), [(0, 1), (-1, 0), (1, 2), (np.int64(-5), 1)])
def test_too_small_a_number_is_a_value_error(value, at_least):
    with pytest.raises(ValueError, match=f"seed must be at least {at_least}, got {value}"):
        whole_number("seed", value, at_least=at_least)


@pytest.mark.parametrize("value", [1, 0.5, 1e-300, np.float32(0.25)])
def test_positive_numbers_become_floats(value):
    checked = positive_number("lr", value)
    assert checked == value
    assert type(checked) is float


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (0, ValueError),
        (0.0, ValueError),
        (-1e-9, ValueError),
        (NAN, ValueError),
        (INF, ValueError),
        (-INF, ValueError),
        ("1", TypeError),
        (None, TypeError),
        (True, TypeError),
        (1j, TypeError),
    ],
)
def test_what_is_no_positive_number_is_refused(value, error):
    with pytest.raises(error, match=r"lr must be a .*above 0, got"):
        positive_number("lr", value)


@pytest.mark.parametrize("value", [0, 1, 0.0, 0.3, 1.0, np.float64(0.5)])
def test_fractions_may_be_both_ends(value):
    checked = fraction("cooldown", value)
    assert checked == value
    assert type(checked) is float


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (-0.1, ValueError),
        (1.1, ValueError),
        (NAN, ValueError),
        (INF, ValueError),
        ("0.5", TypeError),
        (None, TypeError),
        (False, TypeError),
    ],
)
def test_what_is_no_fraction_is_refused(value, error):
    with pytest.raises(error, match="cooldown must be a number from 0 to 1, got"):
        fraction("cooldown", value)


def test_an_allowed_name_is_returned():
    assert one_of("mode", "deep", ["single", "deep"]) == "deep"


@pytest.mark.parametrize(
    ("value", "ending"),
    [
        ("depp", "got 'depp'; did you mean 'deep'?"),
        ("DEEP", "got 'DEEP'; did you mean 'deep'?"),
        ("xyz", "got 'xyz'"),
        ("", "got ''"),
        (None, "got None"),
        (3, "got 3"),
    ],
)
def test_another_name_is_refused_with_the_nearest(value, ending):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        one_of("method", value, iter(["single", "deep"]))
    assert str(error.value) == f"method must be one of single, deep, {ending}"


def test_nothing_is_proposed_where_nothing_is_near():
    assert nearest("xyz", ["single", "deep"]) == ""
    assert nearest("singel", iter(["single", "deep"])) == "; did you mean 'single'?"
