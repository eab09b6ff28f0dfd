"""The price of an ensemble, counted by hand."""

import json

import pytest
import torch
from torch import nn

import batchensemble as be
from batchensemble.comparison.cost import measure_cost, milliseconds_per_1000, multiply_adds

F, H, C, MEMBERS, BATCH = 6, 16, 3, 4, 32
X, Y = torch.randn(BATCH, F), torch.randint(C, (BATCH,))


def mlp(*between):
    return nn.Sequential(nn.Linear(F, H), nn.ReLU(), *between, nn.Linear(H, C))


def history_of(calls=12):
    return be.History(seconds=[1.0, 2.0], forward_calls=[calls // 2, calls // 2])


ONE_FORWARD = F * H + H * C
# Backward: the weight's gradient in each layer, the input's in all but the first.
ONE_TRAINING = 2 * F * H + 3 * H * C


@pytest.mark.parametrize(
    ("model", "training", "prediction"),
    [
        (be.Single(mlp()), ONE_TRAINING, ONE_FORWARD),
        (be.DeepEnsemble(mlp(), MEMBERS), MEMBERS * ONE_TRAINING, MEMBERS * ONE_FORWARD),
        (be.MIMO(mlp(), MEMBERS), MEMBERS * ONE_TRAINING, MEMBERS * ONE_FORWARD),
        (
            be.MIMO(mlp(), MEMBERS, batch_repetition=2),
            2 * MEMBERS * ONE_TRAINING,
            MEMBERS * ONE_FORWARD,
        ),
    ],
    ids=["single", "deep", "mimo", "mimo with repeated batches"],
)
def test_multiply_adds_are_those_of_the_formula(model, training, prediction):
    assert multiply_adds(model, X, Y) == (training, prediction)


def test_mimo_pays_for_its_trunk_once():
    trunk = mlp(nn.Linear(H, H), nn.ReLU())
    _, prediction = multiply_adds(be.MIMO(trunk, MEMBERS), X, Y)
    assert prediction == MEMBERS * ONE_FORWARD + H * H


def test_a_batch_ensemble_predicts_at_the_price_of_its_members():
    model = be.BatchEnsemble(mlp(), MEMBERS)
    _, prediction = multiply_adds(model, X, Y)
    assert prediction == MEMBERS * ONE_FORWARD


def test_multiply_adds_an_example_do_not_depend_on_how_many_there_are():
    model = be.DeepEnsemble(mlp(), MEMBERS)
    assert multiply_adds(model, X[:5], Y[:5]) == multiply_adds(model, X, Y)


@pytest.mark.parametrize("training", [True, False])
def test_measuring_leaves_the_model_as_it_was(training):
    model = be.DeepEnsemble(mlp(nn.BatchNorm1d(H), nn.Dropout()), MEMBERS).train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    measure_cost(model, X, Y, history_of())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(module.training is training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_cost_holds_the_counts_of_the_model_and_its_training():
    model = be.BatchEnsemble(mlp(), MEMBERS)
    cost = measure_cost(model, X, Y, history_of(calls=12))
    counts = model.parameter_counts()
    assert cost.parameters == counts["parameters"]
    assert cost.parameters_per_member == counts["parameters_per_member"]
    assert cost.parameter_ratio == counts["parameter_ratio"]
    assert (cost.forward_calls, cost.training_seconds) == (12, 3.0)
    assert (cost.training_multiply_adds, cost.prediction_multiply_adds) == multiply_adds(
        model, X, Y
    )
    assert json.loads(json.dumps(cost.to_dict())) == cost.to_dict()


@pytest.mark.parametrize("examples", [1, 32, 2000])
def test_the_time_is_of_1000_examples_however_many_are_given(examples):
    model, seen = be.Single(mlp()), set()
    model.register_forward_pre_hook(lambda _, inputs: seen.add(len(inputs[0])))
    assert milliseconds_per_1000(model, torch.randn(examples, F)) > 0
    assert seen == {1000}
