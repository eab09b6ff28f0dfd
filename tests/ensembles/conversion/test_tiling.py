"""A batch becomes rows wherever it is in the arguments, and comes apart wherever it comes out."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers.modeling_outputs import BaseModelOutput

import batchensemble as be
from batchensemble.core.pytree import leaves, map_leaves
from batchensemble.ensembles.conversion.tiling import Arguments, Tiling, find_axis
from batchensemble.layers.base.rows import AmbiguousAxisError

MEMBERS, BATCH = 3, 2


class Anything(nn.Module):
    def forward(self, x, mask=None, *more, scale=1.0, **named):
        return x


def named(*args, **kwargs):
    return Arguments.of(Anything(), args, kwargs)


def tiling_of(*args, axis=0, per_member=False, untiled=(), **kwargs):
    return Tiling.of(named(*args, **kwargs), MEMBERS, axis, per_member, untiled)


def tiled(*args, axis=0, per_member=False, untiled=(), **kwargs):
    """Return the arguments as the network gets them, by name."""
    tiling = tiling_of(*args, axis=axis, per_member=per_member, untiled=untiled, **kwargs)
    return tiling.tile(named(*args, **kwargs)).values


def repeated(x, axis=0):
    return torch.cat([x] * MEMBERS, axis)


@dataclass
class Pair:
    x: Any
    note: str = ""


@dataclass(frozen=True)
class Frozen:
    x: Any
    note: str = ""


Named = namedtuple("Named", ["x", "note"])
CONTAINERS = {
    "dict": lambda x: {"x": x, "note": "a"},
    "ordered dict": lambda x: OrderedDict(x=x, note="a"),
    "list": lambda x: [x, "a"],
    "tuple": lambda x: (x, "a"),
    "named tuple": lambda x: Named(x, "a"),
    "dataclass": lambda x: Pair(x, "a"),
    "frozen dataclass": lambda x: Frozen(x, "a"),
    "Hugging Face output": lambda x: BaseModelOutput(last_hidden_state=x, attentions="a"),
    "nested": lambda x: {"x": [Frozen((x,), "a")]},
}
INSIDE = pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)


def tensor_in(value):
    (found,) = [leaf for _, leaf in leaves(value) if isinstance(leaf, Tensor)]
    return found


def test_arguments_are_named_by_the_parameters_of_the_network():
    values = named(1, 2, 3, 4, scale=5, other=6).values
    assert values == {
        "x": 1, "mask": 2, "argument 2": 3, "argument 3": 4, "scale": 5, "other": 6,
    }  # fmt: skip


def test_a_call_gives_the_network_its_arguments_as_the_user_did():
    class Echo(nn.Module):
        def forward(self, *args, **kwargs):
            return args, kwargs

    assert Arguments.of(Echo(), (1, 2), {"y": 3}).call(Echo()) == ((1, 2), {"y": 3})


def test_an_argument_given_twice_is_refused():
    with pytest.raises(TypeError, match="'x' is given twice, by position and by name"):
        be.BatchEnsemble(Anything(), 1)(torch.zeros(2, 3), x=torch.zeros(2, 3))


def test_every_tensor_with_the_batchs_size_is_repeated_member_after_member():
    x, y = torch.randn(BATCH, 4), torch.arange(BATCH)
    values = tiled(x, scale=y)
    assert torch.equal(values["x"], repeated(x))
    assert values["scale"].tolist() == [0, 1] * MEMBERS


def test_what_is_not_per_example_passes_as_the_very_same_object():
    others = [torch.randn(5, 4), torch.tensor(1.0), torch.randn(BATCH + 1), "text", None, 3, {1, 2}]
    values = tiled(torch.randn(BATCH, 4), None, *others)
    assert all(values[f"argument {index + 2}"] is each for index, each in enumerate(others))


@INSIDE
def test_tensors_inside_containers_are_repeated_and_the_containers_stay(container):
    x = torch.randn(BATCH, 4)
    given = container(x)
    got = tiled(given)["x"]
    assert type(got) is type(given)
    assert [path for path, _ in leaves(got)] == [path for path, _ in leaves(given)]
    assert torch.equal(tensor_in(got), repeated(x))
    assert tensor_in(given) is x


@INSIDE
def test_outputs_inside_containers_come_apart_and_the_containers_stay(container):
    tiling = Tiling(MEMBERS, BATCH)
    rows = torch.randn(MEMBERS * BATCH, 4)
    got = tiling.take_apart(container(rows), {})
    assert type(got) is type(container(rows))
    assert torch.equal(tensor_in(got), rows.view(MEMBERS, BATCH, 4).transpose(0, 1))
    together = tiling.gather([container(part) for part in rows.split(BATCH)], {})
    assert type(together) is type(got)
    assert torch.equal(tensor_in(together), tensor_in(got))


@pytest.mark.parametrize("untiled", [["mask"], ("mask",), {"mask"}])
def test_an_argument_can_be_kept_from_being_repeated(untiled):
    mask = torch.randn(BATCH, BATCH)
    assert tiled(torch.randn(BATCH, 4), mask, untiled=untiled)["mask"] is mask
    assert tiled(torch.randn(BATCH, 4), mask=mask, untiled=untiled)["mask"] is mask


def test_a_key_inside_an_argument_can_be_kept_from_being_repeated():
    inside = {"mask": torch.randn(BATCH, BATCH), "x": torch.randn(BATCH, 4)}
    got = tiled(inside, untiled=["mask"])["x"]
    assert got["mask"] is inside["mask"]
    assert torch.equal(got["x"], repeated(inside["x"]))


def test_the_size_of_the_batch_is_not_read_from_what_is_not_per_example():
    tiling = tiling_of(torch.randn(7, 7), torch.randn(BATCH, 4), untiled=["x"])
    assert (tiling.batch, tiling.rows) == (BATCH, MEMBERS * BATCH)


class TestBatchOnTheSecondAxis:
    def test_is_repeated_there(self):
        x = torch.randn(5, BATCH, 4)
        assert torch.equal(tiled(x, axis=1)["x"], repeated(x, 1))

    def test_lengths_and_padding_masks_have_it_first_and_are_repeated_too(self):
        lengths, mask = torch.tensor([5, 3]), torch.zeros(BATCH, 5)
        values = tiled(torch.randn(5, BATCH, 4), mask, lengths, axis=1)
        assert torch.equal(values["argument 2"], repeated(lengths))
        assert torch.equal(values["mask"], repeated(mask))

    def test_what_has_it_on_neither_axis_passes_untouched(self):
        table = torch.randn(5, 4)
        assert tiled(torch.randn(5, BATCH, 4), table, axis=1)["mask"] is table

    def test_members_may_have_examples_of_their_own(self):
        x = torch.randn(5, BATCH, MEMBERS, 4)
        rows = tiled(x, axis=1, per_member=True)["x"]
        expected = torch.cat([x[:, :, index] for index in range(MEMBERS)], 1)
        assert torch.equal(rows, expected)


class TestExamplesOfEachMembersOwn:
    def test_become_the_rows_of_that_member(self):
        x = torch.randn(BATCH, MEMBERS, 4)
        rows = tiled(x, per_member=True)["x"]
        assert torch.equal(rows, torch.cat([x[:, index] for index in range(MEMBERS)]))

    def test_may_stand_beside_inputs_that_all_members_share(self):
        x, shared = torch.randn(BATCH, MEMBERS, 4), torch.randn(BATCH, 4)
        assert torch.equal(tiled(x, shared, per_member=True)["mask"], repeated(shared))

    def test_go_to_copies_of_the_network_one_by_one(self):
        x, shared = torch.randn(BATCH, MEMBERS, 4), torch.randn(BATCH, 4)
        tiling = tiling_of(x, shared, per_member=True)
        own = tiling.member_arguments(named(x, shared), 2).values
        assert torch.equal(own["x"], x[:, 2])
        assert own["mask"] is shared

    @pytest.mark.parametrize("shape", [(BATCH,), (BATCH, 4), (BATCH, MEMBERS + 1, 4)])
    def test_need_an_axis_of_members(self, shape):
        with pytest.raises(ValueError, match=rf"\[batch, members=3, \.\.\.\], got \[{BATCH}"):
            tiling_of(torch.randn(shape), per_member=True)


class TestPackedSequences:
    lengths = (2, 5, 3)

    def packed(self, enforce_sorted=False):
        lengths = sorted(self.lengths, reverse=True) if enforce_sorted else self.lengths
        x = torch.randn(len(lengths), 5, 4)
        for sequence, length in zip(x, lengths, strict=True):
            sequence[length:] = 0
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=enforce_sorted)
        return x, list(lengths), packed

    @pytest.mark.parametrize("enforce_sorted", [False, True])
    def test_are_repeated_sequence_by_sequence(self, enforce_sorted):
        x, lengths, packed = self.packed(enforce_sorted)
        padded, got = pad_packed_sequence(tiled(packed)["x"], batch_first=True)
        assert torch.equal(padded, repeated(x))
        assert got.tolist() == lengths * MEMBERS

    @pytest.mark.parametrize("examples", [2, 3, 5])
    def test_are_shortened_and_lengthened_like_other_inputs(self, examples):
        x, lengths, packed = self.packed()
        arguments = named(packed, torch.arange(3))
        resized = tiling_of(packed, torch.arange(3)).resized(arguments, examples).values
        chosen = [index % 3 for index in range(examples)]
        padded, got = pad_packed_sequence(resized["x"], batch_first=True, total_length=5)
        assert torch.equal(padded, x[chosen])
        assert got.tolist() == [lengths[index] for index in chosen]
        assert resized["mask"].tolist() == chosen

    def test_as_outputs_are_refused_with_what_to_do(self):
        with pytest.raises(ValueError, match=r"returns a PackedSequence, .* pad_packed_sequence"):
            Tiling(MEMBERS, 3).take_apart(self.packed()[2], {})


def test_resizing_takes_the_first_examples_over_and_over():
    x, table = torch.arange(6).view(2, 3), torch.randn(4, 4)
    tiling = tiling_of(x, table)
    more = tiling.resized(named(x, table), 5).values
    assert torch.equal(more["x"], x[[0, 1, 0, 1, 0]])
    assert more["mask"] is table
    assert torch.equal(tiling.resized(named(x), 1).values["x"], x[:1])


def test_resizing_no_examples_makes_some_up():
    x = torch.zeros(0, 3, dtype=torch.long)
    assert tiling_of(x).resized(named(x), 2).values["x"].tolist() == [[0, 0, 0]] * 2


@pytest.mark.parametrize("arguments", [(), ("a text",), (None, 3), (torch.tensor(1.0),), ({},)])
def test_arguments_without_a_batch_are_refused(arguments):
    with pytest.raises(ValueError, match="the inputs must hold a tensor with an axis of the batch"):
        tiling_of(*arguments)


def test_of_refused_arguments_the_names_are_told():
    with pytest.raises(ValueError, match=r"of the batch, got x, scale$"):
        tiling_of("a text", scale=3)


def test_describing_says_what_is_per_example_and_what_is_not():
    x, mask, where = torch.zeros(2, 4), torch.zeros(5, 5), {"at": torch.zeros(2)}
    assert tiling_of(x, mask).describe(named(x, mask, scale=where)) == (
        "per example: x [2, 4], scale.at [2]; not per example, since axis 0 is not 2: mask [5, 5]"
    )
    sequence = torch.zeros(7, 2, 4)
    assert tiling_of(sequence, axis=1).describe(named(sequence, mask)) == (
        "per example: x [7, 2, 4]; "
        "not per example, since neither axis 1 nor axis 0 is 2: mask [5, 5]"
    )


class TestOutputs:
    rows = MEMBERS * BATCH

    def apart(self, outputs, axes=None, axis=0):
        return Tiling(MEMBERS, BATCH, axis).take_apart(outputs, axes or {})

    @pytest.mark.parametrize("axis", [0, 1, 2, 3])
    def test_come_apart_on_whatever_axis_the_rows_are(self, axis):
        plain = [torch.randn(5, 7, 4).unsqueeze(axis) for _ in range(self.rows)]
        outputs = self.apart(torch.cat(plain, axis))
        for index in range(MEMBERS):
            for example in range(BATCH):
                expected = plain[index * BATCH + example].squeeze(axis)
                assert torch.equal(outputs[example, index], expected)

    def test_two_axes_of_that_size_are_ambiguous_and_the_known_one_is_taken(self):
        square = torch.randn(self.rows, self.rows, 4)
        for axis in (0, 1):
            with pytest.raises(AmbiguousAxisError):
                self.apart(square, axis=axis)
            expected = square.movedim(axis, 0).view(MEMBERS, BATCH, self.rows, 4).transpose(0, 1)
            assert torch.equal(self.apart(square, {(): axis}), expected)

    def test_a_known_axis_that_has_another_size_is_looked_for_again(self):
        assert find_axis(torch.zeros(5, self.rows), self.rows, 0, known=0) == 1
        assert find_axis(torch.zeros(self.rows), self.rows, 0, known=1) == 0

    def test_known_to_have_no_rows_pass_untouched(self):
        outputs = {"y": torch.randn(self.rows, 4), "table": torch.randn(self.rows, 4)}
        got = self.apart(outputs, {("table",): -1})
        assert got["table"] is outputs["table"]
        assert got["y"].shape == (BATCH, MEMBERS, 4)

    def test_that_are_not_per_example_pass_untouched(self):
        loss, table = torch.tensor(0.5), torch.randn(5, 4)
        got = self.apart((torch.zeros(self.rows, 4), loss, table, "text", None))
        assert got[1] is loss
        assert got[2] is table
        assert got[3:] == ("text", None)

    @pytest.mark.parametrize(
        ("outputs", "named"),
        [
            (None, "returned NoneType"),
            (torch.tensor(1.0), r"returned \[\]"),
            ((torch.zeros(5), "a"), r"returned \[5\], str"),
            ({}, "returned nothing"),
        ],
    )
    def test_without_rows_are_refused(self, outputs, named):
        with pytest.raises(ValueError, match=f"for {self.rows} rows it {named}$"):
            self.apart(outputs)
        with pytest.raises(ValueError, match=f"for {BATCH} rows it {named}$"):
            Tiling(MEMBERS, BATCH).gather([outputs] * MEMBERS, {})

    def test_of_copies_are_averaged_where_they_are_numbers_and_not_per_example(self):
        parts = [
            {"y": torch.randn(BATCH, 4), "loss": torch.tensor(float(index)), "steps": 7}
            for index in range(MEMBERS)
        ]
        got = Tiling(MEMBERS, BATCH).gather(parts, {})
        assert got["loss"].item() == 1.0
        assert got["steps"] == 7
        for index in range(MEMBERS):
            assert torch.equal(got["y"][:, index], parts[index]["y"])

    def test_of_copies_come_together_on_whatever_axis_the_batch_is(self):
        parts = [torch.randn(4, BATCH, 5) for _ in range(MEMBERS)]
        got = Tiling(MEMBERS, BATCH).gather(parts, {})
        for index in range(MEMBERS):
            assert torch.equal(got[:, index], parts[index].movedim(1, 0))


def test_rows_and_columns_are_inverses_for_any_nesting():
    x = {"a": torch.randn(BATCH, 4), "b": [torch.randn(BATCH, 2, 2)]}
    tiling = tiling_of(x)
    apart = tiling.take_apart(tiling.tile(named(x)).values["x"], {})
    for index in range(MEMBERS):
        map_leaves(lambda _, y, x, i=index: torch.testing.assert_close(y[:, i], x), apart, x)
