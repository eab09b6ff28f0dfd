"""``fit`` is the plain training loop, repeatable, and refuses what it cannot train."""

import copy
import json
import math
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import make_moons
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import batchensemble as be
from batchensemble.core.random_state import DataStream
from batchensemble.ensembles import METHODS
from batchensemble.losses import ensemble_nll

N, MEMBERS = 50, 3
torch.manual_seed(0)
X, Y = torch.randn(N, 4, dtype=torch.float64), torch.randint(2, (N,))
VALIDATION = torch.randn(20, 4, dtype=torch.float64), torch.randint(2, (20,))


def mlp(*between):
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), *between, nn.Linear(8, 2)).double()


def build(method, *between):
    torch.manual_seed(1)
    network = mlp(*between)
    return METHODS[method].build(network, MEMBERS)


def weights(model):
    return [parameter.detach().clone() for parameter in model.parameters()]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def by_hand(network, batches_of_epochs, lr, cooldown):
    """Train a plain network on these examples; return the mean loss of each epoch."""
    optimiser = torch.optim.Adam(network.parameters(), lr=lr)
    steps, step, losses = sum(map(len, batches_of_epochs)), 0, []
    for batches in batches_of_epochs:
        total = 0.0
        for batch in batches:
            left = (steps - step) / (cooldown * steps)
            optimiser.param_groups[0]["lr"] = lr * min(1.0, left)
            optimiser.zero_grad()
            loss = F.cross_entropy(network(X[batch]), Y[batch])
            loss.backward()
            optimiser.step()
            total += loss.item() * len(batch)
            step += 1
        losses.append(total / N)
    return losses


def test_training_a_single_network_is_the_loop_one_writes_by_hand():
    model, network = build("single"), build("single").network
    history = be.fit(model, (X, Y), epochs=4, batch_size=16, lr=0.01, cooldown=0.5, seed=5)
    stream, orders = DataStream(5), []
    for epoch in range(4):
        stream.begin(epoch)
        with stream.turn():
            orders.append(torch.randperm(N).split(16))
    losses = by_hand(network, orders, 0.01, 0.5)
    assert history.losses == pytest.approx(losses, rel=1e-10)
    for own, expected in zip(model.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-9, atol=1e-10)


def test_members_of_a_deep_ensemble_are_trained_as_if_each_were_alone(monkeypatch):
    model, drawn = build("deep"), []
    networks = [model.member(index) for index in range(MEMBERS)]
    draw = model.draw
    monkeypatch.setattr(model, "draw", lambda order: drawn.append(draw(order)) or drawn[-1])
    history = be.fit(model, (X, Y), epochs=3, batch_size=16, lr=0.01, cooldown=0.5)
    # Three whole batches and the rest, drawn apart, in each epoch.
    epochs = [[*whole, *rest] for whole, rest in zip(drawn[::2], drawn[1::2], strict=True)]
    for index, network in enumerate(networks):
        batches = [[batch[index] for batch in epoch] for epoch in epochs]
        losses = by_hand(network, batches, 0.01, 0.5)
        assert [epoch[index] for epoch in history.member_losses] == pytest.approx(losses)
        trained = model.member(index)
        for own, expected in zip(trained.parameters(), network.parameters(), strict=True):
            torch.testing.assert_close(own, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_weights_and_history_bit_by_bit(method):
    def trained(seed):
        model = build(method, nn.Dropout(0.2))
        history = be.fit(model, (X, Y), validation=VALIDATION, epochs=2, batch_size=16, seed=seed)
        numbers = history.to_dict()
        del numbers["seconds"]
        return weights(model), numbers

    (one, one_history), (two, two_history), (other, _) = trained(3), trained(3), trained(4)
    assert same(one, two)
    assert one_history == two_history
    assert not same(one, other)


@pytest.mark.usefixtures("as_users_run_it")  # that type checker draws from ``random``
@pytest.mark.parametrize("method", METHODS)
def test_the_callers_random_states_stay_as_they_were(method):
    model = build(method, nn.Dropout(0.2))
    numpy_state = np.random.get_state()  # noqa: NPY002
    states = torch.get_rng_state(), random.getstate()
    be.fit(model, (X, Y), validation=VALIDATION, epochs=2, seed=3)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert (np.random.get_state()[1] == numpy_state[1]).all()  # noqa: NPY002


def test_without_a_seed_the_callers_random_state_decides():
    def trained(seed):
        model = build("batch")
        torch.manual_seed(seed)
        be.fit(model, (X, Y), epochs=1, batch_size=16, seed=None)
        return weights(model)

    assert same(trained(3), trained(3))
    assert not same(trained(3), trained(4))


@pytest.mark.parametrize("kind", ["arrays", "dataset", "loader"])
@pytest.mark.parametrize("method", METHODS)
def test_the_history_has_an_entry_an_epoch(method, kind):
    model, dataset = build(method), TensorDataset(X, Y)
    data = {"arrays": (X, Y), "dataset": dataset, "loader": DataLoader(dataset, 16)}[kind]
    history = be.fit(model, data, validation=VALIDATION, epochs=3, batch_size=16)
    found = history.to_dict()
    assert found.pop("plan")["epochs"] == 3
    assert found.pop("best_step") == 4 * found.pop("best_epoch")
    assert found.pop("best_score") == min(history.validation_nll)
    for values in found.values():
        assert len(values) == 3
    for members, loss in zip(history.member_losses, history.losses, strict=True):
        assert len(members) == model.members
        assert sum(members) / model.members == pytest.approx(loss)
    assert history.examples == [N] * 3
    assert history.forward_calls == [4] * 3
    assert history.total_forward_calls == 12
    assert history.total_seconds == sum(history.seconds) > 0
    assert history.examples_per_second == pytest.approx(3 * N / history.total_seconds)
    assert json.loads(json.dumps(history.to_dict())) == history.to_dict()


def test_copies_count_as_a_call_each():
    model = be.DeepEnsemble(mlp(), MEMBERS, stacked=False)
    assert be.fit(model, (X, Y), epochs=1, batch_size=25).forward_calls == [2 * MEMBERS]


def test_a_history_of_nothing_has_no_speed():
    assert be.History().examples_per_second == 0.0


def test_the_recorded_losses_are_those_before_each_step():
    model = build("batch")
    before = F.cross_entropy(model(X[:16])[:, 1], Y[:16]).item()
    history = be.fit(model, (X[:16], Y[:16]), epochs=1, batch_size=16, shuffle=False)
    assert history.member_losses[0][1] == pytest.approx(before)
    assert history.last_batch_losses == pytest.approx(history.losses)


def test_the_last_batch_loss_is_of_the_last_batch_alone():
    model = build("single")
    history = be.fit(model, (X, Y), epochs=1, batch_size=16, shuffle=False, lr=1e-12)
    expected = F.cross_entropy(model.network(X[48:]), Y[48:]).item()
    assert history.last_batch_losses[0] == pytest.approx(expected)
    assert history.losses[0] != pytest.approx(expected)


@pytest.mark.parametrize("method", METHODS)
def test_the_validation_nll_is_that_of_the_mean_probability(method):
    model = build(method, nn.Dropout(0.5))
    history = be.fit(model, (X, Y), validation=VALIDATION, epochs=2)
    x, y = VALIDATION
    with torch.no_grad():
        members = [model.member(index).eval()(x).softmax(-1) for index in range(model.members)]
    probability = torch.stack(members).mean(0)[range(20), y]
    assert history.validation_nll[-1] == pytest.approx(-probability.log().mean().item())


def test_validation_data_change_nothing_in_the_training():
    models = [build("deep", nn.Dropout(0.5)) for _ in range(2)]
    be.fit(models[0], (X, Y), epochs=2)
    history = be.fit(models[1], (X, Y), epochs=2, validation=DataLoader(TensorDataset(X, Y), 7))
    assert same(weights(models[0]), weights(models[1]))
    with torch.no_grad():
        expected = ensemble_nll(models[1].eval()(X), Y).mean().item()
    assert history.validation_nll[-1] == pytest.approx(expected)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_model_is_as_before(training):
    model = build("batch").train(training)
    be.fit(model, (X, Y), validation=VALIDATION, epochs=1)
    assert all(module.training is training for module in model.modules())


def test_a_loader_in_order_is_the_same_as_arrays_in_order():
    models = [build("batch") for _ in range(2)]
    one = be.fit(models[0], (X, Y), epochs=2, batch_size=16, shuffle=False)
    two = be.fit(models[1], DataLoader(TensorDataset(X, Y), 16), epochs=2)
    assert same(weights(models[0]), weights(models[1]))
    assert one.losses == two.losses


def test_numpy_arrays_of_another_precision_are_the_same_as_tensors():
    models = [build("batch") for _ in range(2)]
    be.fit(models[0], (X.float(), Y), epochs=2)
    be.fit(models[1], (X.float().numpy(), Y.int().numpy()), epochs=2)
    assert same(weights(models[0]), weights(models[1]))


@pytest.mark.parametrize("loader", [False, True])
def test_each_member_can_be_taught_its_own_targets(loader):
    labels = (X[:, 0] > 0).long()
    targets = torch.stack([labels, 1 - labels], 1)
    model = be.BatchEnsemble(mlp(), 2)
    data = DataLoader(TensorDataset(X, targets), 10) if loader else (X, targets)
    be.fit(model, data, epochs=30, batch_size=10, lr=0.02, per_member_targets=True)
    taught = model(X).argmax(-1)
    assert (taught == targets).double().mean() > 0.9


def test_the_learning_rate_of_an_optimiser_of_ones_own_is_its_own_affair():
    model, network = build("single"), build("single").network
    be.fit(
        model,
        (X, Y),
        epochs=2,
        batch_size=N,
        shuffle=False,
        lr=123.0,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    )
    reference = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for _ in range(2):
        reference.zero_grad()
        F.cross_entropy(network(X), Y).backward()
        reference.step()
    for own, expected in zip(model.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(own, expected)


@pytest.mark.parametrize("method", METHODS)
def test_the_default_loss_written_as_a_function_trains_the_same(method):
    from batchensemble.losses import cross_entropy

    models = [build(method) for _ in range(2)]
    one = be.fit(models[0], (X, Y), epochs=2, batch_size=16)
    two = be.fit(models[1], (X, Y), epochs=2, batch_size=16, loss=lambda o, t: cross_entropy(o, t))
    assert one.member_losses[-1] == pytest.approx(two.member_losses[-1])
    for own, expected in zip(weights(models[0]), weights(models[1]), strict=True):
        torch.testing.assert_close(own, expected)


def test_the_loss_on_mean_logits_is_the_notebooks():
    model, twin = build("batch"), build("batch")
    options = {"epochs": 1, "batch_size": N, "shuffle": False, "cooldown": 0.0, "lr": 0.01}
    history = be.fit(model, (X, Y), loss_on="mean_logits", **options)
    optimiser = torch.optim.Adam(twin.parameters(), lr=0.01)
    loss = F.cross_entropy(twin(X).mean(1), Y)
    loss.backward()
    optimiser.step()
    assert history.member_losses == [[pytest.approx(loss.item())]]
    for own, expected in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(own, expected)


def test_labels_of_one_class_only_can_be_learnt():
    model = build("batch")
    history = be.fit(model, (X, torch.zeros(N, dtype=torch.long)), epochs=20, lr=0.05)
    assert history.losses[-1] < 0.1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_training_lowers_the_loss_in_any_precision(method, dtype):
    model = build(method).to(dtype)
    labels = (X[:, 0] > 0).long()
    history = be.fit(model, (X, labels), validation=(X, labels), epochs=20, batch_size=10, lr=0.02)
    assert history.losses[-1] < 0.8 * history.losses[0]
    assert all(parameter.dtype == dtype for parameter in model.parameters())


def test_frozen_parameters_are_not_trained():
    model = build("batch")
    model.network[0].weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    be.fit(model, (X, Y), epochs=1)
    after = model.state_dict()
    assert torch.equal(before["network.0.weight"], after["network.0.weight"])
    assert not torch.equal(before["network.0.r"], after["network.0.r"])


@pytest.mark.parametrize("method", METHODS)
def test_two_moons_are_learnt(method):
    x, y = make_moons(2000, noise=0.2, random_state=0)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 2))
    model = METHODS[method].build(network, MEMBERS)
    be.fit(model, (x[:1500], y[:1500]), epochs=15, batch_size=64, lr=0.02)
    scores = be.evaluate(model, (x[1500:], y[1500:]))
    assert scores["accuracy"] > 0.9
    assert min(scores["member_accuracies"]) > 0.85


def test_ctrl_c_leaves_a_network_that_can_be_used_saved_and_trained_on():
    model, calls = build("batch"), []

    def interrupted(outputs, targets):
        calls.append(1)
        if len(calls) > 9:  # some before the first step, which look at the loss
            raise KeyboardInterrupt
        return outputs.pow(2).mean(-1)

    with pytest.raises(KeyboardInterrupt):
        be.fit(model, (X, Y), epochs=5, batch_size=10, loss=interrupted)
    for parameter in model.parameters():
        assert parameter.untyped_storage().nbytes() == parameter.nbytes
        assert parameter.grad is None
        assert parameter.isfinite().all()
    assert not same(weights(model), weights(build("batch")))
    be.fit(model, (X, Y), epochs=1)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_diverging_training_says_so_with_its_epoch_and_learning_rate():
    model = build("single")
    with pytest.raises(
        FloatingPointError, match=r"member 0 was nan in epoch \d+.*1e\+200.* finite"
    ):
        be.fit(model, (X, Y), epochs=20, lr=1e200)


NAN = float("nan")


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"epochs": 0}, ValueError, "epochs must be at least 1, got 0"),
        ({"epochs": -2}, ValueError, "epochs must be at least 1, got -2"),
        ({"epochs": NAN}, TypeError, "epochs must be a whole number of at least 1, got nan"),
        ({"epochs": "10"}, TypeError, "epochs must be a whole number of at least 1, got '10'"),
        ({"epochs": True}, TypeError, "epochs must be a whole number of at least 1, got True"),
        ({"epochs": 1.0}, TypeError, r"epochs must be a whole number of at least 1, got 1\.0"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
        ({"batch_size": -1}, ValueError, "batch_size must be at least 1, got -1"),
        ({"batch_size": NAN}, TypeError, "batch_size must be a whole number"),
        ({"batch_size": "32"}, TypeError, "batch_size must be a whole number"),
        ({"batch_size": False}, TypeError, "batch_size must be a whole number"),
        ({"lr": 0}, ValueError, "lr must be a finite number above 0, got 0"),
        ({"lr": -0.1}, ValueError, r"lr must be a finite number above 0, got -0\.1"),
        ({"lr": NAN}, ValueError, "lr must be a finite number above 0, got nan"),
        ({"lr": math.inf}, ValueError, "lr must be a finite number above 0, got inf"),
        ({"lr": "0.1"}, TypeError, r"lr must be a number above 0, got '0\.1'"),
        ({"lr": True}, TypeError, "lr must be a number above 0, got True"),
        ({"cooldown": 1.5}, ValueError, r"cooldown must be a number from 0 to 1, got 1\.5"),
        ({"cooldown": NAN}, ValueError, "cooldown must be a number from 0 to 1, got nan"),
        ({"cooldown": "a bit"}, TypeError, "cooldown must be a number from 0 to 1, got 'a bit'"),
        ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
        ({"seed": 0.5}, TypeError, r"seed must be a whole number of at least 0, got 0\.5"),
        ({"loss": "cross_entropie"}, ValueError, "did you mean 'cross_entropy'"),
        ({"loss": None}, ValueError, "loss must be one of cross_entropy, .* got None"),
        ({"loss_on": "mean"}, ValueError, "loss_on must be one of members, mean_logits"),
        ({"optimizer": "sgdd"}, ValueError, "one of adam, adamw, sgd, .* did you mean 'sgd'"),
        ({"optimizer": 3}, TypeError, "optimizer must be one of .* got int"),
        (
            {"optimizer": torch.optim.SGD([torch.zeros(1)], lr=1.0)},
            ValueError,
            "optimizer holds none of the parameters of this network",
        ),
        ({"loss": lambda o, t: o.sum()}, ValueError, r"must return \[batch, members\], .* \[\]"),
        ({"loss": lambda o, t: o}, ValueError, r"it gave \[50, 3, 2\]; average over further axes"),
        ({"loss": lambda o, t: o.log(t)}, ValueError, "the loss does not take outputs of shape"),
        ({"loss": lambda o, t: None}, ValueError, "it gave None"),
        ({"validation": (X[:, :3], Y)}, ValueError, r"does not take examples of shape \[3\]"),
        ({"validation": (X, Y + 5)}, ValueError, "class numbers from 0 to 1"),
        ({"validation": (X, Y[:9])}, ValueError, "the same length"),
        (
            {"validation": (X, Y[:, None].repeat(1, 5))},
            ValueError,
            r"validation .* \[examples\], .* \[50, 5\]",
        ),
        ({"validation": X}, TypeError, "got Tensor"),
        (
            {"validation": (X[:, :3], Y), "loss": lambda o, t: o.pow(2).mean(-1)},
            ValueError,
            r"does not take examples of shape \[3\]",
        ),
    ],
)
def test_a_bad_argument_is_refused_before_any_training(options, error, sentence):
    model = build("batch")
    with pytest.raises(error, match=sentence):
        be.fit(model, (X, Y), **options)
    assert same(weights(model), weights(build("batch")))
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ((X, Y + 1), "from 0 to 1, since the network has 2 outputs, got 2; .* 3 outputs"),
        ((X[:, :3], Y), r"does not take examples of shape \[3\] and type torch\.float64"),
        ((X.long(), Y), "does not take examples of .* type torch.int64"),
        ((X * torch.nan, Y), "X must be finite"),
        ((X, Y[:7]), "the same length"),
        (DataLoader(TensorDataset(X[:, :3], Y), 10), r"does not take examples of shape \[3\]"),
        (DataLoader(TensorDataset(X, Y + 1), 10), "the loss does not take outputs"),
        (DataLoader(TensorDataset(X[:0], Y[:0]), 10), "the data loader yields none"),
    ],
)
def test_data_that_do_not_fit_are_refused_before_any_training(method, data, sentence):
    model = build(method)
    with pytest.raises(ValueError, match=sentence):
        be.fit(model, data)
    assert same(weights(model), weights(build(method)))


@pytest.mark.parametrize("method", ["deep", "mimo"])
def test_targets_a_member_go_only_with_common_examples(method):
    with pytest.raises(ValueError, match="give per_member_targets=True and batches='shared'"):
        be.fit(build(method), (X, Y[:, None].repeat(1, MEMBERS)))


@pytest.mark.usefixtures("as_users_run_it")
def test_a_plain_network_is_refused_with_the_way_to_wrap_it():
    with pytest.raises(TypeError, match=r"such as batchensemble\.BatchEnsemble.* got Sequential"):
        be.fit(mlp(), (X, Y))


def test_a_seed_beyond_what_torch_takes_is_refused():
    with pytest.raises(ValueError, match=r"seed must be below 2\*\*63"):
        be.fit(build("single"), (X, Y), seed=2**70)


def test_a_network_of_one_output_is_refused():
    with pytest.raises(ValueError, match="one output for each class, at least 2"):
        be.fit(be.Single(nn.Linear(4, 1)), (torch.zeros(3, 4), torch.zeros(3, dtype=torch.long)))


def test_a_network_without_anything_to_train_is_refused():
    with pytest.raises(ValueError, match="no parameters to train"):
        be.fit(be.Single(mlp().requires_grad_(False)), (X, Y))


class CentredRows(nn.Module):
    """A network that mixes its rows, which conversion cannot see."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(X.shape[1], 2)

    def forward(self, x):
        hidden = self.layer(x)
        return hidden - hidden.mean(0)


def test_a_network_whose_members_are_not_what_they_seem_is_warned_of():
    model = be.BatchEnsemble(CentredRows().double(), MEMBERS)
    with pytest.warns(UserWarning, match=r"They first differ in 'the network' \(CentredRows\)"):
        be.fit(model, (X, Y), epochs=1)


def test_each_module_has_its_own_mode_again_after_training_and_prediction():
    model = build("batch")
    model.train()
    model.network[0].eval()
    modes = [module.training for module in model.modules()]
    be.fit(model, (X, Y), epochs=1, validation=VALIDATION)
    be.predict(model, X)
    assert [module.training for module in model.modules()] == modes
    assert True in modes
    assert False in modes
