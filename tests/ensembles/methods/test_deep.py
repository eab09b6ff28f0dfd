"""DeepEnsemble: networks that are as independent as if each were alone."""

import copy

import pytest
import torch
from torch import nn

import batchensemble as be
from batchensemble.ensembles import Ensemble
from batchensemble.ensembles.conversion.report import ModuleReport
from batchensemble.layers import Independent, StackedLinear

MEMBERS = 3


def mlp():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 2))


def convolutional():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(36, 2),
    )


class Branched(nn.Module):
    """Not a chain: its rows are flattened, unlike those of a Sequential."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(4, 2), nn.Linear(4, 2, bias=False)

    def forward(self, x):
        return self.left(x) * self.right(x).sigmoid()


def stacked_and_copied(make):
    """Return the same networks as stacked weights and as one copy after the other."""
    networks = [make().double() for _ in range(MEMBERS)]
    stacked = be.DeepEnsemble.from_members(networks, stacked=True)
    copies = Independent([copy.deepcopy(network) for network in networks])
    parameters = sum(parameter.numel() for parameter in networks[0].parameters())
    return stacked, Ensemble(copies, MEMBERS, parameters)


def train(model, x, targets, steps):
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(steps):
        optimiser.zero_grad()
        (model(x, per_member=True) - targets).pow(2).mean(0).sum().backward()
        optimiser.step()


def same(one, other):
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("make", [mlp, Branched, lambda: nn.Linear(4, 2)])
class TestStackedIsTheSameAsCopies:
    def test_in_how_it_is_made(self, make):
        stacked, copied = stacked_and_copied(make)
        assert any(isinstance(module, StackedLinear) for module in stacked.modules())
        assert not any(isinstance(module, Independent) for module in stacked.modules())
        assert copied.calls_per_forward == MEMBERS
        assert stacked.calls_per_forward == 1

    def test_in_outputs_and_gradients(self, make):
        stacked, copied = stacked_and_copied(make)
        x = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
        same(stacked(x), copied(x))
        same(*(torch.autograd.grad(model(x).pow(2).sum(), x)[0] for model in (stacked, copied)))

    def test_after_training(self, make):
        stacked, copied = stacked_and_copied(make)
        x = torch.randn(6, MEMBERS, 4, dtype=torch.float64)
        targets = torch.randn(6, MEMBERS, 2, dtype=torch.float64)
        start = copy.deepcopy(copied.member(0).state_dict())
        for model in (stacked, copied):
            train(model, x, targets, steps=20)
        for index in range(MEMBERS):
            one, other = (model.member(index).state_dict() for model in (stacked, copied))
            for name in one:
                same(one[name], other[name])
        moved = copied.member(0).state_dict()
        assert not any(torch.allclose(start[name], moved[name], rtol=1e-3) for name in start)


def test_training_one_member_moves_no_other():
    model = be.DeepEnsemble(mlp(), MEMBERS)
    before = [model.member(index).state_dict() for index in range(MEMBERS)]
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.randn(6, 4))[:, 1].pow(2).sum().backward()
    optimiser.step()
    moved = [
        any(not torch.equal(a, b) for a, b in zip(old.values(), new.values(), strict=True))
        for old, new in zip(
            before, [model.member(i).state_dict() for i in range(MEMBERS)], strict=True
        )
    ]
    assert moved == [False, True, False]


def test_any_network_will_do_and_members_start_differently():
    model = be.DeepEnsemble(convolutional(), MEMBERS).eval()
    outputs = model(torch.randn(6, 1, 3, 3))
    assert outputs.shape == (6, MEMBERS, 2)
    assert model.calls_per_forward == MEMBERS
    assert not torch.allclose(outputs[:, 0], outputs[:, 1])
    assert not torch.equal(model.member(0)[0].weight, model.member(1)[0].weight)


def test_each_member_has_its_own_batch_norm_statistics():
    model = be.DeepEnsemble(nn.BatchNorm1d(2), MEMBERS)
    shifts = torch.tensor([0.0, 100.0, -100.0])
    x = torch.randn(500, MEMBERS, 2) + shifts[:, None]
    model(x, per_member=True)
    means = torch.stack([model.member(index).running_mean for index in range(MEMBERS)])
    torch.testing.assert_close(means, 0.1 * shifts[:, None].repeat(1, 2), atol=0.05, rtol=0)


def test_the_networks_weights_do_not_matter():
    model = be.DeepEnsemble(mlp().requires_grad_(True), MEMBERS)
    constant = mlp()
    with torch.no_grad():
        for parameter in constant.parameters():
            parameter.fill_(7.0)
    drawn = be.DeepEnsemble(constant, MEMBERS)
    assert not any((parameter == 7.0).any() for parameter in drawn.parameters())
    assert drawn.member(0)[0].weight.std() < 1
    assert model.parameter_counts() == drawn.parameter_counts()


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.scale = nn.Linear(4, 2), nn.Parameter(torch.ones(2))

    def forward(self, x):
        return self.linear(x) * self.scale


def test_a_parameter_that_nothing_draws_anew_is_named_in_a_warning():
    with pytest.warns(UserWarning, match=r"'the network' \(Scaled\) has no reset_parameters"):
        model = be.DeepEnsemble(Scaled(), MEMBERS)
    x = torch.randn(6, 4)
    for index in range(MEMBERS):
        torch.testing.assert_close(model(x)[:, index], model.member(index)(x))


def test_ones_own_reset_draws_each_member():
    numbers = iter(range(MEMBERS))

    def reset(network):
        nn.init.constant_(network.scale, next(numbers))

    model = be.DeepEnsemble(Scaled(), MEMBERS, reset=reset)
    assert [model.member(index).scale[0].item() for index in range(MEMBERS)] == [0, 1, 2]


def test_the_start_follows_torchs_seed():
    def start(seed):
        torch.manual_seed(seed)
        return be.DeepEnsemble(mlp(), MEMBERS)(torch.ones(1, 4))

    assert torch.equal(start(0), start(0))
    assert not torch.equal(start(0), start(1))


def test_each_member_has_its_own_order_of_all_examples():
    model = be.DeepEnsemble(mlp(), MEMBERS)
    order = torch.randperm(40).view(5, 8)
    drawn = model.draw(order)
    assert drawn.shape == (5, MEMBERS, 8)
    for member in range(MEMBERS):
        assert drawn[:, member].flatten().sort().values.tolist() == list(range(40))
    assert not torch.equal(drawn[:, 0], drawn[:, 1])


@pytest.mark.parametrize("make", [mlp, convolutional])
def test_it_costs_as_many_networks_as_it_has_members(make):
    counts = be.DeepEnsemble(make(), MEMBERS).parameter_counts()
    plain = sum(parameter.numel() for parameter in make().parameters())
    assert counts == {
        "parameters": MEMBERS * plain,
        "parameters_per_member": plain,
        "parameter_ratio": MEMBERS,
    }


def test_the_report_tells_the_layers_of_a_member():
    assert be.DeepEnsemble(nn.Sequential(nn.Linear(4, 2)), MEMBERS).report().rows == [
        ModuleReport("0", "Linear", "4 → 2", "independent", 0, 4 * 2 + 2)
    ]


@pytest.mark.parametrize("make", [mlp, convolutional])
def test_from_members_keeps_their_weights_in_their_order(make):
    networks = [make() for _ in range(MEMBERS)]
    model = be.DeepEnsemble.from_members(networks)
    assert model.members == MEMBERS
    for index, network in enumerate(networks):
        own = model.member(index).state_dict()
        assert list(own) == list(network.state_dict())
        assert all(torch.equal(own[name], value) for name, value in network.state_dict().items())


def test_from_members_needs_networks():
    with pytest.raises(ValueError, match="networks must hold at least one network, got none"):
        be.DeepEnsemble.from_members([])


@pytest.mark.parametrize(
    "other", [nn.Linear(5, 2), nn.Linear(4, 2, bias=False), nn.Sequential(nn.Linear(4, 2))]
)
def test_from_members_refuses_another_architecture(other):
    with pytest.raises(ValueError, match=r"number 1 has the parameters .* and number 0 has"):
        be.DeepEnsemble.from_members([nn.Linear(4, 2), other])


def weights_of(model, name):
    return [model.member(index).get_submodule(name).weight for index in range(MEMBERS)]


@pytest.mark.parametrize("make", [mlp, convolutional, Branched])
def test_members_of_a_fresh_network_differ_in_every_layer(make):
    network = make()
    model = be.DeepEnsemble(network, MEMBERS)
    for name, module in network.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            weights = [*weights_of(model, name), module.weight]
            assert len({each.detach().numpy().tobytes() for each in weights}) == MEMBERS + 1


@pytest.mark.parametrize("stacked", [None, True, False])
@pytest.mark.parametrize("reset", [["4"], "4", [nn.Tanh, "4"], [lambda name, _: name == "4"]])
def test_members_start_from_the_network_where_reset_names_what_is_drawn_anew(reset, stacked):
    network = mlp()
    model = be.DeepEnsemble(network, MEMBERS, reset=reset, stacked=stacked)
    for name in ("0", "2"):
        for weight in weights_of(model, name):
            assert torch.equal(weight, network.get_submodule(name).weight)
    heads = [*weights_of(model, "4"), network[4].weight]
    assert len({each.detach().numpy().tobytes() for each in heads}) == MEMBERS + 1


def test_they_all_are_the_network_where_nothing_is_drawn_anew_and_training_parts_them():
    torch.manual_seed(0)
    network, X = mlp(), torch.randn(64, 4)
    model = be.DeepEnsemble(network, MEMBERS, reset=[])
    with torch.no_grad():
        for output in model(X).unbind(1):
            torch.testing.assert_close(output, network(X))
    be.fit(model, (X, (X[:, 0] > 0).long()), epochs=1, batch_size=16, progress=False)
    first, second, _ = weights_of(model, "0")  # each sees the examples in its own order
    assert not torch.equal(first, second)


def test_after_a_branch_too():
    network = mlp()
    model = be.DeepEnsemble(network, MEMBERS, reset=["4"], branch_at="2")
    assert all(torch.equal(each, network[2].weight) for each in weights_of(model, "2"))
    first, second, _ = weights_of(model, "4")
    assert not torch.equal(first, second)


def test_what_reset_does_not_find_is_refused():
    with pytest.raises(ValueError, match="reset names 'head', but the network has no such module"):
        be.DeepEnsemble(mlp(), MEMBERS, reset=["head"])


def test_pretrained_weights_are_not_lost_without_a_word(tmp_path, recwarn):
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 20}
    fresh = BertForSequenceClassification(BertConfig(intermediate_size=16, **sizes))
    be.DeepEnsemble(fresh, 2)
    assert not recwarn
    fresh.save_pretrained(tmp_path)
    loaded = BertForSequenceClassification.from_pretrained(tmp_path)
    with pytest.warns(
        UserWarning, match=r"re-initialises all its weights.*reset=\[\"classifier\"\]"
    ):
        be.DeepEnsemble(loaded, 2)
    be.DeepEnsemble(loaded, 2, reset=["classifier"])
    assert not recwarn
