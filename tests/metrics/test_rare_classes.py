"""Scores that tell a model from a constant prediction, where one class is rare or all are."""

import copy
import json
import math
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    confusion_matrix,
    log_loss,
    roc_auc_score,
)
from torch import nn

import batchensemble as be
from batchensemble.metrics import average_precision, confusion, discrimination, roc_auc, score
from batchensemble.metrics import streaming as streaming_module
from batchensemble.metrics.streaming import score_blocks
from batchensemble.report.terminal import score_tables

RNG = np.random.default_rng(0)
X = RNG.normal(size=(400, 4)).astype(np.float32)


def drawn(classes: int, examples: int = 400, *, rare: float = 0.03):
    """Return a prediction and labels, the last class of which is rare."""
    shares = np.array([(1 - rare) / (classes - 1)] * (classes - 1) + [rare])
    labels = RNG.choice(classes, examples, p=shares)
    probs = RNG.dirichlet(4 * shares + 2 * np.eye(classes)[labels].mean(0), (examples, 3))
    return be.Prediction(probs.round(2) / probs.round(2).sum(2, keepdims=True)), labels  # with ties


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_they_are_those_of_scikit_learn(classes):
    prediction, labels = drawn(classes)
    probs, top = prediction.probs, prediction.labels
    scores = score(prediction, labels)
    if classes == 2:
        auc = roc_auc_score(labels, probs[:, 1])
        precision = average_precision_score(labels, probs[:, 1])
    else:
        auc = roc_auc_score(labels, probs, multi_class="ovr")
        precision = average_precision_score(np.eye(classes)[labels], probs)
    assert scores["auc"] == roc_auc(prediction, labels) == pytest.approx(auc)
    assert scores["average_precision"] == average_precision(prediction, labels)
    assert scores["average_precision"] == pytest.approx(precision)
    assert scores["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, top))
    found = scores.confusion
    np.testing.assert_array_equal(found.counts, confusion_matrix(labels, top))
    np.testing.assert_array_equal(found.counts, confusion(prediction, labels).counts)
    shares = np.bincount(labels) / len(labels)
    np.testing.assert_allclose(found.shares, shares)
    assert scores["constant_accuracy"] == shares.max()
    assert scores["constant_nll"] == pytest.approx(log_loss(labels, np.tile(shares, (400, 1))))
    assert found.balanced_accuracy == scores["balanced_accuracy"]


def test_the_auc_is_the_share_of_pairs_in_order():
    prediction, labels = drawn(2, 150, rare=0.2)
    p = prediction.probs[:, 1]
    pairs = [
        (p[i] > p[j]) + (p[i] == p[j]) / 2
        for i in np.flatnonzero(labels == 1)
        for j in np.flatnonzero(labels == 0)
    ]
    assert score(prediction, labels)["auc"] == pytest.approx(np.mean(pairs))


def test_a_class_that_does_not_occur_is_left_out():
    prediction, labels = drawn(4)
    labels[labels == 2] = 1
    scores = score(prediction, labels)
    each = [roc_auc_score(labels == k, prediction.probs[:, k]) for k in (0, 1, 3)]
    assert scores["auc"] == pytest.approx(np.mean(each))
    top = prediction.labels
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of the class
        expected = balanced_accuracy_score(labels, top)
    assert scores["balanced_accuracy"] == pytest.approx(expected)
    assert np.isnan(scores.confusion.recall[2])


def test_what_is_not_defined_is_nan_without_a_warning():
    prediction, _ = drawn(2, 20)
    one = score(prediction, np.ones(20, int))
    assert math.isnan(one["auc"])
    assert math.isnan(one["average_precision"])
    assert (one["constant_accuracy"], one["constant_nll"]) == (1, 0)
    broken = be.Prediction(np.full((4, 2, 2), np.nan))
    assert math.isnan(roc_auc(broken, [0, 1, 0, 1]))


def test_ranks_are_computed_when_they_are_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr(discrimination, "roc_auc_score", lambda *_: asked.append(1) or 0.7)
    scores = score(*drawn(2))
    assert list(scores)[:4] == ["accuracy", "balanced_accuracy", "auc", "average_precision"]
    assert scores["accuracy"]
    assert not asked
    assert scores["auc"] == scores["auc"] == 0.7
    assert len(asked) == 1


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_a_copy_has_all_scores_and_no_probabilities(copied):
    scores = score(*drawn(2))
    again = copied(scores)
    assert again == scores
    assert again._later is None
    assert json.loads(json.dumps(dict(scores))) == dict(again)
    assert scores._later is None  # nor has the original any more
    np.testing.assert_array_equal(again.confusion.counts, scores.confusion.counts)


def test_too_many_probabilities_to_keep_are_nan(monkeypatch):
    monkeypatch.setattr(discrimination, "MOST_PROBABILITIES", 100)
    prediction, labels = drawn(2)
    assert math.isnan(score(prediction, labels)["auc"])
    assert not math.isnan(roc_auc(prediction, labels))
    torch.manual_seed(0)
    model, y = be.BatchEnsemble(nn.Linear(4, 2), 3), labels
    blocks = [(X[start : start + 150], y[start : start + 150]) for start in (0, 150, 300)]
    assert not math.isnan(score_blocks(model, blocks)["auc"])
    monkeypatch.setattr(streaming_module, "MOST_PROBABILITIES", 200)
    found = score_blocks(model, blocks)
    assert math.isnan(found["auc"])
    assert found["balanced_accuracy"] == be.evaluate(model, (X, y))["balanced_accuracy"]


@pytest.mark.parametrize("loss", ["mse", "gaussian_nll"])
@pytest.mark.parametrize("standardise", [True, False])
def test_numbers_stand_beside_the_mean(loss, standardise):
    torch.manual_seed(0)
    y = 100 + 5 * X[:, 0] + RNG.normal(size=400)
    train, rest = (X[:300], y[:300]), (X[300:], y[300:])
    model = be.BatchEnsemble(nn.Linear(4, 2 if loss == "gaussian_nll" else 1), 3)
    be.fit(model, train, loss=loss, standardise_targets=standardise, epochs=1, seed=0)
    scores = be.evaluate(model, rest)
    known = y[:300] if standardise else y[300:]
    errors, spread = rest[1] - known.mean(), known.std()
    assert scores["constant_rmse"] == pytest.approx(np.sqrt(np.mean(errors**2)))
    assert scores["constant_mae"] == pytest.approx(np.abs(errors).mean())
    assert scores.constant == (
        "the mean of the training targets" if standardise else "the mean of these targets"
    )
    assert ("constant_nll" in scores) == (loss == "gaussian_nll")
    if loss == "gaussian_nll":
        logs = np.log(spread) + np.log(2 * np.pi) / 2 + (errors / spread) ** 2 / 2
        assert scores["constant_nll"] == pytest.approx(logs.mean())
    assert score_blocks(model, [rest]).constant == scores.constant


def test_each_target_has_its_own_mean():
    targets = np.stack([np.arange(6.0), 100 * np.arange(6.0)], 1)
    targets[5, 1] = np.nan
    prediction = be.predictions.Normals(np.zeros((6, 2, 2)), np.ones((6, 2, 2)))
    found = score(prediction, targets)
    errors = [*(targets[:, 0] - 2.5), *(targets[:5, 1] - 200)]
    assert found["constant_rmse"] == pytest.approx(np.sqrt(np.mean(np.square(errors))))


def test_many_targets_to_keep_are_nan(monkeypatch):
    monkeypatch.setattr(streaming_module, "MOST_TARGETS", 200)
    torch.manual_seed(0)
    model = be.BatchEnsemble(nn.Linear(4, 1), 3)
    model.loss = be.losses.MSE()
    found = score_blocks(model, [(X[:150], X[:150, 0]), (X[150:], X[150:, 0])])
    assert math.isnan(found["constant_rmse"])
    assert not math.isnan(found["rmse"])


def test_a_model_that_is_no_better_than_the_majority_is_told():
    labels = np.r_[np.zeros(97, int), np.ones(3, int)]
    members = np.tile([0.9, 0.1], (100, 2, 1))
    members[96] = [[0.2, 0.8]] * 2  # one false alarm
    members[97] = [[0.2, 0.8]] * 2  # and one found
    scores = score(be.Prediction(members), labels)
    assert scores["accuracy"] == 0.97
    assert scores.remark(["no", "yes"]).startswith(
        "accuracy 0.9700, and 0.9700 of the rows are of class 'no': predicting that"
    )
    members[96] = [[0.9, 0.1]] * 2
    assert score(be.Prediction(members), labels).remark() == ""


def test_numbers_that_are_no_better_than_the_mean_are_told():
    targets = np.arange(10.0)
    away = be.predictions.Points(np.full((10, 3), 20.0))
    assert score(away, targets).remark() == (
        "RMSE 15.76, and 2.872 for the mean of these targets: predicting that number for every row "
        "would be as good"
    )
    assert score(be.predictions.Points(targets[:, None]), targets).remark() == ""


def test_the_confusion_matrix_has_the_names_of_the_classes():
    torch.manual_seed(0)
    model = be.BatchEnsemble(nn.Linear(4, 2), 3)
    frame = pd.DataFrame(X, columns=list("abcd"))
    data = frame.assign(ill=np.where(X[:, 0] > 1, "yes", "no"))
    be.fit(model, data, target="ill", epochs=1, seed=0)
    found = be.evaluate(model, data, target="ill")
    counts = found.confusion.to_pandas()
    assert list(counts.index) == ["no", "yes"] == list(counts.columns)
    assert counts.to_numpy().sum() == 400
    assert counts.loc["yes"].sum() == (X[:, 0] > 1).sum()
    assert "predicted yes" in found.confusion._repr_html_()
    blocks = score_blocks(model, [(X, (X[:, 0] > 1).astype(int))])
    assert blocks.confusion.class_names == ("no", "yes")


def test_the_terminal_has_the_constant_beside_and_the_matrix_below():
    labels = np.r_[np.zeros(97, int), np.ones(3, int)]
    scores, matrix = score_tables("title", score(drawn(2, 100)[0], labels))
    assert [column.header for column in scores.columns] == ["score", "value", "constant"]
    assert "constant" not in list(scores.columns[0].cells)
    row = list(scores.columns[0].cells).index("accuracy")
    assert list(scores.columns[2].cells)[row] == "0.9700"
    assert list(matrix.columns[1].cells) == ["97.0%", "3.0%"]
    assert len(score_tables("many classes", score(*drawn(20)))) == 1
