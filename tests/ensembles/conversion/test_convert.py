"""Any network becomes its ensemble twin, and every member comes out plain."""

import copy

import pytest
import torch
from torch import nn

import batchensemble as be
from batchensemble.ensembles.conversion.convert import Rules, convert, reset_parameters
from batchensemble.layers import Independent, RankOneLinear, StackedLinear

MEMBERS = 3


class Residual(nn.Module):
    """A network of the user's own, with its own forward and a nested container."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(4, 8)
        self.block = nn.Sequential(nn.LayerNorm(8, elementwise_affine=False), nn.Linear(8, 8))
        self.head = nn.ModuleDict({"out": nn.Linear(8, 2)})

    def forward(self, x):
        hidden = self.stem(x)
        return self.head["out"](torch.relu(hidden + self.block(hidden)))


class Doubled(nn.Linear):
    """A linear layer that does something else."""

    def forward(self, x):
        return 2 * super().forward(x)


def convolutional():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2, 2))


def classes_of(network):
    return {name: type(module) for name, module in network.named_modules()}


def assert_members_match(model, x):
    outputs = model(x)
    for index in range(model.members):
        torch.testing.assert_close(outputs[:, index], model.member(index)(x))


def test_the_users_network_keeps_its_class_names_and_forward():
    model = be.BatchEnsemble(Residual(), MEMBERS)
    twins = {name: kind for name, kind in classes_of(model.network).items() if name}
    assert type(model.network) is Residual
    assert list(twins) == [name for name, _ in Residual().named_modules()][1:]
    assert twins["stem"] is twins["block.1"] is twins["head.out"] is RankOneLinear
    assert_members_match(model, torch.randn(5, 4))


def test_the_callers_network_stays_as_it_was():
    network = Residual()
    weights, classes = copy.deepcopy(network.state_dict()), classes_of(network)
    model = be.BatchEnsemble(network, MEMBERS, independent=["head.out"])
    be.DeepEnsemble(network, MEMBERS)
    be.MIMO(network, MEMBERS)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert classes_of(network) == classes
    assert all(torch.equal(weights[name], value) for name, value in network.state_dict().items())


@pytest.mark.parametrize("make", [be.BatchEnsemble, be.DeepEnsemble])
def test_a_member_is_the_original_network_without_a_trace_of_ours(make):
    network = Residual()
    member = make(network, MEMBERS).member(1)
    assert classes_of(member) == classes_of(network)
    assert list(member.state_dict()) == list(network.state_dict())
    assert not any(
        kind.__module__.startswith("batchensemble") for kind in classes_of(member).values()
    )


def test_a_member_keeps_the_mode_of_each_module():
    model = be.BatchEnsemble(nn.Sequential(nn.Linear(4, 2), nn.Dropout()), MEMBERS)
    model.eval()
    assert not any(module.training for module in model.member(0).modules())
    model.train()
    assert all(module.training for module in model.member(0).modules())


def one_parent():
    layer = nn.Linear(4, 4)
    return nn.Sequential(layer, nn.ReLU(), layer)


def two_parents():
    layer = nn.Linear(4, 4)
    return nn.Sequential(nn.Sequential(layer), nn.Sequential(nn.ReLU(), layer))


@pytest.mark.parametrize("make", [be.BatchEnsemble, be.DeepEnsemble])
@pytest.mark.parametrize("network", [one_parent(), two_parents()], ids=["in one", "in two"])
class TestModuleUsedTwice:
    def test_is_one_module_of_the_ensemble_and_of_each_member(self, make, network):
        model = make(network, MEMBERS)
        in_member = [m for m in model.member(0).modules() if isinstance(m, nn.Linear)]
        assert len(in_member) == 1
        assert len(list(model.member(0).parameters())) == 2
        assert list(model.member(0).state_dict()) == list(network.state_dict())

    def test_computes_the_same_as_its_members(self, make, network):
        assert_members_match(make(network, MEMBERS), torch.randn(5, 4))

    def test_is_counted_once(self, make, network):
        model = make(network, MEMBERS)
        counts = model.parameter_counts()
        assert counts["parameters"] == sum(p.numel() for p in model.parameters())
        assert counts["parameters_per_member"] == (12 if make is be.BatchEnsemble else 20)


class Tied(nn.Module):
    """Two layers that share one weight, as encoders and decoders do."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
        self.two.weight = self.one.weight

    def forward(self, x):
        return self.two(torch.relu(self.one(x)))


def test_layers_that_share_a_weight_go_on_sharing_it():
    rank_one = be.BatchEnsemble(Tied(), MEMBERS)
    assert rank_one.network.one.weight is rank_one.network.two.weight
    assert rank_one.parameter_counts()["parameters"] == 16 + MEMBERS * 2 * (4 + 4 + 4)
    deep = be.DeepEnsemble(Tied(), MEMBERS)
    assert all(copy.one.weight is copy.two.weight for copy in deep.network.copies)
    for model in (rank_one, deep):
        assert_members_match(model, torch.randn(5, 4))


def test_a_subclass_of_a_layer_with_its_own_forward_runs_through_it():
    model = be.BatchEnsemble(nn.Sequential(Doubled(4, 2)), MEMBERS, init="normal")
    x = torch.randn(5, 4)
    plain = nn.functional.linear(x, *model.member(1)[0].parameters())
    torch.testing.assert_close(model(x)[:, 1], 2 * plain)
    assert type(model.member(1)[0]) is Doubled
    assert model.report()[0].reason == "its own forward, members one by one"
    deep = be.DeepEnsemble(nn.Sequential(Doubled(4, 2)), MEMBERS)
    assert isinstance(deep.network, Independent)
    assert_members_match(deep, x)


def test_a_subclass_that_inherits_its_forward_is_the_layer_itself():
    class Named(nn.Linear):
        """A linear layer by another name."""

    model = be.BatchEnsemble(Named(4, 2), MEMBERS)
    assert isinstance(model.network, RankOneLinear)
    assert type(model.member(0)) is Named
    assert model.report()[0].reason == ""


def test_the_network_itself_may_be_the_layer():
    model = be.BatchEnsemble(nn.Linear(4, 2), MEMBERS)
    assert isinstance(model.network, RankOneLinear)
    assert type(model.member(0)) is nn.Linear
    assert be.BatchEnsemble(nn.Conv2d(1, 2, 3), MEMBERS)(torch.zeros(5, 1, 3, 3)).shape == (
        5,
        MEMBERS,
        2,
        1,
        1,
    )


def test_batch_norm_has_statistics_of_each_members_own():
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, affine=False))
    model = be.BatchEnsemble(network, MEMBERS)
    model(torch.randn(64, 4))
    statistics = [model.member(index)[1].running_mean for index in range(MEMBERS)]
    assert not torch.allclose(statistics[0], statistics[1])
    assert_members_match(model.eval(), torch.randn(5, 4))


def test_excluded_modules_are_shared_as_they_are():
    network = convolutional()
    model = be.BatchEnsemble(network, MEMBERS, exclude=["0"])
    assert type(model.network[0]) is nn.Conv2d
    assert torch.equal(model.network[0].weight, network[0].weight)
    assert_members_match(model, torch.randn(5, 1, 3, 3))


def test_independent_modules_are_each_members_own_and_drawn_anew():
    model = be.BatchEnsemble(convolutional(), MEMBERS, independent=["0"])
    first, second = (model.member(index)[0].weight for index in range(2))
    assert isinstance(model.network[0], Independent)
    assert not torch.equal(first, second)
    assert_members_match(model, torch.randn(5, 1, 3, 3))


def test_independent_linear_layers_are_one_product():
    model = be.BatchEnsemble(Residual(), MEMBERS, independent=["stem"])
    assert isinstance(model.network.stem, StackedLinear)
    assert_members_match(model, torch.randn(5, 4))


def test_a_container_name_covers_all_beneath_it_and_a_nearer_name_wins():
    rules = Rules("rank_one", independent=["block"], exclude=["block.1"])
    network = convert(Residual(), MEMBERS, rules)
    assert type(network.block[1]) is nn.Linear
    assert type(network.stem) is RankOneLinear


@pytest.mark.parametrize("argument", ["independent", "exclude"])
@pytest.mark.parametrize("name", ["block", "head"])
def test_containers_can_be_named(argument, name):
    model = be.BatchEnsemble(Residual(), MEMBERS, **{argument: [name]})
    inside = [row for row in model.report() if row.name.startswith(name)]
    assert {row.sharing for row in inside} == {
        "independent" if argument == "independent" else "shared"
    }
    assert_members_match(model, torch.randn(5, 4))


@pytest.mark.parametrize("argument", ["independent", "exclude"])
def test_an_unknown_name_is_refused_with_the_nearest_and_all_others(argument):
    with pytest.raises(ValueError, match=r"'stm'.* did you mean 'stem'.* block\.1") as error:
        be.BatchEnsemble(Residual(), MEMBERS, **{argument: ["stm"]})
    assert argument in str(error.value)


def test_a_name_in_both_lists_is_refused():
    with pytest.raises(ValueError, match="'stem' is in both independent and exclude"):
        be.BatchEnsemble(Residual(), MEMBERS, independent=["stem"], exclude=["stem"])


@pytest.mark.parametrize("make", [be.BatchEnsemble, be.DeepEnsemble, be.MIMO])
def test_what_is_no_module_is_refused(make):
    with pytest.raises(TypeError):
        make("resnet", MEMBERS)


def test_drawing_anew_covers_modules_with_a_reset_of_another_name():
    attention = nn.MultiheadAttention(4, 2)
    before = attention.in_proj_weight.clone()
    reset_parameters(attention)
    assert not torch.equal(attention.in_proj_weight, before)


def test_weights_that_cannot_be_drawn_anew_are_named_in_a_warning():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(2))

    with pytest.warns(UserWarning, match=r"'0' \(Scaled\) has no reset_parameters.* reset="):
        reset_parameters(nn.Sequential(Scaled()))
