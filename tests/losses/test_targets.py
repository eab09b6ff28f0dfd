"""Targets are each member's own where that is asked for, and nowhere else."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import batchensemble as be

MEMBERS, N = 3, 30
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 4)).astype(np.float32)
Y = RNG.integers(3, size=N)
ONE_HOT = np.eye(3, dtype=int)[Y]
LOSSES = {  # by the outputs for one target, or three classes
    "cross_entropy": 3,
    "ordinal": 2,
    "mse": 1,
    "huber": 1,
    "gaussian_nll": 2,
    "quantile": 3,
    "binary_cross_entropy": 1,
}


def build(outputs, *after, members=MEMBERS):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, outputs), *after)
    return be.BatchEnsemble(network, members)


def as_loader(*arrays):
    return DataLoader(TensorDataset(*map(torch.as_tensor, arrays)), 8)


@pytest.mark.parametrize("form", [tuple, lambda pair: as_loader(*pair)], ids=["arrays", "loader"])
@pytest.mark.parametrize("loss", LOSSES)
def test_as_many_columns_as_members_are_not_taken_for_targets_of_each(loss, form):
    model = build(LOSSES[loss])
    before = [each.clone() for each in model.parameters()]
    with pytest.raises(ValueError, match=r"y must have the shape \[examples.*per_member_targets"):
        be.fit(model, form((X, ONE_HOT)), loss=loss, epochs=1)
    assert all(map(torch.equal, before, model.parameters()))


@pytest.mark.parametrize("loss", ["mse", "huber", "binary_cross_entropy"])
def test_nor_are_they_where_the_outputs_have_no_axis_of_targets(loss):
    with pytest.raises(ValueError, match=r"y must have the shape \[examples\]"):
        be.fit(build(1, nn.Flatten(0)), (X, ONE_HOT), loss=loss, epochs=1)


@pytest.mark.parametrize("loss", LOSSES)
def test_targets_of_each_member_are_asked_for(loss):
    own = np.stack([Y, Y[::-1], np.roll(Y, 1)], 1) % (2 if loss.startswith("binary") else 3)
    model = build(LOSSES[loss])
    history = be.fit(
        model, (X, own), loss=loss, epochs=1, lr=1e-30, optimizer="sgd", per_member_targets=True
    )
    function, outputs = be.losses.as_loss(loss), model(torch.from_numpy(X)).detach()
    for index in range(MEMBERS):
        mine = function(outputs, torch.tensor(own[:, index]).float())
        expected = mine[:, index].double().mean().item()
        assert history.member_losses[0][index] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("soft", [np.eye(3)[Y], np.full((N, 3), 1 / 3), np.eye(3, dtype=int)[Y]])
@pytest.mark.parametrize("members", [1, 2, 3])
def test_one_hot_rows_and_soft_labels_are_refused_with_their_cure(soft, members):
    model = build(3, members=members)
    calls = [
        lambda: be.fit(model, (X, soft)),
        lambda: be.fit(model, (X, Y), validation=(X, soft)),
        lambda: be.fit(model, (X, soft), loss=be.losses.cross_entropy),
        lambda: be.evaluate(model, (X, soft)),
        lambda: be.calibrate(model, (X, soft)),
        lambda: be.metrics.score(be.predict(model, X), soft),
        lambda: be.threshold_for(be.predict(model, X), soft),
        lambda: be.ConformalSets().fit(be.predict(model, X), soft),
    ]
    for call in calls:
        with pytest.raises((TypeError, ValueError), match=r"argmax\(1\)"):
            call()


def test_several_targets_of_each_member_may_be_as_many_as_members():
    targets = RNG.normal(size=(N, MEMBERS)).astype(np.float32)
    model = build(MEMBERS)
    options = {"loss": "mse", "epochs": 1, "lr": 1e-30, "optimizer": "sgd"}
    shared = be.fit(model, (X, targets), **options)
    expected = (model(torch.from_numpy(X)) - torch.from_numpy(targets)[:, None]).square()
    assert shared.member_losses[0] == pytest.approx(expected.mean((0, 2)).tolist(), rel=1e-4)
    own = np.stack([targets, targets + 1, targets - 1], 1)
    found = be.fit(model, (X, own), per_member_targets=True, **options)
    expected = (model(torch.from_numpy(X)) - torch.from_numpy(own)).square().mean((0, 2))
    assert found.member_losses[0] == pytest.approx(expected.tolist(), rel=1e-4)


@pytest.mark.parametrize(
    ("model", "options", "sentence"),
    [
        (lambda net: be.DeepEnsemble(net, 3), {}, "gives each member examples of its own"),
        (lambda net: be.MIMO(net, 3), {}, "gives each member examples of its own"),
        (lambda net: be.BatchEnsemble(net, 3), {"batches": "split"}, "gives each member examples"),
        (lambda net: be.BatchEnsemble(net, 3), {"loss_on": "mean_logits"}, "one loss of all"),
    ],
)
def test_targets_of_each_member_need_examples_that_all_see(model, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        be.fit(model(nn.Linear(4, 3)), (X, ONE_HOT), per_member_targets=True, **options)


@pytest.mark.parametrize("kind", [be.Single, be.BatchEnsemble, be.DeepEnsemble, be.MIMO])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_column_is_so_many_targets_and_never_a_table_of_all_by_all(loss, kind):
    y = Y % 2 if loss.startswith("binary") else Y
    y = y.astype(np.float32) if loss in ("mse", "huber", "gaussian_nll", "quantile") else y
    found = []
    for targets in (y, y[:, None]):
        torch.manual_seed(0)
        network = nn.Linear(4, LOSSES[loss])
        model = kind(network) if kind is be.Single else kind(network, MEMBERS)
        data = (X, targets)
        history = be.fit(model, data, loss=loss, validation=data, epochs=2, batch_size=8)
        found.append((history.losses, history.validation_nll, dict(be.evaluate(model, data))))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-5)
    for name, value in found[0][2].items():
        assert value == pytest.approx(found[1][2][name], rel=1e-5, nan_ok=True)


@pytest.mark.parametrize(
    ("broadcast", "sentence"),
    [
        # [N, M, 1] - [N] is [N, M, N]
        (lambda outputs, y: (outputs - y).square().mean(-1), "are broadcast against each other"),
        # [N, M] - [N] fits where N = M
        (lambda outputs, y: (outputs[..., 0] - y).square(), "only as many examples as there are"),
    ],
)
def test_a_function_of_ones_own_that_compares_all_with_all_is_refused(broadcast, sentence):
    data = (X[: 4 * MEMBERS], Y[: 4 * MEMBERS].astype(np.float32))
    with pytest.raises(ValueError, match=sentence):
        be.fit(build(1), data, loss=broadcast, batch_size=MEMBERS)


def test_a_function_of_ones_own_may_look_at_all_examples_or_at_no_target():
    def of_its_own(outputs, y):
        return (outputs[..., 0] - y.view(-1, 1)).square()

    def without_targets(outputs, y):
        return outputs[..., 0].square()

    def against_the_batch(outputs, y):
        return of_its_own(outputs, y) / of_its_own(outputs, y).mean(0, keepdim=True)

    for function in (of_its_own, without_targets, against_the_batch):
        be.fit(build(1), (X, Y.astype(np.float32)), loss=function, epochs=1)
    data = (X[:MEMBERS], Y[:MEMBERS].astype(np.float32))
    be.fit(build(1), data, loss=of_its_own, loss_on="mean_logits", epochs=1)


COUNTED = RNG.integers(2, size=N)


@pytest.mark.filterwarnings("ignore:the calibration data say that the network's")  # not trained
@pytest.mark.parametrize(
    "labels",
    [
        COUNTED.astype(bool),
        COUNTED.tolist(),
        [bool(each) for each in COUNTED],
        COUNTED.astype(np.uint8),
        COUNTED.astype(np.uint64),
        COUNTED.astype(object),
        COUNTED.astype(bool).astype(object),
        COUNTED[:, None],
        torch.from_numpy(COUNTED),
        torch.from_numpy(COUNTED).bool(),
        pd.Series(COUNTED, name="kind"),
        pd.Series(COUNTED.astype(bool)),
        pd.Series(COUNTED, dtype="Int64"),
        pd.Series(COUNTED.astype(bool), dtype="boolean"),
    ],
    ids=lambda labels: f"{type(labels).__name__}, {getattr(labels, 'dtype', type(labels))}",
)
def test_what_fit_takes_for_classes_all_that_scores_takes(labels):
    model = build(2)
    plain, given = (X, COUNTED), (X, labels)
    history = be.fit(build(2), given, epochs=1, validation=given)
    assert history.losses == be.fit(build(2), plain, epochs=1, validation=plain).losses
    prediction = be.predict(model, X)
    assert dict(be.evaluate(model, given)) == dict(be.evaluate(model, plain))
    for function in (
        be.metrics.score,
        lambda *pair: be.metrics.losses_by_example(*pair).tolist(),
        lambda *pair: be.threshold_for(*pair, risk=0.9, confidence=0.5),
        lambda *pair: be.ConformalSets("lac").fit(*pair).thresholds_.tolist(),
        lambda *pair: be.detect_errors(*pair)["total"].auroc,
        lambda *pair: be.metrics.reliability(*pair).ece,
    ):
        assert function(prediction, labels) == function(prediction, COUNTED)
    one, other = (be.calibrate(model, data).calibrator.temperature for data in (given, plain))
    assert torch.equal(one, other)


@pytest.mark.parametrize("labels", [COUNTED.astype(float), COUNTED.astype(str), 1j * COUNTED])
def test_and_what_fit_refuses_they_refuse(labels):
    model, prediction = build(2), be.predict(build(2), X)
    for call in (
        lambda: be.fit(model, (X, labels)),
        lambda: be.evaluate(model, (X, labels)),
        lambda: be.calibrate(model, (X, labels)),
        lambda: be.metrics.score(prediction, labels),
        lambda: be.threshold_for(prediction, labels),
        lambda: be.ConformalSets().fit(prediction, labels),
    ):
        with pytest.raises(TypeError, match=r"must hold (class )?numbers|must be whole"):
            call()


def test_a_score_of_numbers_is_of_each_with_its_own():
    prediction = be.predictions.Normals(RNG.normal(size=(N, 3)), np.ones((N, 3)))
    y = RNG.normal(size=N)
    assert be.metrics.crps(prediction, y[:, None]).shape == (N,)
    assert (
        be.metrics.crps(prediction, y[:, None]).tolist() == be.metrics.crps(prediction, y).tolist()
    )
    with pytest.raises(ValueError, match=r"targets must have the shape \[30\]"):
        be.metrics.crps(prediction, y[:3])
    with pytest.raises(ValueError, match=r"targets must have the shape \[30\]"):
        be.metrics.crps(prediction, np.stack([y, y, y], 1))
    conformal = be.ConformalIntervals(confidence=0.5)
    assert conformal.fit(prediction, y[:, None]).quantile_ == conformal.fit(prediction, y).quantile_


def test_pixels_are_evaluated_without_naming_the_loss():
    torch.manual_seed(0)
    model = be.BatchEnsemble(nn.Sequential(nn.Linear(4, 12), nn.Unflatten(1, (3, 2, 2))), MEMBERS)
    classes = RNG.integers(3, size=(N, 2, 2))
    scores = be.evaluate(model, (X, classes))
    assert scores["accuracy"] == (be.predict(model, X).labels == classes).mean()
