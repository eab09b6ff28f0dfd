"""``own=``: members own the head and the first layers, within a budget of one network's weights."""

import re

import pytest
import torch
from torch import nn

import batchensemble as be
from batchensemble.ensembles.conversion.own_layers import own_layers, own_share
from batchensemble.layers import Independent, RankOne


def network():
    """Return layers of 108, 24, 768, 1,024 and 160 weights, 2,084 in all."""
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, bias=False),
        nn.GroupNorm(4, 12),
        nn.Conv2d(12, 16, 2, bias=False),
        nn.Flatten(),
        nn.Linear(16 * 4, 16, bias=False),
        nn.Linear(16, 10, bias=False),
    )


@pytest.mark.parametrize(
    ("share", "names"),
    [
        (0.06, ["0"]),  # 125 of 2,084: the head does not fit, the first layer does
        (0.08, ["5"]),
        (0.13, ["5", "0"]),
        (0.49, ["5", "0"]),
        (0.51, ["5", "0", "2"]),
        (0.95, ["5", "0", "2"]),
        (1.0, ["5", "0", "2", "4"]),
    ],
)
def test_the_head_comes_first_then_layers_from_the_input_on_until_one_does_not_fit(share, names):
    plain = network()
    assert own_layers(plain, share) == names
    weights = sum(each.numel() for each in plain.parameters())
    owned = sum(plain.get_submodule(each).weight.numel() for each in names)
    assert owned <= share * weights


def test_own_layers_are_drawn_anew_for_each_member_and_the_others_are_shared():
    plain = network()
    model = be.BatchEnsemble(plain, members=3, own="14%")
    kinds = {row.name: row.sharing for row in model.report()}
    assert {kinds[name] for name in ("0", "5")} == {"independent"}
    assert {kinds[name] for name in ("2", "4")} == {"rank_one"}
    first = [model.member(index)[0].weight for index in range(3)]
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], plain[0].weight)
    assert model.options["independent"] == ["5", "0"]
    x = torch.randn(4, 1, 5, 5)
    expected = torch.stack([model.member(index)(x) for index in range(3)], 1)
    torch.testing.assert_close(model(x), expected)


def test_a_saved_model_owns_the_same_layers(tmp_path):
    model = be.BatchEnsemble(network(), members=3, own=0.14)
    again = be.load(be.save(model, tmp_path / "m"), network=network())
    x = torch.randn(4, 1, 5, 5)
    torch.testing.assert_close(again(x), model(x))
    assert again.options["independent"] == ["5", "0"]


def test_what_the_user_decided_stays_and_tied_weights_stay_tied():
    plain = network()
    model = be.BatchEnsemble(plain, members=3, own="40%", exclude=["0"], independent=["2"])
    assert isinstance(model.network[0], nn.Conv2d)
    assert model.options["independent"] == ["2", "5"]

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.middle = nn.Embedding(6, 4), nn.Linear(4, 4)
            self.head = nn.Linear(4, 6, bias=False)
            self.head.weight = self.table.weight

        def forward(self, words):
            return self.head(self.middle(self.table(words).mean(1)))

    assert own_layers(Tied(), 1.0) == ["middle"]


def test_what_runs_before_a_branch_stays_shared():
    model = be.BatchEnsemble(network(), members=3, own="99%", branch_at="4")
    assert model.options["independent"] == ["5", "4"]
    assert isinstance(model.network[0], nn.Conv2d)


def test_parameters_of_a_users_own_module_stay_shared_and_its_layers_count():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(4))
            self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.last(self.first(x * self.scale).relu())

    model = be.BatchEnsemble(Scaled(), members=3, own="50%")
    assert isinstance(model.network.last, nn.Module)
    assert model.options["independent"] == ["last"]
    assert isinstance(model.network.first, RankOne)
    assert not isinstance(model.network, Independent)


@pytest.mark.parametrize(
    ("own", "kind", "sentence"),
    [
        ("much", ValueError, "own must be a share such as 0.12 or '12%', or 'auto', got 'much'"),
        (0, ValueError, "own must be above 0 and at most 1, or '100%', got 0"),
        (12, ValueError, "own must be above 0 and at most 1, or '100%', got 12"),
        ("nan", ValueError, "own must be above 0 and at most 1"),
        (True, TypeError, "own must be a share such as"),
        ([0.1], TypeError, "own must be a share such as"),
        (0.001, ValueError, "own=0.001 holds no layer of the network"),
    ],
)
def test_what_is_no_budget_is_refused(own, kind, sentence):
    with pytest.raises(kind, match=re.escape(sentence)):
        be.BatchEnsemble(network(), members=3, own=own)


def test_auto_leaves_four_members_about_a_third_of_a_deep_ensembles_weights():
    share = own_share("auto")
    assert 1 + 3 * share == pytest.approx(4 / 3, abs=0.01)
