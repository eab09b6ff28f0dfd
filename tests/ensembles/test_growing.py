"""Members are added and joined; no bit of those that were there changes."""

import copy

import pytest
import torch
from torch import nn

import batchensemble as be

X = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))


class Mixed(nn.Module):
    """Layers whose members own vectors, biases, norms, statistics and, where asked, copies."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Linear(5, 8), nn.BatchNorm1d(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.token, self.head = nn.Parameter(torch.randn(8)), nn.Linear(8, 3)

    def reset_parameters(self):
        nn.init.normal_(self.token)

    def forward(self, x):
        hidden = torch.relu(self.norm(self.first(x)))[:, None] + self.token
        return self.head(self.attention(hidden, hidden, hidden)[0][:, 0])


def network():
    torch.manual_seed(0)
    return Mixed()


def chain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))


class Gated(nn.Module):
    """A network without stacked twins for all layers: under vmap."""

    def __init__(self):
        super().__init__()
        self.inner, self.gain = nn.Linear(5, 3), nn.Parameter(torch.randn(3))

    def reset_parameters(self):
        nn.init.normal_(self.gain)

    def forward(self, x):
        return self.inner(x) * self.gain


KINDS = {
    "multiplicative": lambda: be.BatchEnsemble(network(), 3, init="normal"),
    "additive": lambda: be.BatchEnsemble(network(), 3, mode="additive", rank=2),
    "own heads": lambda: be.BatchEnsemble(network(), 3, independent=["head", "attention"]),
    "shared norms": lambda: be.BatchEnsemble(network(), 3, bias="shared", norm="shared"),
    "one by one": lambda: be.BatchEnsemble(network(), 3, one_by_one=["attention"]),
    "trunk": lambda: be.BatchEnsemble(chain(), 3, branch_at="2"),
    "copies": lambda: be.DeepEnsemble(network(), 3),
    "stacked": lambda: be.DeepEnsemble(chain(), 3),
    "vmapped": lambda: be.DeepEnsemble(Gated(), 3, stacked=True),
    "deep on a trunk": lambda: be.DeepEnsemble(chain(), 3, branch_at="2"),
}


@pytest.fixture(params=KINDS)
def model(request):
    model = KINDS[request.param]()
    model(X)  # batch norm sees something, and the first call is over
    return model.eval()


def state(network):
    return network.state_dict()


def same_members(one, other, indices):
    for mine, theirs in indices:
        for (name, a), b in zip(
            state(one.member(mine)).items(), state(other.member(theirs)).values(), strict=True
        ):
            assert torch.equal(a, b), name


def test_a_copy_of_a_member_is_added_and_the_others_stay_bit_by_bit(model):
    before = copy.deepcopy(model)
    assert model.add_member(like=1) == 3
    assert model.members == 4
    same_members(model, before, [(0, 0), (1, 1), (2, 2), (3, 1)])
    torch.testing.assert_close(model(X)[:, :3], before(X), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model(X)[:, 3], model(X)[:, 1], rtol=1e-5, atol=1e-6)


def test_a_fresh_member_differs_and_the_others_stay_bit_by_bit(model):
    before = copy.deepcopy(model)
    assert model.add_member() == 3
    same_members(model, before, [(0, 0), (1, 1), (2, 2)])
    assert not any(torch.equal(model(X)[:, 3], each) for each in before(X).unbind(1))
    model.train()
    model(X).sum().backward()
    assert all(each.grad is not None for each in model.parameters() if each.requires_grad)


def test_a_fresh_member_of_a_batch_ensemble_is_the_shared_network():
    model = be.BatchEnsemble(chain(), 3, bias="shared")
    model.add_member()
    torch.testing.assert_close(model.member(3)(X), chain()(X))
    additive = be.BatchEnsemble(chain(), 3, mode="additive", bias="shared")
    additive.add_member()
    torch.testing.assert_close(additive.member(3)(X), chain()(X))
    model.add_member(init="tabm")
    assert set(model.network[0].r[4].tolist()) == {-1.0, 1.0}
    assert set(model.network[2].r[4].tolist()) == {1.0}
    own = be.BatchEnsemble(chain(), 3)
    with torch.no_grad():
        own.network[0].bias.add_(torch.arange(3.0)[:, None])
    own.add_member()
    torch.testing.assert_close(own.network[0].bias[3], own.network[0].bias[:3].mean(0))


def test_heads_of_a_fresh_member_are_drawn_anew():
    model = be.BatchEnsemble(chain(), 2, independent=["2"])
    model.add_member()
    weights = [model.member(index)[2].weight for index in range(3)]
    assert not torch.equal(weights[2], weights[0])
    assert not torch.equal(weights[2], weights[1])


def test_what_is_frozen_stays_frozen_and_a_grown_model_is_saved(tmp_path):
    model = be.BatchEnsemble(chain(), 2).train_only("fast")
    trained = {name for name, each in model.named_parameters() if each.requires_grad}
    model.add_member(like=0)
    assert {name for name, each in model.named_parameters() if each.requires_grad} == trained
    be.fit(model, (X, torch.arange(6) % 3), epochs=1, progress=False)
    again = be.load(be.save(model, tmp_path))
    assert torch.equal(again(X), model.eval()(X)) or torch.allclose(again.eval()(X), model(X))
    assert again.members == 3


def test_a_member_that_cannot_be_added_is_refused():
    model = be.BatchEnsemble(chain(), 2)
    with pytest.raises(IndexError):
        model.add_member(like=2)
    with pytest.raises(ValueError, match="not both"):
        model.add_member(like=0, init="ones")
    with pytest.raises(ValueError, match="init must be"):
        model.add_member(init="zeros")
    assert model.members == 2
    with pytest.raises(ValueError, match="not both"):
        be.DeepEnsemble(chain(), 2).add_member(like=0, reset=[])


def test_ensembles_that_share_their_weights_are_joined(model):
    other = copy.deepcopy(model).select([2, 0])
    other.add_member()
    joined = model.join(other, model.select([1]))
    assert joined.members == 7
    assert (model.members, other.members) == (3, 3)
    same_members(joined, model, [(0, 0), (1, 1), (2, 2), (3, 2), (4, 0), (6, 1)])
    same_members(joined, other, [(5, 2)])
    expected = torch.cat([model(X), other(X), model(X)[:, 1:2]], 1)
    torch.testing.assert_close(joined.eval()(X), expected, rtol=1e-5, atol=1e-6)


def test_members_trained_apart_on_frozen_weights_are_joined():
    models = [be.BatchEnsemble(chain(), 2).train_only("fast", "bias") for _ in range(2)]
    for seed, each in enumerate(models):
        be.fit(each, (X, torch.arange(6) % 3), epochs=2, seed=seed, progress=False)
    assert models[0].join(models[1]).members == 4


def test_what_cannot_be_joined_is_refused():
    model = be.BatchEnsemble(chain(), 2)
    other = be.BatchEnsemble(chain(), 2)
    with torch.no_grad():
        other.network[2].weight[0, 0] += 1e-6
    with pytest.raises(ValueError, match=r"'2.weight' is shared by the members, and differs"):
        model.join(other)
    with pytest.raises(TypeError, match="got a BatchEnsemble and a DeepEnsemble"):
        model.join(be.DeepEnsemble(chain(), 2))
    for name, value in (("mode", "additive"), ("bias", "shared"), ("exclude", ["0"])):
        with pytest.raises(ValueError, match=f"must have the same {name}, got"):
            model.join(be.BatchEnsemble(chain(), 2, **{name: value}))
    wider = be.BatchEnsemble(nn.Sequential(nn.Linear(5, 9), nn.ReLU(), nn.Linear(9, 3)), 2)
    with pytest.raises(ValueError, match=r"different networks: '0' is a RankOneLinear"):
        model.join(wider)
    trained = be.BatchEnsemble(chain(), 2)
    trained.loss = be.losses.MSE()
    with pytest.raises(ValueError, match=r"the same loss, got None and MSE\(\)"):
        model.join(trained)
    calibrated = be.calibrate(be.BatchEnsemble(nn.Linear(5, 5), 2, init="ones"), (X, X.argmax(1)))
    for refused in (calibrated.add_member, calibrated.join):
        with pytest.raises(ValueError, match="calibrated for the members that it has"):
            refused(*[be.BatchEnsemble(nn.Linear(5, 5), 2)] * (refused == calibrated.join))
