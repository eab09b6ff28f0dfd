"""The losses of a history are means over what counted, whatever the batches were."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import batchensemble as be

torch.manual_seed(0)
N, MEMBERS = 50, 3
X = torch.randn(N, 4, dtype=torch.float64)
Y = torch.randint(3, (N,))
NUMBERS = torch.randn(N, 2, dtype=torch.float64)
NAN = float("nan")
# So small a step that all batches of an epoch are of the same weights.
STILL = {"optimizer": "sgd", "lr": 1e-30, "epochs": 1, "batch_size": 8}


def build(outputs=3, kind=be.BatchEnsemble):
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, outputs)).double()
    return kind(network, MEMBERS)


def mostly_ignored():
    """Return classes of which the first five batches of eight have none, the sixth one."""
    y = Y.clone()
    y[:47] = -100
    y[49] = -100
    return y


def by_torch(model, one):
    """Return what a function of a member's outputs says of each member."""
    with torch.no_grad():
        outputs = model(X)
    return [one(outputs[:, index]).item() for index in range(MEMBERS)]


@pytest.mark.parametrize("micro_batch", [None, 3])
@pytest.mark.parametrize("form", ["arrays", "loader"])
def test_ignored_classes_are_in_no_mean(micro_batch, form):
    model, y = build(), mostly_ignored()
    data = (X, y) if form == "arrays" else DataLoader(TensorDataset(X, y), 8)
    options = {**STILL, "micro_batch": micro_batch, "shuffle": False, "ignore_index": -100}
    history = be.fit(model, data, **options)
    expected = by_torch(model, lambda outputs: F.cross_entropy(outputs, y))
    assert history.member_losses[0] == pytest.approx(expected, rel=1e-12)
    assert history.losses[0] == pytest.approx(np.mean(expected), rel=1e-12)


def test_weights_of_zero_are_in_no_mean():
    model, weights = build(), torch.zeros(N, dtype=torch.float64)
    weights[:4], weights[30], weights[49] = 1.0, 0.25, 4.0
    history = be.fit(model, (X, Y, weights), **STILL)

    def one(outputs):
        return (F.cross_entropy(outputs, Y, reduction="none") * weights).sum() / weights.sum()

    assert history.member_losses[0] == pytest.approx(by_torch(model, one), rel=1e-12)


@pytest.mark.parametrize(("loss", "outputs"), [("mse", 2), ("huber", 2), ("gaussian_nll", 4)])
def test_numbers_that_are_not_known_are_in_no_mean(loss, outputs):
    model, targets = build(outputs), NUMBERS.clone()
    targets[:30], targets[30:40, 1], targets[49] = NAN, NAN, NAN
    history = be.fit(model, (X, targets), loss=loss, **STILL)
    function, found = be.losses.as_loss(loss), []
    with torch.no_grad():
        of_all = model(X).unflatten(2, (-1, 2))
        for column in range(2):  # an entry at a time
            own = function(of_all[..., column], targets[:, column].nan_to_num())
            found.append(own[~targets[:, column].isnan()])
    expected = torch.cat(found).mean(0).tolist()
    assert history.member_losses[0] == pytest.approx(expected, rel=1e-12)


def test_classes_count_as_much_as_their_weight():
    model, weight = build(), torch.tensor([0.0, 0.1, 5.0], dtype=torch.float64)
    history = be.fit(model, (X, Y), class_weight=weight.tolist(), **STILL)
    expected = by_torch(model, lambda outputs: F.cross_entropy(outputs, Y, weight=weight))
    assert history.member_losses[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", [be.DeepEnsemble, be.MIMO])
def test_members_with_examples_of_their_own_have_means_of_their_own(kind):
    """In an epoch a deep ensemble's members see the same examples in other batches."""
    model, y = build(kind=kind), mostly_ignored()
    y[10:14] = Y[10:14]
    history = be.fit(model, (X, y), ignore_index=-100, **STILL)
    assert np.isfinite(history.losses).all()
    if kind is be.DeepEnsemble:
        expected = by_torch(model, lambda outputs: F.cross_entropy(outputs, y))
        assert history.member_losses[0] == pytest.approx(expected, rel=1e-12)


def test_targets_of_each_member_are_counted_member_by_member():
    model = build(1)
    targets = torch.randn(N, MEMBERS, dtype=torch.float64)
    targets[:40, 0], targets[::3, 1] = NAN, NAN
    history = be.fit(model, (X, targets), loss="mse", per_member_targets=True, **STILL)
    with torch.no_grad():
        errors = (model(X)[..., 0] - targets).square()
    assert history.member_losses[0] == pytest.approx(errors.nanmean(0).tolist(), rel=1e-12)


def test_the_last_batch_is_the_last_in_which_something_counts():
    model, y = build(), Y.clone()
    y[-2:] = -100
    options = {**STILL, "shuffle": False, "ignore_index": -100}
    history = be.fit(model, (X, y), **options)
    expected = by_torch(model, lambda outputs: F.cross_entropy(outputs[40:48], y[40:48]))
    assert history.last_batch_losses[0] == pytest.approx(np.mean(expected), rel=1e-12)


def test_an_epoch_goes_on_from_a_checkpoint_with_what_counted_before(tmp_path):
    class Stop(be.Callback):
        def on_step(self, run):
            if run.step == 4:
                raise KeyboardInterrupt

    weights = torch.linspace(0, 9, N, dtype=torch.float64)
    options = {**STILL, "lr": 0.1, "epochs": 2}
    expected = be.fit(build(), (X, Y, weights), **options)
    kept = {"checkpoints": tmp_path, "checkpoint_every": 3}
    with pytest.raises(KeyboardInterrupt):
        be.fit(build(), (X, Y, weights), callbacks=[Stop()], **kept, **options)
    history = be.fit(build(), (X, Y, weights), resume=True, **kept, **options)
    assert history.member_losses == expected.member_losses


@pytest.mark.parametrize("form", ["arrays", "loader"])
def test_where_nothing_counts_there_is_nothing_to_train_on(form):
    y = torch.full((N,), -100)
    data = (X, y) if form == "arrays" else DataLoader(TensorDataset(X, y), 8)
    with pytest.raises(ValueError, match="must hold at least one target that counts"):
        be.fit(build(), data, ignore_index=-100, **STILL)
    model, history = build(), None
    with pytest.raises(ValueError, match="must hold at least one target that counts"):
        history = be.fit(model, (X, Y), validation=data, ignore_index=-100, **STILL)
    assert history is None


def test_classes_of_weight_0_alone_are_nothing_to_train_on():
    with pytest.raises(ValueError, match="must hold at least one target that counts"):
        be.fit(build(), (X, 0 * Y), class_weight=[0, 1, 1], **STILL)


@pytest.mark.parametrize("score", ["accuracy", "brier", "ece"])
def test_held_out_scores_count_examples_by_their_weight(score):
    twice = torch.cat([torch.arange(N), torch.arange(12)])
    weights = torch.ones(N, dtype=torch.float64)
    weights[:12], weights[20:30] = 2, 0
    twice = twice[weights[twice] > 0]
    options = {**STILL, "stop_on": score, "patience": 3}
    one = be.fit(build(), (X, Y), validation=(X, Y, weights), **options)
    other = be.fit(build(), (X, Y), validation=(X[twice], Y[twice]), **options)
    assert one.evaluations[0][score] == pytest.approx(other.evaluations[0][score], rel=1e-9)
    assert one.validation_nll == pytest.approx(other.validation_nll, rel=1e-9)


def test_what_does_not_count_is_not_diagnosed():
    y, weights = Y.clone(), torch.ones(N, dtype=torch.float64)
    weights[Y == 0] = 0
    kept = Y > 0
    expected = be.fit(build(), (X[kept], Y[kept]), **STILL).diagnostics[-1]["member_nll"]
    ignored = be.fit(build(), (X, y), ignore_index=0, **STILL)
    weighted = be.fit(build(), (X, y, weights), **STILL)
    for history in (ignored, weighted):
        assert history.diagnostics[-1]["member_nll"] == pytest.approx(expected, rel=1e-9)
