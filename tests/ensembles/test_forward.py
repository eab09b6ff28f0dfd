"""Any arguments in and any outputs out; the reference is a loop over the members."""

import threading
from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers.modeling_outputs import SequenceClassifierOutput

import batchensemble as be
from batchensemble.core.pytree import leaves
from batchensemble.ensembles.base import ForwardError
from batchensemble.layers.base.rows import RUNNING
from batchensemble.layers.base.written_inputs import FIRST_CALLS

MEMBERS = 3
MAKE = {
    "batch": lambda network, **options: be.BatchEnsemble(
        network, MEMBERS, init="normal", std=0.3, **options
    ),
    "additive": lambda network, **options: be.BatchEnsemble(
        network, MEMBERS, mode="additive", rank=2, **options
    ),
    "deep": lambda network, **options: be.DeepEnsemble(network, MEMBERS, **options),
}


@pytest.fixture(params=MAKE)
def make(request):
    return MAKE[request.param]


@pytest.fixture(autouse=True)
def _float64():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def tensors(value):
    return [leaf for _, leaf in leaves(value) if isinstance(leaf, Tensor)]


def assert_members_match(model, *args, axes=(0,), **kwargs):
    """Compare the outputs, whose batch is on ``axes``, with the members' one by one."""
    outputs = tensors(model(*args, **kwargs))
    assert len(outputs) == len(axes)
    for index in range(model.members):
        alone = tensors(model.member(index)(*args, **kwargs))
        for together, expected, axis in zip(outputs, alone, axes, strict=True):
            torch.testing.assert_close(together[:, index], expected.movedim(axis, 0))


class Scored(nn.Module):
    """Takes its inputs in many ways."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 5), nn.Linear(3, 5)

    def forward(self, x, context=None, scale=1.0, *, table=None):
        if isinstance(x, dict):
            x, context = x["x"], x["pair"][0]
        hidden = self.one(x)
        if context is not None:
            hidden = hidden + self.two(context)
        return hidden * scale if table is None else hidden @ table


def test_inputs_by_position_by_name_and_nested_are_the_same(make):
    model = make(Scored())
    x, context = torch.randn(7, 4), torch.randn(7, 3)
    expected = model(x, context)
    assert_members_match(model, x, context)
    for outputs in (
        model(x, context=context),
        model(context=context, x=x),
        model({"x": x, "pair": (context, "a note")}),
        model({"x": x, "pair": [context]}),
    ):
        assert torch.equal(outputs, expected)


def test_tensors_that_are_not_per_example_reach_the_network_untouched(make):
    seen = []

    class Keeps(Scored):
        def forward(self, x, table):
            seen.append(table)
            return super().forward(x, table=table)

    table = torch.randn(5, 6)
    model = make(Keeps())
    for _ in range(FIRST_CALLS):  # which get copies, to see whether the network writes into them
        model(torch.randn(7, 4), table)
    assert all(torch.equal(each, table) for each in seen)
    seen.clear()
    model(torch.randn(7, 4), table)
    assert all(each is table for each in seen)
    assert_members_match(model, torch.randn(7, 4), table)


@pytest.mark.parametrize("given", ["untiled", ["table"], "by key"])
def test_a_table_as_long_as_the_batch_is_named_in_untiled(make, given):
    x, table = torch.randn(5, 4), torch.randn(5, 6)
    if given == "by key":

        class Keyed(Scored):
            def forward(self, inputs):
                return super().forward(inputs["x"], table=inputs["weights"])

        model = make(Keyed(), untiled=["weights"])
        assert_members_match(model, {"x": x, "weights": table})
        return
    model = make(Scored(), untiled="table" if given == "untiled" else given)
    assert_members_match(model, x, table=table)
    if isinstance(model, be.BatchEnsemble):
        model = make(Scored(), run="together")
        with pytest.raises(ForwardError, match=r"per example: x \[5, 4\], table \[5, 6\]"):
            model(x, table=table)


Named = namedtuple("Named", ["logits", "hidden"])


@dataclass
class Plain:
    logits: Tensor
    hidden: Tensor


@dataclass(frozen=True)
class Frozen:
    logits: Tensor
    hidden: Tensor


OUTPUTS = {
    "tuple": lambda logits, hidden: (logits, hidden),
    "list": lambda logits, hidden: [logits, hidden],
    "dict": lambda logits, hidden: {"logits": logits, "hidden": hidden},
    "nested": lambda logits, hidden: {"all": ([logits], {"hidden": hidden})},
    "named tuple": Named,
    "dataclass": Plain,
    "frozen dataclass": Frozen,
    "Hugging Face output": lambda logits, hidden: SequenceClassifierOutput(
        logits=logits, hidden_states=(hidden,)
    ),
}


@pytest.mark.parametrize("container", OUTPUTS.values(), ids=OUTPUTS)
def test_outputs_come_in_the_networks_own_containers(make, container):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.head = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x):
            hidden = torch.tanh(self.stem(x))
            return container(self.head(hidden), hidden)

    model = make(Network())
    x = torch.randn(5, 4)
    assert type(model(x)) is type(model.member(0)(x))
    assert_members_match(model, x, axes=(0, 0))


class WithLoss(nn.Module):
    """Returns a loss over the batch beside the outputs."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 2)

    def forward(self, x, labels=None):
        logits = self.head(x)
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits, "steps": 3}


def test_a_loss_beside_the_outputs_is_the_mean_over_the_members(make):
    model = make(WithLoss())
    x, labels = torch.randn(7, 4), torch.randint(2, (7,))
    got = model(x, labels)
    alone = [model.member(index)(x, labels) for index in range(MEMBERS)]
    torch.testing.assert_close(got["loss"], torch.stack([each["loss"] for each in alone]).mean())
    assert got["steps"] == 3
    assert got["logits"].shape == (7, MEMBERS, 2)
    assert model(x)["loss"] is None


class Lstm(nn.Module):
    """Returns its outputs and its states, whose batch is on the second axis."""

    def __init__(self, layers=2, batch_first=True):
        super().__init__()
        self.lstm = nn.LSTM(4, 5, num_layers=layers, batch_first=batch_first)

    def forward(self, x):
        return self.lstm(x)


@pytest.mark.parametrize("batch", [1, 2, 3, 4])
@pytest.mark.parametrize("layers", [1, 2, 6])
def test_states_of_an_lstm_come_apart_however_many_layers_it_has(make, layers, batch):
    model = make(Lstm(layers))
    assert_members_match(model, torch.randn(batch, 5, 4), axes=(0, 1, 1))
    outputs, (hidden, _) = model(torch.randn(batch, 5, 4))
    assert outputs.shape == (batch, MEMBERS, 5, 5)
    assert hidden.shape == (batch, MEMBERS, layers, 5)


@pytest.mark.parametrize("steps", [2, 5, 6, 12])
def test_the_batch_may_be_on_the_second_axis_however_long_the_sequence_is(make, steps):
    model = make(Lstm(batch_first=False), batch_axis=1)
    assert_members_match(model, torch.randn(steps, 2, 4), axes=(1, 1, 1))


class Lengths(nn.Module):
    """Packs sequences inside, as recurrent classifiers do."""

    def __init__(self, batch_first):
        super().__init__()
        self.batch_first = batch_first
        self.gru, self.head = nn.GRU(4, 5, batch_first=batch_first), nn.Linear(5, 2)

    def forward(self, x, lengths):
        packed = pack_padded_sequence(x, lengths, self.batch_first, enforce_sorted=False)
        return self.head(self.gru(packed)[1][-1])


def test_a_single_network_may_have_the_sequence_first_too():
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh())
    x = torch.randn(7, 4, 2)
    assert torch.equal(be.Single(net, batch_axis=1)(x), net(x).transpose(0, 1).unsqueeze(1))


@pytest.mark.parametrize("batch_axis", [0, 1])
def test_lengths_of_the_sequences_go_with_them(make, batch_axis):
    model = make(Lengths(batch_axis == 0), batch_axis=batch_axis)
    x = torch.randn(4, 7, 4)
    assert_members_match(model, x.transpose(0, batch_axis), torch.tensor([3, 7, 1, 5]))


@pytest.mark.parametrize("steps", [3, 4, 12])
def test_a_transformer_that_takes_the_sequence_first_gets_its_padding_mask(make, steps):
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0)
            self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

        def forward(self, x, padding):
            return self.encoder(x, src_key_padding_mask=padding)

    padding = torch.zeros(5, steps, dtype=torch.bool)
    padding[1, 2:] = True
    model = make(Encoder(), batch_axis=1)
    assert_members_match(model, torch.randn(steps, 5, 8), padding, axes=(1,))


class Packed(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru, self.head = nn.GRU(4, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, packed):
        outputs, state = self.gru(packed)
        return self.head(pad_packed_sequence(outputs, batch_first=True)[0]), state


@pytest.mark.parametrize("verified", [False, True])
@pytest.mark.parametrize("enforce_sorted", [False, True])
def test_packed_sequences_are_inputs_like_others(make, enforce_sorted, verified):
    lengths = [6, 5, 3, 2] if enforce_sorted else [3, 6, 2, 5]
    x = torch.randn(4, 6, 4)
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=enforce_sorted)
    model = make(Packed())
    if verified:
        assert model.verify(packed).batches == (4, 3)
    assert_members_match(model, packed, axes=(0, 1))


class TwoInputs(nn.Module):
    def __init__(self, features=2):
        super().__init__()
        self.pair, self.head = nn.Bilinear(4, features, 5), nn.Linear(5, 2)

    def forward(self, x, y, weight=None):
        outputs = self.head(torch.tanh(self.pair(x, y)))
        return outputs if weight is None else outputs * weight.unsqueeze(1)


def test_each_member_may_have_examples_of_its_own_in_some_inputs(make):
    model = make(TwoInputs())
    x, y, weight = torch.randn(5, MEMBERS, 4), torch.randn(5, 2), torch.rand(5)
    for own_y in (y, torch.randn(5, MEMBERS, 2)):
        outputs = model(x, own_y, weight=weight, per_member=True)
        for index in range(MEMBERS):
            alone = own_y if own_y.dim() == 2 else own_y[:, index]
            expected = model.member(index)(x[:, index], alone, weight)
            torch.testing.assert_close(outputs[:, index], expected)


def test_a_shared_input_with_as_many_features_as_members_is_expanded_by_the_user(make):
    model = make(TwoInputs(MEMBERS))
    x, y = torch.randn(5, MEMBERS, 4), torch.randn(5, MEMBERS)
    outputs = model(x, y.unsqueeze(1).expand(-1, MEMBERS, -1), per_member=True)
    for index in range(MEMBERS):
        torch.testing.assert_close(outputs[:, index], model.member(index)(x[:, index], y))


class ByPositions(nn.Module):
    """Its answers are ``[positions, batch]``."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 1)

    def forward(self, x):
        return self.head(x).squeeze(-1)


@pytest.mark.parametrize("steps", [1, 2, 5, 6, 12])
def test_outputs_as_long_as_the_rows_are_not_taken_for_the_rows(make, steps):
    model = make(ByPositions(), batch_axis=1)
    assert_members_match(model, torch.randn(steps, 2, 4), axes=(1,))


@pytest.mark.parametrize("classes", [2, 5, 6])
def test_as_many_classes_as_rows_are_not_taken_for_the_rows(make, classes):
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru, self.head = nn.GRU(4, 5), nn.Linear(5, classes)

        def forward(self, x):
            return self.head(self.gru(x)[0][-1])

    model = make(Last(), batch_axis=1)
    assert_members_match(model, torch.randn(7, 2, 4))
    model = make(nn.Sequential(nn.Conv1d(4, classes, 3, padding=1)))
    assert_members_match(model, torch.randn(2, 4, classes))


def test_a_part_for_each_step_of_each_example_passes_as_it_is():
    class Flat(ByPositions):
        def forward(self, x):
            outputs = super().forward(x)
            return outputs, outputs.flatten()

    model = be.BatchEnsemble(Flat(), MEMBERS)
    x = torch.randn(5, 7, 4)
    for _ in range(2):
        outputs, flat = model(x)
        assert torch.equal(flat, outputs.transpose(0, 1).flatten())
        model.verify(x)  # learns where the rows are


@pytest.mark.parametrize("result", ["none", "scalar", "flat"])
def test_a_network_that_returns_nothing_per_example_is_refused(make, result):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            outputs = self.head(x)
            return {"none": None, "scalar": outputs.sum(), "flat": outputs.flatten()}[result]

    rows = "NoneType" if result == "none" else r"\[\d*\]"
    with pytest.raises(ValueError, match=rf"must return a tensor with an axis of the .* {rows}$"):
        make(Odd())(torch.randn(5, 4))


def test_inputs_with_different_numbers_of_examples_are_told_apart():
    model = be.BatchEnsemble(TwoInputs(), MEMBERS)
    with pytest.raises(ForwardError) as error:
        model(torch.randn(5, 4), torch.randn(4, 2))
    assert "3 members x 5 examples, 15 rows; per example: x [5, 4]" in str(error.value)
    assert "not per example, since axis 0 is not 5: y [4, 2]" in str(error.value)
    assert "verify(...)" in str(error.value)


@pytest.mark.parametrize("batch_axis", [0, 1])
def test_no_examples_give_no_outputs(make, batch_axis):
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.head = nn.Embedding(9, 4), nn.Linear(4, 2)

        def forward(self, numbers):
            return self.head(self.words(numbers))

    model = make(Words(), batch_axis=batch_axis)
    numbers = torch.zeros(0, 5, dtype=torch.long).transpose(0, batch_axis)
    assert model(numbers).shape == (0, MEMBERS, 5, 2)
    if not batch_axis:
        assert model(torch.zeros(0, dtype=torch.long)).shape == (0, MEMBERS, 2)


def test_inputs_need_not_be_contiguous(make):
    model = make(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2)))
    x = torch.randn(4, 4, 3, 10).permute(3, 2, 0, 1)[::2]
    assert not x.is_contiguous()
    assert_members_match(model, x)
    assert_members_match(model, x.contiguous(memory_format=torch.channels_last))
    assert_members_match(model, torch.randn(3, 4, 4).expand(5, -1, -1, -1))


def test_half_precision_goes_through(make):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution, self.norm = nn.Conv1d(3, 8, 3), nn.GroupNorm(2, 8)
            self.gru, self.head = nn.GRU(8, 5, batch_first=True), nn.Linear(5, 2)

        def forward(self, x):
            hidden = self.norm(self.convolution(x)).mT
            return self.head(self.gru(hidden)[0][:, -1])

    model = make(Network()).bfloat16()
    x = torch.randn(5, 3, 9, dtype=torch.bfloat16)
    outputs = model(x)
    assert outputs.dtype == torch.bfloat16
    for index in range(MEMBERS):
        expected = model.member(index)(x)
        torch.testing.assert_close(outputs[:, index], expected, rtol=0.05, atol=0.02)


def test_texts_beside_tensors_reach_the_network(make):
    class Told(Scored):
        def forward(self, x, how):
            hidden = super().forward(x)
            return torch.relu(hidden) if how == "relu" else hidden

    model = make(Told())
    x = torch.randn(5, 4)
    assert_members_match(model, x, "relu")
    assert_members_match(model, x, how="as it is")


@pytest.mark.parametrize("arguments", [(), ("a text",), (None,), (torch.tensor(3.0),)])
def test_a_call_without_examples_is_refused(make, arguments):
    with pytest.raises(ValueError, match="must hold a tensor with an axis of the batch"):
        make(Scored())(*arguments)


class Fussy(nn.Module):
    """Fails on what it does not like."""

    def __init__(self, error):
        super().__init__()
        self.head, self.error = nn.Linear(4, 2), error

    def forward(self, x):
        if len(x) > 5:
            raise self.error
        return self.head(x)


@pytest.mark.parametrize(
    "error", [RuntimeError("no such size"), ValueError("no such size"), IndexError("no such size")]
)
def test_a_failed_forward_pass_says_what_ran_and_points_to_verify(error):
    model = be.BatchEnsemble(Fussy(error), MEMBERS, run="together")
    with pytest.raises(ForwardError) as caught:
        model(torch.randn(2, 4))
    text = str(caught.value)
    assert text.startswith("no such size (the network ran on 3 members x 2 examples, 6 rows;")
    assert "per example: x [2, 4]" in text
    assert "verify(...)" in text
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("error", [RuntimeError, KeyError, KeyboardInterrupt])
def test_after_an_error_the_ensemble_is_as_before(error):
    model = be.BatchEnsemble(Fussy(error("stop")), MEMBERS, run="together")
    with pytest.raises((ForwardError, KeyError, KeyboardInterrupt)):
        model(torch.randn(2, 4))
    assert (RUNNING.rows, RUNNING.member, RUNNING.calls) == (None, None, None)
    assert_members_match(model, torch.randn(1, 4))


def test_threads_run_the_same_ensemble_on_batches_of_different_sizes():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.positions = nn.Embedding(9, 8), nn.Embedding(16, 8)
            self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 2)

        def forward(self, numbers):
            positions = torch.arange(numbers.shape[1]).unsqueeze(0)
            return self.head(self.norm(self.words(numbers) + self.positions(positions)))

    model = be.BatchEnsemble(Network(), MEMBERS, init="normal").eval()
    inputs = [torch.randint(9, (batch, steps)) for batch, steps in ((2, 6), (5, 3), (4, 12))]
    expected = [model(x).detach() for x in inputs]
    wrong = []

    def run(x, y):
        for _ in range(30):
            with torch.no_grad():
                if not torch.equal(model(x), y):
                    wrong.append(len(x))

    threads = [
        threading.Thread(target=run, args=each) for each in zip(inputs, expected, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_hooks_on_the_ensemble_and_on_modules_inside_are_called():
    network = Scored()
    network.one.register_forward_hook(lambda *_: called.append("given with the network"))
    called = []
    model = be.BatchEnsemble(network, MEMBERS)
    model.register_forward_hook(lambda module, args, outputs: called.append(outputs.shape))
    model.register_forward_pre_hook(lambda module, args: called.append(len(args)))
    model.network.one.register_forward_hook(lambda m, args, outputs: called.append(outputs.shape))
    model(torch.randn(7, 4))
    assert called == [1, "given with the network", (MEMBERS * 7, 5), (7, MEMBERS, 5)]
    called.clear()
    model.member(1)(torch.randn(7, 4))
    assert called == ["given with the network", (7, 5)]


def test_a_hook_may_change_an_output_and_the_members_keep_it():
    model = be.BatchEnsemble(Scored(), MEMBERS)
    model.network.one.register_forward_hook(lambda module, args, outputs: outputs.sigmoid())
    assert_members_match(model, torch.randn(7, 4))


def test_gradients_reach_the_inputs_of_every_kind(make):
    model = make(Scored())
    x, context = torch.randn(5, 4, requires_grad=True), torch.randn(5, 3, requires_grad=True)
    model(x, context=context).square().sum().backward()
    expected = [
        torch.autograd.grad(model.member(index)(x, context).square().sum(), (x, context))
        for index in range(MEMBERS)
    ]
    torch.testing.assert_close(x.grad, sum(each[0] for each in expected))
    torch.testing.assert_close(context.grad, sum(each[1] for each in expected))


def test_a_hook_in_a_chain_of_layers_sees_rows():
    chain = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    model = be.BatchEnsemble(chain, MEMBERS, init="normal")
    x = torch.randn(7, 4)
    before = model(x)
    shapes = []
    model.network[0].register_forward_hook(lambda module, args, output: shapes.append(output.shape))
    torch.testing.assert_close(model(x), before)
    torch.testing.assert_close(model.rows(x), before.transpose(0, 1).flatten(0, 1))
    assert shapes == [(MEMBERS * 7, 5)] * 2


def test_threads_take_turns_where_members_run_one_by_one():
    torch.manual_seed(0)
    model = be.BatchEnsemble(nn.LSTM(4, 6, batch_first=True), MEMBERS, init="normal").eval()
    inputs = [torch.randn(batch, 9, 4) for batch in (2, 3)]
    with torch.no_grad():
        expected = [model(x)[0] for x in inputs]
    wrong = []

    def run(x, y):
        with torch.no_grad():
            wrong.extend(len(x) for _ in range(60) if not torch.equal(model(x)[0], y))

    threads = [
        threading.Thread(target=run, args=each) for each in zip(inputs, expected, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("wrong", ["text", torch.zeros(4)])
def test_what_is_no_batch_is_refused_by_a_chain_too(wrong, as_users_run_it):
    model = be.BatchEnsemble(nn.Sequential(nn.Linear(4, 2), nn.ReLU()), MEMBERS)
    with pytest.raises(ValueError, match="axis"):
        model(wrong)


def test_a_loss_inside_a_module_that_runs_one_by_one_is_averaged():
    class WithLoss(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x):
            y = self.layer(x)
            return y, y.square().mean()

    model = be.BatchEnsemble(WithLoss(), MEMBERS, init="normal", one_by_one=WithLoss)
    x = torch.randn(7, 4)
    _, loss = model(x)
    expected = torch.stack([model.member(index)(x)[1] for index in range(MEMBERS)]).mean()
    torch.testing.assert_close(loss, expected)
