"""Nested values keep their containers, whatever is done to their leaves."""

import collections
import dataclasses
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.utils.rnn import pack_sequence
from transformers.modeling_outputs import BaseModelOutput

from batchensemble.core.pytree import leaves, map_leaves


class Point(NamedTuple):
    x: Any
    y: Any


@dataclasses.dataclass
class Box:
    inside: Any
    label: str = "box"


@dataclasses.dataclass(frozen=True)
class Sealed:
    inside: Any


def nested(leaf):
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.tuples(inner, inner),
            st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
            st.builds(Point, inner, inner),
            st.builds(Box, inner),
            st.builds(Sealed, inner),
        ),
        max_leaves=8,
    )


@given(nested(st.integers() | st.none() | st.text(max_size=2)))
def test_doing_nothing_to_the_leaves_gives_an_equal_value(value):
    copied = map_leaves(lambda path, leaf: leaf, value)
    assert copied == value
    assert type(copied) is type(value)


@given(nested(st.integers()))
def test_the_leaves_are_visited_in_the_order_in_which_they_are_listed(value):
    seen = []

    def note(path, leaf):
        seen.append((path, leaf))

    map_leaves(note, value)
    assert seen == list(leaves(value))


@given(nested(st.integers()))
def test_several_values_of_the_same_nesting_go_together(value):
    twice = map_leaves(lambda path, one, other: one + other, value, value)
    assert twice == map_leaves(lambda path, leaf: leaf * 2, value)


def test_paths_name_keys_indices_and_fields():
    value = {"a": [1, Point(2, Box(3))]}
    assert list(leaves(value)) == [
        (("a", 0), 1),
        (("a", 1, 0), 2),
        (("a", 1, 1, "inside"), 3),
        (("a", 1, 1, "label"), "box"),
    ]


@pytest.mark.parametrize(
    "value",
    [
        collections.OrderedDict(b=1, a=2),
        collections.defaultdict(list, a=1),
        Point(1, 2),
        Sealed(1),
        (),
        [],
        {},
    ],
)
def test_containers_come_back_in_their_own_class(value):
    result = map_leaves(lambda path, leaf: leaf * 10, value)
    assert type(result) is type(value)
    assert [leaf for _, leaf in leaves(result)] == [10 * leaf for _, leaf in leaves(value)]


def test_a_default_is_kept():
    result = map_leaves(lambda path, leaf: leaf, collections.defaultdict(list, a=1))
    assert result["missing"] == []


def test_the_value_itself_stays_as_it_was():
    value = {"a": [1, Box(2)], "b": collections.OrderedDict(c=3)}
    map_leaves(lambda path, leaf: 0, value)
    assert value == {"a": [1, Box(2)], "b": collections.OrderedDict(c=3)}


def test_outputs_of_transformers_keep_their_class_keys_and_attributes():
    output = BaseModelOutput(last_hidden_state=torch.ones(2), attentions=(torch.ones(1),))
    result = map_leaves(lambda path, leaf: leaf * 3, output)
    assert type(result) is BaseModelOutput
    assert list(result.keys()) == ["last_hidden_state", "attentions"]
    assert result.last_hidden_state is result["last_hidden_state"] is result[0]
    assert result.attentions[0].item() == 3
    assert output.last_hidden_state.tolist() == [1, 1]


def test_a_packed_sequence_a_class_and_a_view_of_a_mapping_are_what_they_are():
    packed = pack_sequence([torch.ones(2), torch.ones(1)])
    assert [leaf for _, leaf in leaves([packed, Box])] == [packed, Box]
    view = MappingProxyType({"a": 1})
    assert list(leaves(view)) == [(("a",), 1)]
