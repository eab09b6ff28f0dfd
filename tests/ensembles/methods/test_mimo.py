"""MIMO: which examples its members see, and which networks it takes."""

import pytest
import torch
from torch import nn

import batchensemble as be
from batchensemble.ensembles.conversion.report import ModuleReport

MEMBERS = 3


def mlp():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))


def drawn(batch=20, **options):
    """Return the rows that members see of one batch, ``[members, rows]``."""
    torch.manual_seed(0)
    return be.MIMO(mlp(), MEMBERS, **options).draw(torch.arange(100, 100 + batch))


def test_the_ends_are_widened_and_the_trunk_is_the_networks():
    network = mlp()
    model = be.MIMO(network, MEMBERS)
    assert model.network[0].in_features == 4 * MEMBERS
    assert model.network[4].out_features == 2 * MEMBERS
    assert torch.equal(model.network[2].weight, network[2].weight)


def test_a_member_depends_on_the_inputs_of_the_others_while_training():
    model = be.MIMO(mlp(), MEMBERS)
    x = torch.randn(5, MEMBERS, 4)
    other = x.clone()
    other[:, 1] = 0
    assert not torch.allclose(model(x, per_member=True)[:, 0], model(other, per_member=True)[:, 0])


def test_images_are_laid_side_by_side():
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 2))
    model, x = be.MIMO(network, MEMBERS), torch.randn(5, 3, 2, 2)
    assert model(x).shape == (5, MEMBERS, 2)
    repeated = x.unsqueeze(1).repeat(1, MEMBERS, 1, 1, 1)
    torch.testing.assert_close(model(repeated, per_member=True), model(x))
    torch.testing.assert_close(model.member(1)(x), model(x)[:, 1])


def test_without_repetition_each_member_sees_a_permutation_of_the_batch():
    rows = drawn()
    assert rows.shape == (MEMBERS, 20)
    for member in range(MEMBERS):
        assert rows[member].sort().values.tolist() == list(range(100, 120))
    assert not torch.equal(rows[0], rows[1])


def test_with_full_input_repetition_all_members_see_the_same():
    rows = drawn(input_repetition=1.0)
    assert (rows == rows[0]).all()
    assert rows[0].sort().values.tolist() == list(range(100, 120))


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_input_repetition_is_the_share_of_rows_in_which_members_see_the_same(share):
    rows = drawn(batch=1000, input_repetition=share)
    together = (rows == rows[0]).all(0).float().mean().item()
    assert together == pytest.approx(share, abs=0.005)  # a permutation may agree by chance
    for member in range(MEMBERS):
        assert rows[member].sort().values.tolist() == list(range(100, 1100))


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_batch_repetition_shows_every_example_that_often(share):
    rows = drawn(batch_repetition=4, input_repetition=share)
    assert rows.shape == (MEMBERS, 80)
    for member in range(MEMBERS):
        assert (rows[member].bincount()[100:] == 4).all()


def test_many_batches_are_drawn_each_from_its_own_examples():
    order = torch.randperm(40).view(5, 8)
    rows = be.MIMO(mlp(), MEMBERS, batch_repetition=2).draw(order)
    assert rows.shape == (5, MEMBERS, 16)
    for step in range(5):
        for member in range(MEMBERS):
            assert rows[step, member].unique().tolist() == order[step].sort().values.tolist()


def test_parameters_are_those_counted_by_hand():
    counts = be.MIMO(mlp(), MEMBERS).parameter_counts()
    trunk = (4 * MEMBERS * 8 + 8) + (8 * 6 + 6)
    assert counts == {
        "parameters": trunk + MEMBERS * (6 * 2 + 2),
        "parameters_per_member": 6 * 2 + 2,
        "parameter_ratio": (trunk + MEMBERS * 14) / (4 * 8 + 8 + 8 * 6 + 6 + 14),
    }


def test_the_report_tells_that_the_heads_are_the_members():
    assert be.MIMO(mlp(), MEMBERS).report().rows == [
        ModuleReport("0", "Linear", "12 → 8", "shared", 12 * 8 + 8, 0),
        ModuleReport("2", "Linear", "8 → 6", "shared", 8 * 6 + 6, 0),
        ModuleReport("4", "Linear", "6 → 6", "heads", 0, 6 * 2 + 2),
    ]


@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(2, 2)), "first layer .* '0' is a Conv2d"),
        (nn.Sequential(nn.Linear(4, 2), nn.LayerNorm(2)), "last layer .* '1' is a LayerNorm"),
        (nn.Conv2d(1, 2, 3), "'the network' is a Conv2d"),
        (nn.ReLU(), "got one without weights"),
    ],
)
def test_a_network_whose_ends_are_not_linear_is_refused(network, sentence):
    with pytest.raises(ValueError, match=sentence):
        be.MIMO(network, MEMBERS)


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"input_repetition": 1.5}, ValueError, "input_repetition must be .* 0 to 1, got 1.5"),
        ({"input_repetition": -0.5}, ValueError, "input_repetition must be .* got -0.5"),
        ({"input_repetition": float("nan")}, ValueError, "input_repetition must be .* got nan"),
        ({"batch_repetition": 0}, ValueError, "batch_repetition must be at least 1, got 0"),
        ({"batch_repetition": True}, TypeError, "batch_repetition must be a whole number"),
    ],
)
def test_an_option_out_of_range_is_refused(options, error, sentence):
    with pytest.raises(error, match=sentence):
        be.MIMO(mlp(), MEMBERS, **options)


def trunk_and_more():
    return nn.Sequential(nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(8, 6), nn.Linear(6, 2))


def test_from_a_branch_on_what_the_trunk_makes_is_laid_side_by_side():
    torch.manual_seed(0)
    network = trunk_and_more()
    model, x = be.MIMO(network, MEMBERS, branch_at="2"), torch.randn(5, MEMBERS, 1, 6)
    assert model.network[0].weight.shape == network[0].weight.shape
    assert model.network[2].in_features == 8 * MEMBERS
    side_by_side = torch.cat([network[:2](x[:, index]) for index in range(MEMBERS)], 1)
    plain = nn.functional.linear(side_by_side, model.network[2].weight, model.network[2].bias)
    expected = model.network[3](plain).unflatten(1, (MEMBERS, -1))
    torch.testing.assert_close(model(x, per_member=True), expected)


def test_from_a_branch_on_one_example_is_seen_by_all_and_a_member_is_a_plain_network():
    model, x = be.MIMO(trunk_and_more(), MEMBERS, branch_at="2"), torch.randn(5, 1, 6)
    repeated = x.unsqueeze(1).repeat(1, MEMBERS, 1, 1)
    torch.testing.assert_close(model(repeated, per_member=True), model(x))
    for index in range(MEMBERS):
        torch.testing.assert_close(model.member(index)(x), model(x)[:, index])
    with pytest.raises(ValueError, match="per_member=True takes inputs of shape"):
        model(x, per_member=True)


def test_names_of_weights_do_not_depend_on_the_branch():
    names = list(be.MIMO(mlp(), MEMBERS).state_dict())
    assert list(be.MIMO(mlp(), MEMBERS, branch_at="2").state_dict()) == names
