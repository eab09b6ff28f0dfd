"""BatchEnsemble: what its options share and what they refuse."""

import pytest
import torch
from torch import nn

import batchensemble as be
from batchensemble.ensembles.conversion.report import ModuleReport

MEMBERS = 3


def mlp(bias=True):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8, bias=bias), nn.ReLU(), nn.Linear(8, 2, bias=bias))


def test_the_shared_weights_are_the_networks():
    network = mlp()
    model = be.BatchEnsemble(network, MEMBERS)
    assert torch.equal(model.network[0].weight, network[0].weight)


@pytest.mark.parametrize(
    ("options", "shared", "per_member"),
    [
        ({}, 4 * 8 + 8 * 2, (4 + 8 + 8) + (8 + 2 + 2)),
        ({"bias": "shared"}, 4 * 8 + 8 * 2 + 8 + 2, (4 + 8) + (8 + 2)),
        ({"mode": "additive", "rank": 3}, 4 * 8 + 8 * 2, 3 * (4 + 8) + 8 + 3 * (8 + 2) + 2),
        ({"independent": ["0"]}, 8 * 2, (4 * 8 + 8) + (8 + 2 + 2)),
        ({"exclude": ["2"]}, 4 * 8 + 8 * 2 + 2, 4 + 8 + 8),
    ],
)
def test_parameters_are_those_counted_by_hand(options, shared, per_member):
    counts = be.BatchEnsemble(mlp(), MEMBERS, **options).parameter_counts()
    assert counts["parameters"] == shared + MEMBERS * per_member
    assert counts["parameters_per_member"] == per_member
    assert counts["parameter_ratio"] == (shared + MEMBERS * per_member) / (4 * 8 + 8 + 8 * 2 + 2)


def test_the_report_tells_what_became_of_each_layer():
    model = be.BatchEnsemble(
        nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)),
        MEMBERS,
        independent=["0"],
        exclude=["2"],
    )
    assert model.report().rows == [
        ModuleReport("0", "Linear", "4 → 8", "independent", 0, 4 * 8 + 8),
        ModuleReport("1", "Linear", "8 → 8", "rank_one", 64, 8 + 8 + 8),
        ModuleReport("2", "Linear", "8 → 2", "shared", 8 * 2 + 2, 0, "by a rule"),
    ]


@pytest.mark.parametrize("mode", ["multiplicative", "additive"])
def test_a_network_without_biases_stays_without(mode):
    model = be.BatchEnsemble(mlp(bias=False), MEMBERS, mode=mode)
    assert not any("bias" in name for name, _ in model.named_parameters())
    assert model.member(0)[0].bias is None


@pytest.mark.parametrize("init", ["ones", None])
def test_members_differ_at_the_start_unless_asked_to_be_alike(init):
    model, x = be.BatchEnsemble(mlp(), MEMBERS, init=init), torch.randn(5, 4)
    assert torch.allclose(model(x)[:, 0], model(x)[:, 1]) == (init == "ones")


def test_members_that_start_alike_are_the_network():
    network, x = mlp(), torch.randn(5, 4)
    model = be.BatchEnsemble(network, MEMBERS, init="ones")
    torch.testing.assert_close(model(x)[:, 2], network(x))


def test_all_members_see_the_same_examples_in_one_call():
    model = be.BatchEnsemble(mlp(), MEMBERS)
    assert not model.own_examples
    assert model.calls_per_forward == 1
    order = torch.randperm(10).view(2, 5)
    for member in range(MEMBERS):
        assert torch.equal(model.draw(order)[:, member], order)


@pytest.mark.parametrize(
    ("members", "error", "sentence"),
    [
        (0, ValueError, "members must be at least 1, got 0"),
        (-1, ValueError, "members must be at least 1, got -1"),
        (True, TypeError, "members must be a whole number of at least 1, got True"),
        (1.5, TypeError, "members"),
        ("3", TypeError, "members"),
        (None, TypeError, "members"),
    ],
)
@pytest.mark.parametrize("method", [be.BatchEnsemble, be.DeepEnsemble, be.MIMO])
def test_a_wrong_number_of_members_is_refused(method, members, error, sentence):
    with pytest.raises(error, match=sentence):
        method(mlp(), members)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"rank": 0}, "rank must be at least 1, got 0"),
        ({"rank": 2}, "rank above 1 needs mode='additive', got rank=2 and mode=multiplicative"),
        ({"init": "signs"}, "init must be one of random_sign, normal, ones"),
    ],
)
def test_an_option_out_of_range_is_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        be.BatchEnsemble(mlp(), MEMBERS, **options)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"mode": "multiplicativ"}, "must be one of .*; did you mean 'multiplicative'"),
        ({"mode": "aditive"}, "must be one of .*; did you mean 'additive'"),
        ({"bias": "members"}, "must be one of member, shared.*; did you mean 'member'"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(options, sentence, as_users_run_it):
    with pytest.raises(ValueError, match=sentence):
        be.BatchEnsemble(mlp(), MEMBERS, **options)
