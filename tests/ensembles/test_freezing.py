"""A frozen ensemble computes what it did, with choices that stay."""

import copy

import pytest
import torch
from torch import nn

import batchensemble as be

MEMBERS = 3


def network():
    return nn.Sequential(
        nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5)
    )


MODELS = {
    "batch": lambda: be.BatchEnsemble(network(), MEMBERS),
    "additive": lambda: be.BatchEnsemble(network(), MEMBERS, mode="additive", rank=2),
    "deep": lambda: be.DeepEnsemble(network(), MEMBERS),
    "attention": lambda: be.BatchEnsemble(
        nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), MEMBERS
    ),
}


@pytest.fixture(params=MODELS)
def model(request):
    torch.manual_seed(0)
    return MODELS[request.param]().double()


def draw(model, batch=4):
    shape = (batch, 2, 6)
    return torch.randn(shape, dtype=torch.float64)


def assert_members(model):
    x = draw(model)
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            outputs = model(x)
            for index in range(model.members):
                expected = model.member(index)(x)
                torch.testing.assert_close(outputs[:, index], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("batch_size", [None, 1, 100_000])
def test_freezing_changes_no_number(model, batch_size):
    assert not model.frozen
    assert model.freeze(batch_size) is model
    assert model.frozen
    assert not model.training
    assert_members(model)


def test_training_and_unfreezing_undo_it(model):
    assert not model.freeze().train().frozen
    assert model.training
    assert model.freeze().eval().frozen
    assert model.unfreeze() is model
    assert not model.frozen
    assert not model.training
    assert_members(model)


def test_training_a_part_undoes_it():
    model = MODELS["batch"]().freeze()
    model.network.train()
    assert not model.frozen


def test_frozen_weights_follow_a_step_and_a_state_dictionary(model):
    model.freeze()
    assert_members(model)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    model(draw(model)).square().sum().backward()
    optimiser.step()
    assert model.frozen
    assert_members(model)
    model.load_state_dict({name: value * 1 for name, value in model.state_dict().items()})
    assert_members(model)
    model.float().double()
    assert_members(model)


def test_a_copy_is_frozen_with_its_own_weights(model):
    model.freeze()
    assert_members(model)
    other = copy.deepcopy(model)
    assert other.frozen
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
    assert_members(other)
    assert_members(model)
    other.train()
    assert model.frozen


def test_a_selection_is_frozen_with_its_own_members(model):
    x = draw(model)
    model.freeze()
    with torch.no_grad():
        outputs = model(x)
        selection = model.select([2, 0])
        torch.testing.assert_close(selection(x), outputs[:, [2, 0]])
    assert selection.frozen
    assert_members(selection)


def test_a_member_set_is_seen():
    model = MODELS["batch"]().double().freeze()
    assert_members(model)
    model.set_member(0, model.member(2))
    assert_members(model)
    with torch.no_grad():
        outputs = model(draw(model))
    torch.testing.assert_close(outputs[:, 0], outputs[:, 2])


def test_predict_and_fit_go_on_with_a_frozen_model():
    net = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2))
    model = be.BatchEnsemble(net, MEMBERS).freeze()
    X, y = torch.randn(64, 2), torch.randint(2, (64,))
    before = be.predict(model, X).probs
    assert model.frozen
    be.fit(model, (X, y), epochs=2, batch_size=16)
    assert not model.freeze().training
    after = be.predict(model, X).probs
    loop = torch.stack([model.member(m)(X).softmax(-1) for m in range(MEMBERS)]).mean(0)
    torch.testing.assert_close(torch.as_tensor(after).float(), loop.float(), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(torch.as_tensor(before), torch.as_tensor(after))


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize("batch_size", [0, -1, 2.5, "many"])
def test_a_batch_size_that_is_none_is_refused(batch_size):
    model = MODELS["batch"]()
    with pytest.raises((TypeError, ValueError), match="batch_size must be"):
        model.freeze(batch_size)
    assert not model.frozen
