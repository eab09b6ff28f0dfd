"""``fit`` with every kind of target: weights, masks, held-out scores; and it gets better."""

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import batchensemble as be
from batchensemble.losses import cross_entropy
from batchensemble.training.fit import fit

N, MEMBERS = 48, 3
torch.manual_seed(0)
X = torch.randn(N, 4, dtype=torch.float64)
Y = (X[:, 0] + X[:, 1] > 0).long()
SIGNAL = torch.stack([X[:, 0] * 2, X[:, 1] - X[:, 2]], 1)


def build(outputs=2, method=be.BatchEnsemble, *after, members=MEMBERS):
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, outputs), *after).double()
    return method(network, members=members)


def trained(data, *, model=None, **options):
    model = model or build()
    history = fit(model, data, **{"epochs": 2, "lr": 0.02, "batch_size": 16, **options})
    return model, history


def assert_same(one, other, **options):
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10, **options)


def by_hand(model, loss, steps=3, lr=0.05):
    """Take steps of SGD on the sum of the members' losses."""
    optimiser = torch.optim.SGD(model.parameters(), lr=lr)
    for _ in range(steps):
        optimiser.zero_grad()
        outputs = model(X)
        sum(loss(outputs[:, index]) for index in range(MEMBERS)).backward()
        optimiser.step()
    return model


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.05)


WHOLE = {"epochs": 3, "batch_size": N, "shuffle": False, "optimizer": sgd}
TOKENS = torch.stack([Y, 1 - Y, Y], 1)
MISSING = torch.where(torch.rand(N, 3) < 0.3, -1, TOKENS)
LABELS = torch.where(torch.rand(N, 2) < 0.3, torch.nan, (SIGNAL > 0).double())
UNFLATTENED = nn.Unflatten(1, (2, 3))


@pytest.mark.parametrize("micro_batch", [None, 7])
@pytest.mark.parametrize(
    ("data", "after", "outputs", "options", "by_torch"),
    [
        (
            Y,
            (),
            2,
            {"class_weight": [1.0, 3.0], "label_smoothing": 0.1},
            lambda o: F.cross_entropy(o, Y, torch.tensor([1.0, 3.0]).double(), label_smoothing=0.1),
        ),
        (
            MISSING,
            (UNFLATTENED,),
            6,
            {"ignore_index": -1, "class_weight": {1: 2.0}},
            lambda o: F.cross_entropy(
                o, MISSING, torch.tensor([1.0, 2.0]).double(), ignore_index=-1
            ),
        ),
        (TOKENS, (UNFLATTENED,), 6, {}, lambda o: F.cross_entropy(o, TOKENS)),
        (SIGNAL, (), 2, {"loss": "mse"}, lambda o: F.mse_loss(o, SIGNAL)),
        (
            LABELS,
            (),
            2,
            {"loss": "binary_cross_entropy"},
            lambda o: F.binary_cross_entropy_with_logits(
                o[~LABELS.isnan()], LABELS[~LABELS.isnan()]
            ),
        ),
    ],
    ids=["class weights", "masked tokens", "tokens", "mse", "missing labels"],
)
def test_training_takes_the_steps_of_torchs_own_loss(
    data, after, outputs, options, by_torch, micro_batch
):
    model, history = trained(
        (X, data),
        model=build(outputs, be.BatchEnsemble, *after),
        micro_batch=micro_batch,
        **WHOLE,
        **options,
    )
    expected = by_hand(build(outputs, be.BatchEnsemble, *after), by_torch)
    assert_same(model, expected)
    before = by_hand(build(outputs, be.BatchEnsemble, *after), by_torch, steps=2)
    losses = [by_torch(before(X)[:, index]).item() for index in range(MEMBERS)]
    assert history.member_losses[-1] == pytest.approx(losses)


@pytest.mark.parametrize("method", [be.BatchEnsemble, be.DeepEnsemble, be.MIMO])
@pytest.mark.parametrize("micro_batch", [None, 5])
@pytest.mark.parametrize("loss", ["cross_entropy", lambda o, t: cross_entropy(o, t)])
def test_weights_of_zero_and_two_drop_and_double_an_example(method, micro_batch, loss):
    weights = torch.ones(N)
    weights[:10], weights[10:15] = 0, 2
    kept = torch.cat([torch.arange(10, N), torch.arange(10, 15)])
    options = {**WHOLE, "loss": loss, "micro_batch": micro_batch}
    if method is not be.MIMO:
        options["batches"] = "shared"
        one, history = trained((X, Y, weights), model=build(2, method), **options)
        other, expected = trained((X[kept], Y[kept]), model=build(2, method), **options)
        assert_same(one, other)
        assert history.losses == pytest.approx(expected.losses)
    same, _ = trained((X, Y, torch.full((N,), 3.0)), model=build(2, method), **options)
    assert_same(same, trained((X, Y), model=build(2, method), **options)[0])


@pytest.mark.parametrize("batches", ["independent", "split"])
@pytest.mark.parametrize("micro_batch", [None, 3])
@pytest.mark.parametrize("loss", ["cross_entropy", lambda o, t: cross_entropy(o, t)])
def test_weights_go_with_examples_of_each_members_own(batches, micro_batch, loss):
    x, y = X.clone(), Y.clone()
    weights = (torch.arange(N) % 4 > 0).double()
    options = {"batches": batches, "micro_batch": micro_batch, "loss": loss}
    one, _ = trained((x, y, weights), **options)
    x[weights == 0], y[weights == 0] = 9.0, 1
    assert_same(one, trained((x, y, weights), **options)[0])
    other = trained((x, y), **options)[0]
    assert not torch.allclose(next(one.parameters()), next(other.parameters()))


@pytest.mark.parametrize("kind", ["dataset", "loader"])
@pytest.mark.parametrize("draw", [None, "split"])
def test_weights_of_loaders_are_those_of_arrays(kind, draw):
    weights = torch.rand(N, dtype=torch.float64)
    data = TensorDataset(X, Y, weights)
    data = DataLoader(data, 16) if kind == "loader" else data
    options = {"shuffle": False, "batches": draw}
    one, history = trained(data, validation=data, **options)
    arrays = (X, Y, weights)
    other, expected = trained(arrays, validation=arrays, **options)
    assert_same(one, other)
    assert history.validation_nll == pytest.approx(expected.validation_nll)


def test_a_batch_in_which_nothing_counts_changes_nothing():
    weights = torch.zeros(N)
    weights[-1] = 1
    model, history = trained((X, Y, weights), shuffle=False, epochs=1, optimizer=sgd)
    assert np.isfinite(history.losses[0])
    expected, _ = trained((X[-16:], Y[-16:], weights[-16:]), epochs=1, optimizer=sgd)
    assert_same(model, expected)


def test_clipping_goes_with_weights():
    weights = torch.rand(N)
    one, _ = trained((X, Y, weights), clip=1e6)
    assert_same(one, trained((X, Y, weights))[0])
    trained((X, Y, weights), clip=1e-3)


PROBLEMS = {
    "mse": (SIGNAL, 2, ()),
    "huber": (SIGNAL[:, 0], 1, ()),
    "gaussian_nll": (SIGNAL[:, 0], 2, ()),
    "quantile": (SIGNAL[:, 0], 3, ()),
    "binary_cross_entropy": ((SIGNAL > 0).double(), 2, ()),
    "ordinal": ((SIGNAL[:, 0] > -1).long() + (SIGNAL[:, 0] > 1), 2, ()),
    "cross_entropy": (TOKENS, 6, (UNFLATTENED,)),
}


@pytest.mark.parametrize("method", [be.BatchEnsemble, be.DeepEnsemble])
@pytest.mark.parametrize("loss", PROBLEMS)
def test_a_small_problem_gets_better_and_its_members_come_out_the_same(loss, method):
    targets, outputs, after = PROBLEMS[loss]
    model, data = build(outputs, method, *after), (X, targets)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        history = fit(model, data, validation=data, loss=loss, epochs=12, batch_size=8, lr=0.03)
    function = be.losses.as_loss(loss)
    assert history.losses[-1] < 0.7 * history.losses[0] or history.losses[-1] < 0.1
    with torch.no_grad():
        model.eval()
        outputs = model(X)
        alone = torch.stack([model.member(index)(X) for index in range(MEMBERS)], 1)
        torch.testing.assert_close(outputs, alone, rtol=1e-9, atol=1e-10)
        together = function.of_ensemble(outputs, targets).mean().item()
    assert history.validation_nll[-1] == pytest.approx(together)
    assert history.validation_nll[-1] < history.validation_nll[0]
    assert history.diagnostics == [{}] * 12


@pytest.mark.parametrize("draw", ["independent", "split"])
@pytest.mark.parametrize("loss", PROBLEMS)
def test_members_with_examples_of_their_own_take_any_target(loss, draw):
    targets, outputs, after = PROBLEMS[loss]
    for data in ((X, targets), DataLoader(TensorDataset(X, targets), 16)):
        model = build(outputs, be.BatchEnsemble, *after)
        history = fit(model, data, loss=loss, epochs=3, batch_size=16, lr=0.03, batches=draw)
        assert history.losses[-1] < history.losses[0]


def test_members_of_a_deep_ensemble_are_trained_on_numbers_as_if_alone():
    model, network = build(2, be.DeepEnsemble), build(2, be.DeepEnsemble).member(1)
    fit(model, (X, SIGNAL), loss="mse", batches="shared", **WHOLE)
    optimiser = sgd(network.parameters())
    for _ in range(3):
        optimiser.zero_grad()
        F.mse_loss(network(X), SIGNAL).backward()
        optimiser.step()
    assert_same(model.member(1), network)


def test_held_out_tokens_are_counted_one_by_one():
    model = build(6, be.BatchEnsemble, UNFLATTENED)
    validation = (X, MISSING)
    history = fit(model, (X, TOKENS), validation=validation, epochs=1, ignore_index=-1)
    probs = model.eval()(X).softmax(2).mean(1)
    expected = F.nll_loss(probs.log(), MISSING, ignore_index=-1)
    assert history.validation_nll == [pytest.approx(expected.item())]


def test_held_out_scores_count_weights():
    weights = torch.rand(N)
    _, history = trained((X, Y), validation=(X, Y, weights), epochs=1)
    doubled = torch.cat([torch.arange(N), torch.arange(10)])
    twos = torch.ones(N)
    twos[:10] = 2
    _, one = trained((X, Y), validation=(X, Y, twos))
    _, other = trained((X, Y), validation=(X[doubled], Y[doubled]))
    assert one.validation_nll == pytest.approx(other.validation_nll)
    assert history.validation_nll != pytest.approx(one.validation_nll[:1])


def test_early_stopping_goes_by_the_loss_of_the_ensemble():
    noise = SIGNAL[:, 0] + torch.randn(N).double()
    model = build(1)
    data, held_out = (X[:8], noise[:8]), (X[8:], noise[8:])
    history = fit(
        model, data, validation=held_out, loss="mse", epochs=200, lr=0.05, patience=5, cooldown=0.0
    )
    assert history.stopped
    found = (model.eval()(X[8:]).mean(1)[:, 0] - noise[8:]).square().mean().item()
    assert found == pytest.approx(min(history.validation_nll))


def test_the_accuracy_of_tokens_can_say_which_weights_are_best():
    model = build(6, be.BatchEnsemble, UNFLATTENED)
    held_out = (X, MISSING)
    history = fit(
        model,
        (X, TOKENS),
        validation=held_out,
        ignore_index=-1,
        epochs=3,
        stop_on="accuracy",
        patience=9,
    )
    labels = model.eval()(X).softmax(2).mean(1).argmax(1)
    expected = (labels == MISSING)[MISSING >= 0].double().mean().item()
    assert max(each["accuracy"] for each in history.evaluations) == pytest.approx(expected)


def test_a_function_of_ones_own_may_say_how_it_scores_the_ensemble():
    class Absolute:
        def __call__(self, outputs, targets):
            return (outputs[..., 0] - targets.view(len(targets), -1)).abs()

        def of_ensemble(self, outputs, targets):
            return torch.full_like(targets, 7.0)

    data = (X, SIGNAL[:, 0])
    _, history = trained(data, model=build(1), loss=Absolute(), validation=data)
    assert history.validation_nll == [7.0, 7.0]
    function = Absolute().__call__
    model, history = trained(data, model=build(1), loss=function, validation=data)
    error = (model.eval()(X).mean(1)[:, 0] - SIGNAL[:, 0]).abs().mean().item()
    assert history.validation_nll[-1] == pytest.approx(error)


def test_balanced_classes_count_the_same():
    rare = (X[:, 0] > 1).long()
    share = rare.double().mean().item()
    one, _ = trained((X, rare), class_weight="balanced", **WHOLE)
    other, _ = trained((X, rare), class_weight=[0.5 / (1 - share), 0.5 / share], **WHOLE)
    assert_same(one, other)


def test_without_any_option_the_loss_object_is_the_name():
    one, _ = trained((X, Y))
    other, _ = trained((X, Y), loss=be.losses.CrossEntropy())
    assert all(map(torch.equal, one.parameters(), other.parameters()))


@pytest.mark.parametrize("micro_batch", [None, 5])
def test_ignored_examples_are_as_if_left_out(micro_batch):
    y = Y.clone()
    y[::3] = -100
    kept = y >= 0
    options = {**WHOLE, "micro_batch": micro_batch}
    one, history = trained((X, y), ignore_index=-100, validation=(X, y), **options)
    other, expected = trained((X[kept], Y[kept]), validation=(X[kept], Y[kept]), **options)
    assert_same(one, other)
    assert history.validation_nll == pytest.approx(expected.validation_nll)
    assert history.diagnostics[-1]["member_nll"] == pytest.approx(
        expected.diagnostics[-1]["member_nll"]
    )


def test_half_precision_trains_numbers():
    model = build(2).float()
    for precision in ("bf16", "float32"):
        history = fit(model, (X, SIGNAL), loss="mse", epochs=8, lr=0.02, precision=precision)
        assert history.losses[-1] < history.losses[0]
    history = fit(build(2).bfloat16(), (X, SIGNAL[:, 0]), loss="gaussian_nll", epochs=8, lr=0.02)
    assert history.losses[-1] < history.losses[0]


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize(
    ("data", "options", "error", "sentence"),
    [
        ((X, SIGNAL[:, 0]), {}, TypeError, "class numbers .* such as loss='gaussian_nll'"),
        ((X, SIGNAL), {"loss": "huber", "outputs": 1}, ValueError, r"shape \[examples, 1\]"),
        ((X, Y[:, None].repeat(1, 5)), {}, ValueError, r"y must have the shape \[examples\],"),
        (
            (X, Y),
            {"loss": "mse", "class_weight": [1, 2]},
            ValueError,
            "class_weight= is an option of loss=",
        ),
        ((X, Y), {"class_weight": [1, 2, 3]}, ValueError, "each of the 2 classes, got 3"),
        ((X, Y), {"ignore_index": "pad"}, TypeError, "ignore_index must be a whole number"),
        ((X, Y, Y[:3]), {}, ValueError, r"weights must have the shape \[48\]"),
        (
            DataLoader(TensorDataset(X, Y), 8),
            {"class_weight": "balanced"},
            ValueError,
            "needs arrays, tables or files",
        ),
        (
            DataLoader(TensorDataset(X, SIGNAL[:, :1]), 8),
            {"loss": "mse"},
            ValueError,
            r"y must have the shape \[examples, 2\]",
        ),
        (
            (X, SIGNAL),
            {"loss": "mse", "validation": (X, SIGNAL), "stop_on": "accuracy"},
            ValueError,
            "stop_on must be one of nll, rmse, mae, r2, crps, got 'accuracy'",
        ),
        (
            (X, SIGNAL),
            {"loss": "mse", "validation": (X, SIGNAL[:, None].repeat(1, 3, 1))},
            ValueError,
            "validation data, whose targets are the same for all members, do not fit: y must",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_before_training(data, options, error, sentence):
    model = build(options.get("outputs", 2))
    before = [each.clone() for each in model.parameters()]
    with pytest.raises(error, match=sentence):
        fit(model, data, **{key: value for key, value in options.items() if key != "outputs"})
    assert all(map(torch.equal, before, model.parameters()))
