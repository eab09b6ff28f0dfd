"""The first call tells networks that mix their rows, and layers that are not per example."""

import copy
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import batchensemble as be
from mixing import (
    Attends,
    Base,
    Centred,
    Contrasts,
    Flipped,
    Halves,
    OneSize,
    Sequence,
    Shuffled,
    Sorted,
    TimeFirst,
    TwoViews,
)

MEMBERS, BATCH = 3, 4
TOLERANCE = {"rtol": 1e-9, "atol": 1e-11}


@pytest.fixture(autouse=True)
def _float64():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def stacked(network, members, **options):
    return be.DeepEnsemble(network, members, stacked=True, **options)


def rows(*shape):
    return torch.randn(BATCH, *shape, 4)


MIXING = {
    "time first": (TimeFirst, lambda: rows(5)),
    "two views": (TwoViews, rows),
    "centred": (Centred, rows),
    "attends": (Attends, rows),
    "flipped": (Flipped, rows),
    "shuffled": (Shuffled, rows),
    "halves": (Halves, rows),
    "one size": (OneSize, rows),
}
ENSEMBLES = {"batch": be.BatchEnsemble, "stacked": stacked}


def apart(make, network, *inputs, **options):
    """Return an ensemble that says at its first call that its members run one after the other."""
    model = make(network, MEMBERS, **options)
    with pytest.warns(UserWarning, match="the members run one after the other") as said:
        model(*inputs)
    assert len(said) == 1
    assert f"{MEMBERS} forward passes instead of 1" in str(said[0].message)
    assert said[0].filename == __file__
    return model


def assert_members_match(model, x, axis=0):
    outputs = model(x)
    for index in range(model.members):
        torch.manual_seed(1)
        expected = model.member(index).train(model.training)(x)
        torch.testing.assert_close(outputs[:, index], expected.movedim(axis, 0), **TOLERANCE)


@pytest.mark.parametrize("make", ENSEMBLES.values(), ids=ENSEMBLES)
@pytest.mark.parametrize(("network", "inputs"), MIXING.values(), ids=MIXING)
def test_members_of_a_network_that_mixes_its_rows_run_one_after_the_other(make, network, inputs):
    model = apart(make, network(), inputs())
    for _ in range(2):
        assert_members_match(model, inputs())  # says nothing again
    assert model.calls_per_forward == MEMBERS
    assert model.report().calls_per_forward == MEMBERS
    assert f"one after the other, each with its own rows: {MEMBERS} forward passes" in str(
        model.report()
    )
    assert model.verify(inputs()).largest_difference < 1e-12


def test_networks_that_sort_by_length_or_take_time_first_are_right():
    model = apart(be.BatchEnsemble, Sequence(), rows(5).transpose(0, 1), batch_axis=1)
    assert_members_match(model, torch.randn(5, 2, 4), axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the layers may be told apart, or not
        assert_members_match(be.BatchEnsemble(Sorted(), MEMBERS), rows(6))


def test_a_loss_over_the_batch_is_each_members_own():
    x = rows()
    model = apart(be.BatchEnsemble, Contrasts(), x)
    outputs, loss = model(x)
    own = [model.member(index)(x) for index in range(MEMBERS)]
    torch.testing.assert_close(outputs, torch.stack([each[0] for each in own], 1), **TOLERANCE)
    torch.testing.assert_close(loss, torch.stack([each[1] for each in own]).mean(), **TOLERANCE)


class Plain(Base):
    """Treats its rows one by one."""

    def forward(self, x):
        return self.each(x)


class Noisy(Plain):
    """Adds noise of its own in evaluation too."""

    def forward(self, x):
        return self.each(x + torch.randn_like(x))


class Zero(Plain):
    """Returns zeros until it is trained."""

    def __init__(self):
        super().__init__()
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)


class Deep(nn.Module):
    """Sixty layers, whose rounding shows."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(60)])

    def forward(self, x):
        for layer in self.layers:
            x = 1.6 * layer(torch.sin(2 * x))
        return x


GOOD = {
    "plain": (Plain, {}),
    "noisy": (Noisy, {}),
    "zeros": (Zero, {}),
    "deep": (Deep, {}),
    "all alike": (Plain, {"init": "ones"}),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("network", "options"), GOOD.values(), ids=GOOD)
def test_networks_that_treat_their_rows_one_by_one_go_together(network, options, dtype):
    model = be.BatchEnsemble(network(), MEMBERS, **options).to(dtype)
    for batch in (1, 4, 6):
        model(torch.randn(batch, 4, dtype=dtype))
    assert model.calls_per_forward == 1
    assert model.report().calls_per_forward == 1


@pytest.mark.parametrize("network", [TimeFirst, Centred, TwoViews])
def test_members_that_start_alike_are_told_apart_for_the_look(network):
    x = rows(5) if network is TimeFirst else rows()
    model = apart(be.BatchEnsemble, network(), x, init="ones")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith((".r", ".s")):
                parameter.mul_(torch.rand_like(parameter))
    assert_members_match(model, x)


def test_mixing_behind_a_layer_of_zeros_is_found():
    network = Centred()
    nn.init.zeros_(network.down.weight)
    assert apart(be.BatchEnsemble, network, rows()).calls_per_forward == MEMBERS


def test_a_first_call_with_one_example_or_with_zeros_does_not_settle_it():
    model = be.BatchEnsemble(Centred(), MEMBERS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model(torch.zeros(4, 4))
        assert_members_match(model, rows()[:1])
        assert_members_match(model, rows())
    late = be.BatchEnsemble(Attends(), MEMBERS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_members_match(late, rows()[:1])
        assert_members_match(late, rows())


class CentredInTraining(Base):
    """Batch norm by hand, in training alone."""

    def forward(self, x):
        hidden = self.up(x)
        if self.training:
            hidden = hidden - hidden.mean(0)
        return self.down(hidden)


def test_what_mixes_in_training_alone_is_found_at_the_first_call_in_training():
    model = be.BatchEnsemble(CentredInTraining(), MEMBERS).eval()
    assert_members_match(model, rows())
    assert model.calls_per_forward == 1
    model.train()
    with pytest.warns(UserWarning, match="one after the other"):
        model(rows())
    assert_members_match(model, rows())


class Stateful(Base):
    """Counts calls, keeps a state and statistics, drops, and draws numbers."""

    def __init__(self, mixes):
        super().__init__()
        self.mixes, self.calls, self.state = mixes, 0, None
        self.norm, self.drop = nn.BatchNorm1d(6), nn.Dropout(0.5)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        self.seen += 1
        self.state = self.up(x)
        hidden = self.drop(self.norm(self.state)) + 0.0 * torch.rand(1)
        if self.mixes:
            hidden = hidden - hidden.mean(0)
        return self.down(hidden)


@pytest.mark.parametrize("mixes", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.filterwarnings("ignore:the network mixes")
def test_the_look_leaves_no_trace(mixes, training):
    network = Stateful(mixes)
    network.up.weight.requires_grad_(False)
    looked = be.BatchEnsemble(network, MEMBERS).train(training)
    seen = []
    looked.network.down.register_forward_hook(lambda module, args, output: seen.append(len(output)))
    told = copy.deepcopy(looked)
    told.run_as("one_by_one" if mixes else "together")
    seen.clear()
    x, outputs = rows(), []
    for model in (looked, told):
        torch.manual_seed(5)
        outputs.append(model(x))
        outputs.append(torch.rand(1))
    calls = MEMBERS if mixes else 1
    assert seen == [BATCH * MEMBERS // calls] * 2 * calls
    assert torch.equal(outputs[0], outputs[2])
    assert torch.equal(outputs[1], outputs[3])
    assert looked.network.calls == calls
    assert [each.training for each in looked.modules()] == [
        each.training for each in told.modules()
    ]
    state = told.state_dict()
    assert all(torch.equal(state[name], value) for name, value in looked.state_dict().items())
    for one, other in zip(looked.parameters(), told.parameters(), strict=True):
        assert one.requires_grad == other.requires_grad
        assert one.grad is None


@pytest.mark.filterwarnings("ignore:the network mixes")
def test_training_one_after_the_other_gives_each_member_the_gradient_it_has_alone():
    x, targets = rows(5), torch.randint(3, (BATCH,))
    model = be.BatchEnsemble(TimeFirst(), MEMBERS)
    loss = sum(F.cross_entropy(model(x)[:, index], targets) for index in range(MEMBERS))
    loss.backward()
    own = []
    for index in range(MEMBERS):
        member = model.member(index)
        F.cross_entropy(member(x), targets).backward()
        own.append(member)
    for index, member in enumerate(own):
        twin, layer = model.network.up, member.up
        bent = torch.outer(twin.s[index], twin.r[index])
        torch.testing.assert_close(twin.bias.grad[index], layer.bias.grad, **TOLERANCE)
        expected = (layer.weight.grad * twin.weight * twin.r[index]).sum(1)
        torch.testing.assert_close(twin.s.grad[index], expected.detach(), **TOLERANCE)
        own[index] = layer.weight.grad * bent
    torch.testing.assert_close(model.network.up.weight.grad, sum(own).detach(), **TOLERANCE)


class Normalised(TimeFirst):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        return super().forward(self.norm(x.flatten(0, 1)).view(x.shape))


@pytest.mark.filterwarnings("ignore:the network mixes")
def test_statistics_of_batch_norm_are_those_of_each_member_alone():
    model = be.BatchEnsemble(Normalised(), MEMBERS)
    alone = [model.member(index).train() for index in range(MEMBERS)]
    for _ in range(3):
        x = rows(5)
        model(x)
        for member in alone:
            member(x)
    for index, member in enumerate(alone):
        found = model.member(index).norm
        torch.testing.assert_close(found.running_mean, member.norm.running_mean, **TOLERANCE)
        assert found.num_batches_tracked == member.norm.num_batches_tracked == 3


class Trunk(nn.Module):
    """Batch norm before the branch, rows that are mixed behind it."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.head = Centred()

    def forward(self, x):
        return self.head(self.norm(self.first(x)))


@pytest.mark.filterwarnings("ignore:the network mixes")
def test_a_branched_network_is_right_too_and_its_trunk_counts_a_batch_once():
    model = be.BatchEnsemble(Trunk(), MEMBERS, branch_at="head")
    alone = model.member(1).train()
    x = rows()
    model(x).sum().backward()
    alone(x)
    assert model.calls_per_forward == MEMBERS
    assert model.network.norm.num_batches_tracked == 1
    torch.testing.assert_close(
        model.network.norm.running_mean, alone.norm.running_mean, **TOLERANCE
    )
    assert_members_match(model.eval(), x)


def test_own_examples_of_each_member_stay_its_own():
    x = torch.randn(BATCH, MEMBERS, 5, 4)
    model = be.BatchEnsemble(TimeFirst(), MEMBERS)
    with pytest.warns(UserWarning, match="one after the other"):
        outputs = model(x, per_member=True)
    for index in range(MEMBERS):
        torch.testing.assert_close(outputs[:, index], model.member(index)(x[:, index]), **TOLERANCE)


def test_the_module_that_mixes_is_named_and_costs_less_alone():
    class Around(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.inner = nn.Linear(4, 4), Centred()

        def forward(self, x):
            return self.inner(self.stem(x))

    x = rows()
    with pytest.warns(UserWarning, match=r"one_by_one=\['inner'\]"):
        be.BatchEnsemble(Around(), MEMBERS)(x)
    cheaper = be.BatchEnsemble(Around(), MEMBERS, one_by_one=["inner"])
    assert_members_match(cheaper, x)
    assert cheaper.calls_per_forward == 1


class Steps(TimeFirst):
    """Returns its codes step by step beside its outputs, and a vector for all examples."""

    def forward(self, x):
        return super().forward(x), self.up(x).flatten(0, 1), torch.ones(8)


@pytest.mark.parametrize("run", ["together", "one_by_one"])
def test_what_is_per_step_of_each_example_is_put_one_member_after_the_other(run):
    x = rows(5)
    model = be.BatchEnsemble(Steps(), MEMBERS, run=run)
    _, codes, _ = model(x)
    alone = [model.member(index)(x) for index in range(MEMBERS)]
    torch.testing.assert_close(codes, torch.cat([each[1] for each in alone]), **TOLERANCE)


@pytest.mark.parametrize("make", ENSEMBLES.values(), ids=ENSEMBLES)
def test_run_forces_either_and_says_nothing(make):
    x = rows(5)
    together = make(TimeFirst(), MEMBERS, run="together")
    asked = make(TimeFirst(), MEMBERS, run="one_by_one")
    asked.load_state_dict(together.state_dict())
    assert not torch.allclose(together(x), asked(x))
    assert together.calls_per_forward == 1
    assert_members_match(asked, x)
    chain = make(nn.Sequential(nn.Linear(4, 2)), MEMBERS, run="one_by_one")
    assert_members_match(chain, rows())
    assert chain.rows(rows()).shape == (MEMBERS * BATCH, 2)


@pytest.mark.filterwarnings("ignore:the network mixes")
def test_what_was_found_is_saved_and_goes_with_copies_and_selections(tmp_path):
    x = rows(5)
    model = be.BatchEnsemble(TimeFirst(), MEMBERS)
    expected = model(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = be.load(be.save(model, tmp_path), network=TimeFirst())
        torch.testing.assert_close(again(x), expected, **TOLERANCE)
        torch.testing.assert_close(copy.deepcopy(model)(x), expected, **TOLERANCE)
        torch.testing.assert_close(model.select([2, 0])(x), expected[:, [2, 0]], **TOLERANCE)
        assert again.calls_per_forward == MEMBERS
        assert model.select([1]).calls_per_forward == 1


@pytest.mark.filterwarnings("ignore:the network mixes")
def test_fit_predict_and_evaluate_run_the_members_one_after_the_other():
    x, y = torch.randn(40, 5, 4), torch.randint(3, (40,))
    model = be.BatchEnsemble(TimeFirst(), MEMBERS)
    history = be.fit(model, (x, y), epochs=1, batch_size=10, micro_batch=5)
    assert history.forward_calls[0] == 4 * 2 * MEMBERS
    found = be.predict(model, x).member_probs
    for index in range(MEMBERS):
        expected = torch.softmax(model.member(index).eval()(x), -1)
        assert np.allclose(found[:, index], expected.detach(), atol=1e-6)
    frozen = model.freeze()
    assert_members_match(frozen, x)


def test_fit_says_it_once():
    model = be.BatchEnsemble(TimeFirst(), MEMBERS)
    with pytest.warns(UserWarning, match="one after the other") as said:
        be.fit(model, (torch.randn(8, 5, 4), torch.randint(3, (8,))), epochs=2)
    assert len(said) == 1


# Layers whose input is not per example


class Relative(nn.Module):
    """Attention with a table of relative positions, as in T5."""

    def __init__(self):
        super().__init__()
        self.words, self.norm, self.head = nn.Embedding(9, 4), nn.LayerNorm(4), nn.Linear(4, 2)
        self.distances = nn.Embedding(16, 1)

    def forward(self, numbers):
        hidden = self.words(numbers)
        steps = torch.arange(numbers.shape[1])
        bias = self.distances((steps[:, None] - steps[None]).abs()).squeeze(-1)
        scores = hidden @ hidden.mT + bias
        return self.head(self.norm(torch.softmax(scores, -1) @ hidden)).mean(1)


class Learned(nn.Module):
    """Positions looked up by numbers that all examples share, then a linear layer and a norm."""

    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(9, 4), nn.Linear(4, 2)
        self.positions, self.bend, self.norm = nn.Embedding(16, 4), nn.Linear(4, 4), nn.LayerNorm(4)

    def forward(self, numbers):
        steps = torch.arange(numbers.shape[1])
        return self.head(self.words(numbers) + self.norm(self.bend(self.positions(steps)))).mean(1)


class Continuous(nn.Module):
    """A bias that a small network makes of coordinates [1, 5, 2], as in Swin v2."""

    def __init__(self):
        super().__init__()
        self.words, self.head, self.bias = nn.Embedding(9, 4), nn.Linear(4, 2), nn.Linear(2, 4)

    def forward(self, numbers):
        where = torch.linspace(0, 1, 2 * numbers.shape[1]).view(1, -1, 2)
        table = self.bias(where).view(-1, 4)[: numbers.shape[1]]
        return self.head(torch.tanh(self.words(numbers) + table)).mean(1)


TABLES = {
    "relative": (Relative, ["distances"]),
    "learned": (Learned, ["positions", "bend", "norm"]),
    "continuous": (Continuous, ["bias"]),
}


def numbers(batch=BATCH, steps=5):
    return torch.randint(9, (batch, steps))


@pytest.mark.parametrize("mode", ["multiplicative", "additive"])
@pytest.mark.parametrize(("network", "names"), TABLES.values(), ids=TABLES)
def test_layers_whose_input_is_not_per_example_are_shared(network, names, mode):
    model = be.BatchEnsemble(network(), MEMBERS, mode=mode)
    for batch, steps in ((BATCH, 5), (1, 3), (2, 6), (5, 12), (4, 3)):
        assert_members_match(model, numbers(batch, steps))
    rows = {row.name: row for row in model.report()}
    assert [name for name, row in rows.items() if row.sharing == "shared"] == sorted(
        names, key=list(rows).index
    )
    assert all("not per example" in rows[name].reason for name in names)
    assert all(rows[name].per_member == 0 for name in names)
    assert model.calls_per_forward == 1
    assert model.verify(numbers()).largest_difference < 1e-12
    with torch.no_grad():
        apart = model(numbers())
    assert not torch.allclose(apart[:, 0], apart[:, 1])


@pytest.mark.parametrize(("network", "names"), TABLES.values(), ids=TABLES)
def test_they_are_the_network_with_these_layers_excluded(network, names):
    plain, x = network(), numbers()
    torch.manual_seed(3)
    found = be.BatchEnsemble(plain, MEMBERS, init="ones")
    named = be.BatchEnsemble(plain, MEMBERS, init="ones", exclude=names)
    torch.testing.assert_close(found(x), named(x), **TOLERANCE)
    found(x).square().sum().backward()
    named(x).square().sum().backward()
    table = names[0]
    one, other = found.network.get_submodule(table), named.network.get_submodule(table)
    torch.testing.assert_close(one.weight.grad, other.weight.grad, **TOLERANCE)


def test_an_optimiser_made_before_the_first_call_trains_all_that_counts():
    model = be.BatchEnsemble(Learned(), MEMBERS)
    optimiser = torch.optim.AdamW(model.parameter_groups(lr=0.1, weight_decay=0.1))
    names = [name for name, _ in model.named_parameters()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for _ in range(3):
        optimiser.zero_grad()
        model(numbers()).square().sum().backward()
        optimiser.step()
    assert [name for name, _ in model.named_parameters()] == names
    state = model.state_dict()
    for name in ("positions.weight", "bend.weight", "bend.bias", "norm.weight"):
        assert not torch.equal(state[f"network.{name}"], before[f"network.{name}"])
    for name in ("bend.bias", "norm.weight", "norm.bias"):
        own = state[f"network.{name}"]
        assert torch.equal(own, own[:1].expand_as(own))
    assert_members_match(model, numbers())


def test_what_was_shared_survives_files_copies_selections_and_averages(tmp_path):
    model = be.BatchEnsemble(Learned(), MEMBERS, init="normal", std=0.1)
    data = (numbers(20), torch.randint(2, (20,)))
    be.fit(model, data, epochs=1, batch_size=5)
    x = numbers()
    expected = model(x)
    again = be.load(be.save(model, tmp_path), network=Learned())
    for index in range(MEMBERS):  # before its first call
        torch.testing.assert_close(again.member(index)(x), expected[:, index], **TOLERANCE)
    torch.testing.assert_close(again(x), expected, **TOLERANCE)
    fresh = be.BatchEnsemble(Learned(), MEMBERS)
    fresh.load_state_dict(model.state_dict())
    torch.testing.assert_close(fresh(x), expected, **TOLERANCE)
    torch.testing.assert_close(copy.deepcopy(model)(x), expected, **TOLERANCE)
    torch.testing.assert_close(model.select([2, 0])(x), expected[:, [2, 0]], **TOLERANCE)
    assert model.average()(x).shape == (BATCH, 2)
    model.set_member(0, model.member(1))
    torch.testing.assert_close(model(x)[:, 0], expected[:, 1], **TOLERANCE)
    other = model.member(1)
    with torch.no_grad():
        other.positions.weight.mul_(2)
    with pytest.raises(ValueError, match="'positions' shares its weight among all members"):
        model.set_member(0, other)


def test_what_the_user_named_is_not_shared():
    named = be.BatchEnsemble(Relative(), MEMBERS, include=["distances", "head"])
    with pytest.warns(UserWarning, match="not per example.* one after the other"):
        named(numbers())
    assert_members_match(named, numbers())
    assert named.calls_per_forward == MEMBERS


def test_a_network_without_any_layer_per_example_is_not_made_one_for_all():
    class Weights(nn.Module):
        """Makes the weights of a layer of a constant."""

        def __init__(self):
            super().__init__()
            self.make = nn.Linear(3, 4)

        def forward(self, x):
            return x @ self.make(torch.linspace(0, 1, 6).view(2, 3)).T

    x = rows()
    model = be.BatchEnsemble(Weights(), MEMBERS)
    with pytest.warns(UserWarning, match="one after the other"):
        outputs = model(x)
    assert not torch.allclose(outputs[:, 0], outputs[:, 1])
    assert_members_match(model, x)


class Borrowing(Base):
    """Reads the weight of a layer that nobody calls, as networks with a fused bias do."""

    def __init__(self):
        super().__init__()
        self.fused, self.spare = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.each(F.linear(x, self.fused.weight))


def test_a_layer_that_is_only_read_is_shared_and_one_that_is_not_used_stays():
    model = be.BatchEnsemble(Borrowing(), MEMBERS)
    assert_members_match(model, rows())
    rows_of = {row.name: row for row in model.report()}
    assert "another module reads its weights" in rows_of["fused"].reason
    assert rows_of["spare"].sharing == "rank_one"
    assert not any("reads self.fused" in each for each in model.report().warnings)


# Where nobody can look


COMPILING = """
import sys
import warnings

import torch

import batchensemble as be

sys.path.insert(0, {folder!r})
from mixing import TimeFirst

torch.manual_seed(0)
x = torch.randn(4, 5, 4)
model = be.BatchEnsemble(TimeFirst(), 3)
compiled = torch.compile(model, backend="eager")
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    outputs = compiled(x)
assert sum("one after the other" in str(each.message) for each in said) == 1
for index in range(3):
    torch.testing.assert_close(outputs[:, index], model.member(index)(x))
torch.testing.assert_close(compiled(x), outputs)

torch._dynamo.reset()
whole = torch.compile(model, backend="eager", fullgraph=True)
torch.testing.assert_close(whole(x), outputs)

for way in ("compile", "export"):
    torch._dynamo.reset()
    late = be.BatchEnsemble(TimeFirst(), 3).eval()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        if way == "compile":
            torch.compile(late, backend="eager", fullgraph=True)(x)
        else:
            torch.export.export(late, (x,))
    assert any("in one graph before its first call" in str(each.message) for each in said), way
"""


def test_a_compiled_ensemble_looks_between_two_graphs_and_says_where_it_cannot():
    # The compiler cannot look through the type checker that the tests run with.
    folder = str(Path(__file__).parents[2] / "support")
    code = COMPILING.replace("{folder!r}", repr(folder))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_on_meta_tensors_and_under_transforms_nobody_looks():
    meta = be.BatchEnsemble(Plain(), MEMBERS, inplace=True)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        meta.eval()(rows())
    assert counter.get_total_flops() == 2 * BATCH * MEMBERS * (4 * 6 + 6 * 3)
    model = be.BatchEnsemble(TimeFirst(), MEMBERS).eval()
    parameters = dict(model.named_parameters())
    x = rows(5)

    def of_one(one):
        return torch.func.functional_call(model, parameters, (one.unsqueeze(0),))

    torch.func.vmap(of_one)(x)
    assert model.calls_per_forward == 1
