"""Twins of the recurrent layers: layers and directions, first states, packed sequences."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from batchensemble.layers.base.rows import NotPerExampleError, running
from batchensemble.layers.recurrent import IndependentRecurrent
from catalogue import cell, draws, recurrent
from reference import (
    MEMBERS,
    OPTIONS,
    Case,
    assert_same,
    build,
    check,
    drawn,
    gradcheck,
    gradients,
    joined,
    parts_of,
)

UNITS, STEPS = 4, 5
options = st.sampled_from(list(OPTIONS.values()))
MODES = pytest.mark.parametrize("chosen", OPTIONS.values(), ids=OPTIONS)


@st.composite
def layers(draw):
    """Return the case of a recurrent layer of any arguments, with a first state or without."""
    kind = draw(st.sampled_from([nn.RNN, nn.LSTM, nn.GRU]))
    arguments = {
        "num_layers": draw(st.integers(1, 2)),
        "bidirectional": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
        "bias": draw(st.booleans()),
    }
    if kind is nn.RNN:
        arguments["nonlinearity"] = draw(st.sampled_from(["tanh", "relu"]))
    if kind is nn.LSTM:
        arguments["proj_size"] = draw(st.integers(0, 2))
    case = recurrent(kind, **arguments)
    return with_state(case, kind, arguments) if draw(st.booleans()) else case


def with_state(case, kind, arguments):
    count = arguments.get("num_layers", 1) * (1 + arguments.get("bidirectional", False))
    hidden = arguments.get("proj_size") or UNITS

    def inputs(batch):
        states = torch.randn(count, batch, hidden), torch.randn(count, batch, UNITS)
        return *case.inputs(batch), states if kind is nn.LSTM else states[0]

    axes = (case.axes, (1, 1) if kind is nn.LSTM else 1)
    return Case(case.make, inputs, axes, case.output_axes, case.matrices)


@settings(deadline=None, max_examples=20)
@given(layers(), options, st.integers(0, 2))
def test_a_recurrent_layer_of_any_arguments_is_its_members(case, chosen, batch):
    torch.manual_seed(0)
    layer = case.make()
    check(case, layer, build(layer, **chosen), chosen, batch)


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_the_gradients_of_first_states_are_their_slopes(kind):
    arguments = {"num_layers": 2, "batch_first": True}
    case = with_state(recurrent(kind, **arguments), kind, arguments)
    assert gradcheck(case, build(case.make()), batch=1)


@pytest.mark.parametrize("kind", [nn.RNNCell, nn.LSTMCell, nn.GRUCell])
@MODES
def test_a_cell_starts_without_a_state(kind, chosen):
    case = cell(kind, 2 if kind is nn.LSTMCell else 1)
    alone = Case(case.make, draws((None, 3)), matrices=case.matrices)
    layer = case.make()
    check(alone, layer, build(layer, **chosen), chosen, 2)


# Packed sequences, whose memory mixes the rows.


def packed(batch_first, is_sorted):
    """Return sequences of all members and how long each is."""
    lengths = torch.tensor([5, 4, 4, 2, 1, 1] if is_sorted else [2, 5, 1, 3, 4, 4])
    shape = (len(lengths), STEPS, 3) if batch_first else (STEPS, len(lengths), 3)
    x = torch.randn(shape, requires_grad=True)
    return x, lengths, pack_padded_sequence(x, lengths, batch_first, enforce_sorted=is_sorted)


def padded_outputs(outputs):
    y, ends = outputs
    return pad_packed_sequence(y, total_length=STEPS)[0], ends


@pytest.mark.parametrize("is_sorted", [True, False])
@pytest.mark.parametrize("arguments", [{}, {"bidirectional": True, "num_layers": 2}])
@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
@pytest.mark.parametrize("stated", [True, False])
def test_packed_sequences_are_their_members(kind, arguments, is_sorted, stated):
    case = with_state(recurrent(kind, **arguments), kind, arguments)
    layer = case.make()
    twin = build(layer)
    states = [part[1] if stated else None for part in parts_of(case, 2)]
    x, lengths, rows = packed(False, is_sorted)
    loop = [
        padded_outputs(
            functional_call(
                layer,
                case.plain_tensors(layer, twin, index, {}),
                (
                    pack_padded_sequence(
                        x[:, 2 * index : 2 * index + 2],
                        lengths[2 * index : 2 * index + 2],
                        enforce_sorted=False,
                    ),
                    states[index],
                ),
            )
        )
        for index in range(MEMBERS)
    ]
    y, ends = twin(rows, joined(states, case.axes[1]) if stated else None)
    assert (y.sorted_indices is None) == is_sorted
    assert torch.equal(y.batch_sizes, rows.batch_sizes)
    assert torch.equal(pad_packed_sequence(y)[1], lengths)
    outputs, expected = padded_outputs((y, ends)), joined(loop, case.output_axes)
    assert_same(outputs, expected)
    variables = [x, *twin.parameters()]
    assert_same(gradients(outputs, variables), gradients(expected, variables))


@pytest.mark.parametrize("is_sorted", [True, False])
def test_packed_sequences_go_to_copies_too(is_sorted):
    layers = [drawn(nn.GRU(3, UNITS, batch_first=True)) for _ in range(MEMBERS)]
    x, lengths, rows = packed(True, is_sorted)
    y, ends = IndependentRecurrent(layers)(rows)
    for index, layer in enumerate(layers):
        own = slice(2 * index, 2 * index + 2)
        each = pack_padded_sequence(x[own], lengths[own], batch_first=True, enforce_sorted=False)
        expected, end = padded_outputs(layer(each))
        assert_same(padded_outputs((y, ends))[0][:, own], expected)
        assert_same(ends[:, own], end)


def test_packed_sequences_that_cannot_be_parted_are_refused():
    rows = pack_padded_sequence(torch.randn(STEPS, 4, 3), torch.tensor([5, 4, 2, 2]))
    twin = build(nn.GRU(3, UNITS))
    twin.name = "encoder"
    with pytest.raises(NotPerExampleError, match="'encoder'"):
        twin(rows)


# Shapes, and copies.


@pytest.mark.parametrize("make", [build, lambda layer: IndependentRecurrent([layer] * MEMBERS)])
def test_a_sequence_without_its_batch_is_refused(make):
    with pytest.raises(NotPerExampleError, match=r"\[3, 3\]"):
        make(nn.GRU(3, UNITS))(torch.zeros(3, 3))


@pytest.mark.parametrize("batch_first", [True, False])
def test_one_sequence_for_all_examples_is_read_once_by_every_member(batch_first):
    twin = build(nn.LSTM(3, UNITS, batch_first=batch_first))
    x = torch.randn((1, STEPS, 3) if batch_first else (STEPS, 1, 3))
    with running(rows=MEMBERS * 2):
        y, ends = twin(x)
    axis = 0 if batch_first else 1
    for index in range(MEMBERS):
        expected, ends_alone = twin.member(index)(x)
        own = y.narrow(axis, 2 * index, 2)
        assert_same(own, expected.expand_as(own))
        for end, alone in zip(ends, ends_alone, strict=True):
            assert_same(end[:, 2 * index : 2 * index + 2], alone.expand(-1, 2, -1))


@settings(deadline=None, max_examples=10)
@given(layers(), st.integers(0, 2))
def test_independent_recurrent_layers_are_their_copies(case, batch):
    torch.manual_seed(0)
    layers = [drawn(case.make()) for _ in range(MEMBERS)]
    twin, parts = IndependentRecurrent(layers), parts_of(case, batch)
    loop = [layer(*part) for layer, part in zip(layers, parts, strict=True)]
    outputs, expected = twin(*joined(parts, case.axes)), joined(loop, case.output_axes)
    assert_same(outputs, expected)
    variables = list(twin.parameters())
    assert_same(gradients(outputs, variables), gradients(expected, variables))


def test_a_recurrent_twin_runs_alone_as_one_member():
    twin, x = build(nn.LSTM(3, UNITS)), torch.randn(STEPS, 2, 3)
    with running(member=2):
        assert_same(twin(x), twin.member(2)(x))


def test_networks_may_ask_a_twin_to_flatten_its_parameters():
    twin = build(nn.LSTM(3, UNITS))
    twin.flatten_parameters()
    assert twin.hidden_size == UNITS
    assert twin(torch.zeros(1, MEMBERS, 3))[0].shape == (1, MEMBERS, UNITS)
