"""Cosines are those of the members' own weights, for every method."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import batchensemble as be
from batchensemble.ensembles import METHODS
from batchensemble.metrics.members.weights import fast_weight_spread, weight_diversity


def build(method=be.BatchEnsemble, members=3, **options):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(4, 16),
        nn.LayerNorm(16),
        nn.ReLU(),
        nn.Linear(16, 16),
        nn.ReLU(),
        nn.Linear(16, 2),
    )
    return method(network, members, **options)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "single"])
def test_cosines_are_torchs_of_the_members_weights(method):
    model = build(METHODS[method].kind)
    found = weight_diversity(model)
    assert list(found.cosines) == ["0.weight", "3.weight", "5.weight"]
    states = [model.member(index).state_dict() for index in range(3)]
    for one, other in itertools.product(range(3), repeat=2):
        for name, cosines in found.cosines.items():
            pair = [states[index][name].double().flatten() for index in (one, other)]
            assert cosines[one, other] == pytest.approx(F.cosine_similarity(*pair, dim=0).item())
        pair = [
            torch.cat([states[index][name].double().flatten() for name in found.cosines])
            for index in (one, other)
        ]
        expected = F.cosine_similarity(*pair, dim=0).item()
        assert found.together[one, other] == pytest.approx(expected)


def test_means_are_over_pairs_of_different_members():
    found = weight_diversity(build())
    pairs = list(itertools.permutations(range(3), 2))
    for name, mean in found.mean_cosines.items():
        assert mean == pytest.approx(np.mean([found.cosines[name][pair] for pair in pairs]))
    assert found.mean_cosine == pytest.approx(np.mean([found.together[pair] for pair in pairs]))


def test_independent_networks_are_near_0_and_members_alike_1():
    wide = nn.Linear(100, 100)
    assert abs(weight_diversity(be.DeepEnsemble(wide, 3)).mean_cosine) < 0.05
    assert weight_diversity(build(init="ones")).mean_cosine == pytest.approx(1)


def test_shared_layers_are_1_and_bent_ones_are_not():
    means = weight_diversity(build(exclude=["3"])).mean_cosines
    assert means["3.weight"] == pytest.approx(1)
    assert abs(means["0.weight"]) < 0.9


def test_the_spread_is_that_of_diagnostics():
    model = build()
    assert weight_diversity(model).fast_weight_spread == fast_weight_spread(model)
    assert weight_diversity(build(be.DeepEnsemble)).fast_weight_spread is None


def test_one_member_is_all_alike():
    found = weight_diversity(be.Single(nn.Linear(2, 2)))
    assert found.together == pytest.approx(np.ones((1, 1)))
    assert found.mean_cosine == 1


def test_a_weight_that_two_layers_share_counts_once():
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    network[2].weight = network[0].weight
    assert list(weight_diversity(be.DeepEnsemble(network, 2)).cosines) == ["0.weight"]


def test_weights_of_0_have_no_direction():
    model = be.Single(nn.Linear(2, 2))
    nn.init.zeros_(model.network.weight)
    assert np.isnan(weight_diversity(model).cosines["weight"]).all()


def test_the_model_stays_as_it_is():
    model = build().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    weight_diversity(model)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_network_without_such_weights_is_refused():
    with pytest.raises(ValueError, match="must have a weight of two axes to compare, got none"):
        weight_diversity(be.BatchEnsemble(nn.LayerNorm(3), 2))
