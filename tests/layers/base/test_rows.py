"""Where the rows are: found by size, learned, or missing, in which case an error says so."""

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from batchensemble.layers import Independent, StackedLinear
from batchensemble.layers.base.rows import (
    RUNNING,
    AmbiguousAxisError,
    NotPerExampleError,
    enter,
    join,
    leave,
    repeat,
    row_axis,
    running,
    split,
    unfold,
)
from catalogue import RANK_ONE
from reference import MEMBERS, assert_same, build

ROWS = MEMBERS * 2
# Layers on whose input any axis but the last may be that of the rows.
ANY_AXIS = {
    "rank-one": lambda: build(nn.Linear(4, 5)),
    "additive": lambda: build(nn.Linear(4, 5), mode="additive"),
    "stacked": lambda: StackedLinear([nn.Linear(4, 5) for _ in range(MEMBERS)]),
    "layer norm": lambda: build(nn.LayerNorm(4)),
    "slope": lambda: build(nn.PReLU()),
}
TWINS = pytest.mark.parametrize("make", ANY_AXIS.values(), ids=ANY_AXIS)


def by_members(twin, x, axis):
    parts = [twin.member(i)(part) for i, part in enumerate(x.chunk(MEMBERS, axis))]
    return torch.cat(parts, axis)


class Stub:
    """A twin as far as rows are concerned."""

    def __init__(self, batch_axis=0, learned_axis=None):
        self.name, self.members = "stub", MEMBERS
        self.batch_axis, self.learned_axis = batch_axis, learned_axis


# Which axis.


@pytest.mark.parametrize(
    ("shape", "batch_axis", "learned", "axis"),
    [
        ((6, 4), 0, None, 0),
        ((18, 4), 0, None, 0),  # tokens of all examples in one axis
        ((4, 6, 5), 0, None, 1),
        ((4, 6, 5), 1, None, 1),
        ((6, 4, 5), 1, None, 0),
        ((6, 6, 5), 0, 1, 1),
        ((6, 6, 5), 1, 0, 0),
        ((6, 6, 5), 1, "several", 1),
        ((6,), 0, 0, 0),
        ((1, 4), 0, None, 0),
        ((1, 6, 4), 0, 0, 0),
        ((4, 4, 6), 0, 2, 2),
    ],
)
def test_the_axis_is_found_by_its_size_or_learned(shape, batch_axis, learned, axis):
    with running(rows=ROWS):
        assert row_axis(Stub(batch_axis, learned), torch.zeros(shape), len(shape)) == axis


@pytest.mark.parametrize("shape", [(6, 6, 5), (6,), (1, 6, 4), (12, 6, 2)])
def test_two_axes_that_fit_are_to_be_learned(shape):
    with running(rows=ROWS), pytest.raises(AmbiguousAxisError):
        row_axis(Stub(), torch.zeros(shape), len(shape))


@pytest.mark.parametrize(
    ("shape", "learned", "axes"),
    [((7, 5), None, 1), ((7, 5), None, 2), ((6, 6), -1, 2), ((), None, 0), ((6, 5, 6), 2, 1)],
)
def test_an_input_without_rows_is_refused_in_a_sentence_with_its_shape(shape, learned, axes):
    sentence = rf"'stub' is each member's own, but its input of shape \[{str(list(shape))[1:-1]}\]"
    with running(rows=ROWS), pytest.raises(NotPerExampleError, match=sentence) as error:
        row_axis(Stub(0, learned), torch.zeros(shape), axes)
    assert "no axis of 6 rows (3 members)" in str(error.value)
    assert "exclude=" in str(error.value)


def test_outside_an_ensemble_rows_are_a_multiple_of_the_members_on_their_own_axis():
    assert row_axis(Stub(), torch.zeros(9, 2), 1) == 0
    assert row_axis(Stub(batch_axis=1), torch.zeros(7, 9, 2), 2) == 1
    with pytest.raises(NotPerExampleError, match="no axis of rows of 3 members"):
        row_axis(Stub(), torch.zeros(7, 9), 2)


def test_no_examples_are_on_the_axis_where_they_are_by_custom():
    with running(rows=0):
        assert row_axis(Stub(batch_axis=1), torch.zeros(7, 0, 2), 2) == 1


@TWINS
def test_sequences_may_come_first(make):
    twin, x = make(), torch.randn(7, ROWS, 4)
    with running(rows=ROWS):
        assert_same(twin(x), by_members(twin, x, 1))


@TWINS
@pytest.mark.parametrize("axis", [0, 1])
def test_a_sequence_as_long_as_the_rows_is_ambiguous_until_it_is_learned(make, axis):
    twin, x = make(), torch.randn(ROWS, ROWS, 4)
    with running(rows=ROWS):
        with pytest.raises(AmbiguousAxisError):
            twin(x)
        twin.learned_axis = axis
        assert_same(twin(x), by_members(twin, x, axis))


@TWINS
def test_one_example_a_member_is_not_mistaken_for_an_axis_of_the_members(make):
    # Steps, rows and members are 3 each.
    twin, x = make(), torch.randn(MEMBERS, MEMBERS, 4)
    twin.learned_axis = 1
    with running(rows=MEMBERS):
        assert_same(twin(x), by_members(twin, x, 1))


def test_an_embedding_finds_its_rows_on_either_axis():
    twin, numbers = build(nn.Embedding(9, 4)), torch.randint(9, (7, ROWS))
    with running(rows=ROWS):
        assert_same(twin(numbers), by_members(twin, numbers, 1))
        assert_same(twin(numbers.T), by_members(twin, numbers.T, 0))


def test_a_vector_of_numbers_may_be_positions():
    twin = build(nn.Embedding(9, 4))
    with running(rows=ROWS):
        with pytest.raises(AmbiguousAxisError):
            twin(torch.arange(ROWS))
        twin.learned_axis = -1
        twin.name = "positions"
        with pytest.raises(NotPerExampleError, match=r"'positions'.*\[6\]"):
            twin(torch.arange(ROWS))
        twin.learned_axis = 0
        assert_same(twin(torch.arange(ROWS)), by_members(twin, torch.arange(ROWS), 0))


# One row for all examples.


@pytest.mark.parametrize(
    "name",
    [
        "linear",
        "linear on tokens",
        "Conv1D of transformers",
        "conv 2d",
        "depthwise conv 2d",
        "transposed conv 1d",
        "embedding",
        "bag, max",
        "bilinear",
        "rnn cell",
        "lstm cell",
    ],
)
@pytest.mark.parametrize("mode", ["multiplicative", "additive"])
def test_one_row_for_all_examples_is_seen_once_by_every_member(name, mode):
    case = RANK_ONE[name]
    twin, part = build(case.make(), mode=mode), case.inputs(1)
    with running(rows=ROWS):
        outputs = twin(*part)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    for index in range(MEMBERS):
        alone = twin.member(index)(*part)
        alone = alone if isinstance(alone, tuple) else (alone,)
        for got, expected in zip(outputs, alone, strict=True):
            own = got.chunk(MEMBERS)[index]
            assert own.shape == (2, *expected.shape[1:])
            assert_same(own, expected.expand_as(own))


def test_position_numbers_of_shape_one_by_steps_are_embedded_once_a_member():
    twin, positions = build(nn.Embedding(9, 4)), torch.arange(7).unsqueeze(0)
    with running(rows=ROWS):
        rows = twin(positions)
    assert rows.shape == (ROWS, 7, 4)
    assert_same(rows[2], twin.member(1)(positions)[0])


def test_one_row_on_the_second_axis_is_repeated_there():
    twin, x = build(nn.Linear(4, 5), batch_axis=1), torch.randn(7, 1, 4)
    with running(rows=ROWS):
        rows = twin(x)
    assert rows.shape == (7, ROWS, 5)
    assert_same(rows[:, 4:], twin.member(2)(x).expand(-1, 2, -1))


def test_one_row_and_no_examples_give_no_rows():
    with running(rows=0):
        assert build(nn.Linear(4, 5))(torch.randn(1, 7, 4)).shape == (0, 7, 5)


def test_one_row_of_a_single_member_stays_one():
    x = torch.randn(1, 4)
    with running(rows=5):
        assert enter(x, 0, 1) == (x, None)


class Token(nn.Module):
    """A module of the user's own that has one row without any input."""

    def __init__(self, rows=1):
        super().__init__()
        self.token = nn.Parameter(torch.randn(rows, 4))

    def forward(self):
        return {"token": self.token, "width": 4}


def test_what_a_module_makes_of_nothing_is_repeated_too():
    twin = Independent([Token() for _ in range(MEMBERS)])
    with running(rows=ROWS):
        outputs = twin()
    assert outputs["width"] == 4
    expected = torch.cat([copy.token for copy in twin.copies]).repeat_interleave(2, 0)
    assert torch.equal(outputs["token"], expected)


def test_what_a_module_makes_of_nothing_must_have_one_row():
    twin = Independent([Token(5) for _ in range(MEMBERS)])
    with running(rows=ROWS), pytest.raises(NotPerExampleError):
        twin()


# Members one by one.


@pytest.mark.parametrize("rows", [None, ROWS])
def test_a_module_without_rows_among_its_inputs_is_refused(rows):
    twin = Independent([nn.Linear(4, 2) for _ in range(MEMBERS)])
    twin.name = "head"
    with running(rows=rows), pytest.raises(NotPerExampleError, match=r"'head'.*\[7, 4\]"):
        twin(torch.zeros(7, 4))


def test_in_networks_whose_sequences_come_first_a_module_may_have_its_rows_first():
    layers = [nn.Linear(4, 2) for _ in range(MEMBERS)]
    twin = Independent(layers, batch_axis=1)
    x, steps = torch.randn(ROWS, 4), torch.randn(7, ROWS, 4)
    with running(rows=ROWS):
        assert_same(
            twin(x), torch.cat([f(part) for f, part in zip(layers, x.chunk(3), strict=True)])
        )
        parts = zip(layers, steps.chunk(3, 1), strict=True)
        assert_same(twin(steps), torch.cat([layer(part) for layer, part in parts], 1))


class Several(nn.Module):
    """Takes nested inputs, some of which hold no rows, and returns nested outputs."""

    def forward(self, x, extra, *, scale):
        a, (b,) = extra["pair"]
        return {"sum": (x + a) * scale, "list": [b, len(x), None], "scalar": x.mean()}


def test_nested_arguments_are_parted_and_nested_outputs_joined():
    twin = Independent([Several() for _ in range(MEMBERS)])
    x, a, b = torch.randn(ROWS, 4), torch.randn(ROWS, 4), torch.randn(ROWS, 2)
    scale = torch.randn(4)
    with running(rows=ROWS):
        outputs = twin(x, {"pair": (a, (b,))}, scale=scale)
    assert_same(outputs["sum"], (x + a) * scale)
    assert torch.equal(outputs["list"][0], b)
    assert outputs["list"][1:] == [2, None]
    assert_same(outputs["scalar"], x.mean())


@given(st.lists(st.integers(1, 5), min_size=6, max_size=6), st.booleans())
def test_packed_sequences_are_parted_and_joined(lengths, is_sorted):
    if is_sorted:
        lengths = sorted(lengths, reverse=True)
    lengths = torch.tensor(lengths)
    x = torch.randn(int(lengths.max()), 6, 2)
    packed = pack_padded_sequence(x, lengths, enforce_sorted=is_sorted)
    whole, _ = pad_packed_sequence(packed)
    parts = split(packed, MEMBERS)
    for index, part in enumerate(parts):
        padded, own = pad_packed_sequence(part)
        assert torch.equal(own, lengths[2 * index : 2 * index + 2])
        assert torch.equal(padded, whole[: len(padded), 2 * index : 2 * index + 2])
    again = join(parts)
    assert torch.equal(again.data, packed.data)
    assert torch.equal(pad_packed_sequence(again)[0], whole)
    assert (again.sorted_indices is None) == is_sorted


def test_what_holds_no_rows_goes_to_every_member():
    rows, table = torch.arange(ROWS), torch.zeros(7)
    with running(rows=ROWS):
        parts = split({"rows": rows, "table": table, "flag": True}, MEMBERS)
    assert [part["rows"].tolist() for part in parts] == [[0, 1], [2, 3], [4, 5]]
    assert all(part["table"] is table and part["flag"] for part in parts)


# Folding and unfolding.


@given(st.integers(0, 3), st.integers(0, 3), st.integers(0, 1))
def test_what_is_repeated_unfolds_to_the_same_for_each_member(batch, width, axis):
    x = torch.randn([2] * axis + [batch, width])
    rows = repeat(x, MEMBERS, axis)
    assert rows.shape[axis] == MEMBERS * batch
    for index in range(MEMBERS):
        assert torch.equal(unfold(rows, MEMBERS, axis).select(axis, index), x)


def test_what_enters_once_leaves_for_every_example():
    x = torch.randn(1, 4)
    with running(rows=ROWS):
        entered, times = enter(x, 0, MEMBERS)
    assert torch.equal(entered, x.expand(MEMBERS, 4))
    members = torch.arange(3).unsqueeze(1)
    assert leave(members, 0, times).flatten().tolist() == [0, 0, 1, 1, 2, 2]
    assert leave(members, 0, None) is members


def test_what_runs_is_forgotten_after_an_error():
    with pytest.raises(ZeroDivisionError), running(rows=6, member=1, calls=[]):
        _ = 1 / 0
    assert (RUNNING.rows, RUNNING.member, RUNNING.calls) == (None, None, None)


def test_what_runs_is_remembered_within_and_calls_are_noted():
    calls = []
    twin, x = build(nn.Linear(4, 5)), torch.zeros(2, 4)
    with running(rows=6, calls=calls):
        with running(member=1):
            twin(x)
        assert RUNNING.rows == 6
    assert [(each is twin, shape) for each, shape in calls] == [(True, (2, 4))]


@pytest.mark.parametrize(
    "make",
    [
        partial(nn.Linear, 4, 5),
        partial(nn.LayerNorm, 4),
        partial(nn.PReLU),
        partial(nn.Conv1d, 4, 4, 1),
        partial(nn.BatchNorm1d, 4),
        partial(nn.GroupNorm, 2, 4),
    ],
)
def test_every_family_names_itself_and_the_shape(make):
    twin = build(make())
    twin.name = "body.0"
    with (
        running(rows=ROWS),
        pytest.raises(NotPerExampleError, match=r"'body\.0'.*\[7, 4, 5\]|\[7, 4, 4\]"),
    ):
        twin(torch.zeros(7, 4, 4))
