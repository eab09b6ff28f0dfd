"""The baseline: one network with a member axis."""

import torch
from torch import nn

import batchensemble as be


def test_it_is_the_network_itself():
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    model, x = be.Single(network), torch.randn(7, 4)
    assert torch.equal(model(x)[:, 0], network(x))
    assert model.members == 1


def test_it_copies_the_network():
    network = nn.Linear(4, 2)
    model = be.Single(network)
    with torch.no_grad():
        model.network.weight.zero_()
    assert network.weight.any()


def test_everything_is_shared_and_it_costs_one_network():
    model = be.Single(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2, 2)))
    assert [(row.name, row.kind, row.sharing) for row in model.report()] == [
        ("0", "Conv2d", "shared"),
        ("2", "Linear", "shared"),
    ]
    assert model.parameter_counts() == {
        "parameters": 2 * 9 + 2 + 2 * 2 + 2,
        "parameters_per_member": 0,
        "parameter_ratio": 1.0,
    }


def test_every_example_is_seen_in_the_common_order():
    model = be.Single(nn.Linear(4, 2))
    assert not model.own_examples
    assert model.calls_per_forward == 1
