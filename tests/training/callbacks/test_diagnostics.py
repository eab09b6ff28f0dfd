"""Members that diverge, rely on each other or collapse are warned of, once."""

import warnings

import pytest
import torch
from torch import nn

import batchensemble as be
from batchensemble.metrics.members.weights import fast_weight_spread
from batchensemble.training.callbacks.diagnostics import diagnose, find_problems

torch.manual_seed(0)
X = torch.randn(200, 2)
Y = (X[:, 0] * X[:, 1] > 0).long()


def build(members=3, **options):
    torch.manual_seed(1)
    return be.BatchEnsemble(
        nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 2)), members, **options
    )


def test_the_notebooks_failure_is_told_by_its_figure():
    model = build(mode="additive")
    with pytest.warns(UserWarning, match="the members rely on each other") as told:
        be.fit(model, (X, Y), loss_on="mean_logits", epochs=60, lr=0.02)
    assert len(told) == 1


def test_members_that_are_trained_each_for_itself_are_well():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        history = be.fit(build(), (X, Y), epochs=20, lr=0.02)
    last = history.diagnostics[-1]
    assert last["disagreement"] > 1e-3
    assert last["fast_weight_spread"] > 0.1
    assert len(last["member_nll"]) == 3


def test_members_that_are_one_are_told():
    model = build(init="ones")
    with pytest.warns(UserWarning, match="the members have collapsed: two of them differ by"):
        be.fit(model, (X, Y), epochs=2)


def test_a_member_that_is_lost_is_told_by_its_number():
    said = find_problems({}, [0.1, 0.2, 3.0, 0.1])["lost"]
    assert said.startswith(
        "member 2 diverged from the others: its loss is 3, the median member's 0.2"
    )
    assert find_problems({}, [0.5, 0.6, 0.7]) == {}


def test_the_figures_are_those_of_the_members():
    model = build().double()
    found = diagnose(model, X.double(), Y)
    with torch.no_grad():
        outputs = [model.member(index)(X.double()) for index in range(3)]
    probs = [each.softmax(-1) for each in outputs]
    pairs = [(0, 1), (0, 2), (1, 2)]
    gaps = [(probs[a] - probs[b]).abs().sum(-1).mean() / 2 for a, b in pairs]
    assert found["disagreement"] == pytest.approx(sum(gaps).item() / 3)
    nll = [nn.functional.cross_entropy(each, Y).item() for each in outputs]
    assert found["member_nll"] == pytest.approx(nll)
    together = nn.functional.cross_entropy(sum(outputs) / 3, Y).item()
    assert found["mean_logits_nll"] == pytest.approx(together)


def test_fast_weights_spread_between_0_for_equal_ones_and_1_for_opposite_ones():
    assert fast_weight_spread(build(init="ones")) == 0.0
    model = build(members=2)
    with torch.no_grad():
        for layer in (model.network[0], model.network[2]):
            for vectors in (layer.r, layer.s):
                vectors[1] = -vectors[0]
    assert fast_weight_spread(model) == pytest.approx(1.0)
    assert fast_weight_spread(be.DeepEnsemble(nn.Linear(2, 2), 3)) is None


@pytest.mark.parametrize("method", [be.DeepEnsemble, be.MIMO])
def test_methods_with_examples_of_their_own_are_looked_at_too(method):
    torch.manual_seed(1)
    model = method(nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 2)), 3)
    history = be.fit(model, (X, Y), epochs=2)
    assert len(history.diagnostics[-1]["member_nll"]) == 3
    assert history.diagnostics[-1]["member_nll"] == pytest.approx(
        history.member_losses[-1], abs=0.3
    )


def test_targets_of_each_member_are_no_failure():
    targets = torch.stack([Y, 1 - Y, Y], 1)
    history = be.fit(build(), (X, targets), epochs=3, per_member_targets=True)
    assert history.diagnostics == [{}, {}, {}]


@pytest.mark.parametrize("weighted", [False, True])
def test_held_out_data_are_run_once_for_scores_and_diagnostics(weighted):
    torch.manual_seed(0)
    inputs, targets = torch.randn(700, 2), torch.randint(2, (700,))
    held_out = (
        (inputs, targets, (torch.arange(700) % 3).double()) if weighted else (inputs, targets)
    )
    calls = []

    class Counted(nn.Linear):
        def forward(self, x):
            calls.append((self.training, len(x)))
            return super().forward(x)

    model = be.DeepEnsemble(nn.Sequential(Counted(2, 2)), 2)
    history = be.fit(model, (inputs[:64], targets[:64]), validation=held_out, epochs=3)
    evaluated = [rows for training, rows in calls if not training and rows == 700]
    assert len(evaluated) == 3 * 2  # an evaluation an epoch, of two members
    kept = torch.arange(700) % 3 > 0 if weighted else None
    found = diagnose(model, inputs, targets, counting=kept)
    for name in ("disagreement", "member_nll", "mean_logits_nll"):
        assert history.diagnostics[-1][name] == pytest.approx(found[name], rel=1e-5)
