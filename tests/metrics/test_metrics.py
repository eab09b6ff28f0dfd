"""Scores are those done by hand, and those of scikit-learn and torchmetrics."""

import itertools
import json
import math
import tracemalloc

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss, log_loss
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

import batchensemble as be
from batchensemble.metrics import disagreement, reliability, score

BY_HAND = be.Prediction(
    np.array(
        [
            [[0.9, 0.1], [0.7, 0.3]],  # mean .8 .2
            [[0.2, 0.8], [0.6, 0.4]],  # mean .4 .6
        ]
    )
)
BY_HAND_LABELS = np.array([0, 0])


def random_prediction(examples=300, members=4, classes=5, sharpness=2.0):
    rng = np.random.default_rng(0)
    logits = sharpness * rng.normal(size=(examples, members, classes))
    prediction = be.Prediction(torch.from_numpy(logits).softmax(-1).numpy())
    return prediction, rng.integers(classes, size=examples)


def single(*confidences):
    """Predict class 0 of two with these confidences, by one member."""
    return be.Prediction(np.array([[[c, 1 - c]] for c in confidences]))


def test_scores_are_those_done_by_hand():
    scores = score(BY_HAND, BY_HAND_LABELS)
    assert scores["accuracy"] == 0.5
    assert scores["member_accuracies"] == [0.5, 1.0]
    assert scores["nll"] == pytest.approx(-(math.log(0.8) + math.log(0.4)) / 2)
    assert scores["brier"] == pytest.approx((2 * 0.2**2 + 2 * 0.6**2) / 2)
    assert scores["ece"] == pytest.approx((0.2 + 0.6) / 2)
    assert scores["disagreement"] == 0.5
    assert scores["mutual_information"] == pytest.approx(BY_HAND.epistemic.mean())


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("sharpness", [0.3, 2.0, 20.0])
def test_scores_are_those_of_scikit_learn_and_torchmetrics(classes, sharpness):
    prediction, labels = random_prediction(classes=classes, sharpness=sharpness)
    scores = score(prediction, labels)
    probs, truth = torch.from_numpy(prediction.probs), torch.from_numpy(labels)
    accuracy = MulticlassAccuracy(classes, average="micro")
    calibration = MulticlassCalibrationError(classes, n_bins=15, norm="l1")
    assert scores["accuracy"] == pytest.approx(accuracy(probs, truth).item())
    assert scores["ece"] == pytest.approx(calibration(probs, truth).item(), abs=1e-6)
    assert scores["nll"] == pytest.approx(torch.nn.functional.nll_loss(probs.log(), truth).item())
    if prediction.probs.min() > np.finfo(np.float64).eps:  # scikit-learn takes less for that
        assert scores["nll"] == pytest.approx(log_loss(labels, prediction.probs))
    assert scores["brier"] == pytest.approx(
        brier_score_loss(labels, prediction.probs, scale_by_half=False)
    )
    for member, own in enumerate(scores["member_accuracies"]):
        mine = torch.from_numpy(prediction.member_probs[:, member])
        assert own == pytest.approx(accuracy(mine, truth).item())


def test_nll_and_brier_are_their_formulas():
    prediction, labels = random_prediction()
    scores, rows = score(prediction, labels), np.arange(len(labels))
    assert scores["nll"] == pytest.approx(-np.log(prediction.probs[rows, labels]).mean())
    truth = np.eye(5)[labels]
    assert scores["brier"] == pytest.approx(((prediction.probs - truth) ** 2).sum(1).mean())


@pytest.mark.parametrize("members", [2, 3, 7])
def test_disagreement_is_the_share_of_pairs_of_members_that_differ(members):
    prediction, _ = random_prediction(examples=40, members=members)
    top = prediction.member_probs.argmax(-1)
    pairs = [
        row[one] != row[other]
        for row in top
        for one, other in itertools.combinations(range(members), 2)
    ]
    assert disagreement(prediction) == pytest.approx(np.mean(pairs))


def test_one_member_and_members_alike_do_not_disagree():
    prediction, labels = random_prediction(members=1)
    alike = be.Prediction(prediction.member_probs.repeat(3, 1))
    for each in (prediction, alike):
        scores = score(each, labels)
        assert scores["disagreement"] == 0
        assert scores["mutual_information"] == pytest.approx(0, abs=1e-12)
        assert len(set(scores["member_accuracies"])) == 1


@pytest.mark.parametrize(
    ("label", "accuracy", "brier", "ece"), [(0, 1.0, 0.0, 0.0), (1, 0.0, 2.0, 1.0)]
)
def test_a_certain_prediction_has_finite_scores(label, accuracy, brier, ece):
    scores = score(single(1.0), np.array([label]))
    assert (scores["accuracy"], scores["brier"], scores["ece"]) == (accuracy, brier, ece)
    assert (scores["nll"] < 1e-9) if label == 0 else (30 < scores["nll"] < 1000)


def test_the_nll_of_a_network_that_is_sure_and_wrong_is_not_cut_off():
    # scikit-learn takes every probability below 2e-16 for that, which is a loss of 36 nats.
    logits = torch.tensor([[[0.0, 110.0]]], dtype=torch.float64)
    prediction = be.Prediction(logits.softmax(-1).numpy())
    assert score(prediction, np.array([0]))["nll"] == pytest.approx(110)


def test_a_probability_that_is_no_number_is_refused():
    prediction, labels = random_prediction()
    prediction.member_probs[7, 1, 2] = np.nan
    with pytest.raises(ValueError, match="must be from 0 to 1, got nan"):
        score(prediction, labels)


def test_scoring_takes_less_memory_than_two_more_copies_of_the_members_probabilities():
    prediction, labels = random_prediction(examples=100_000, classes=10)
    tracemalloc.start()
    score(prediction, labels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * prediction.member_probs.nbytes


def test_members_predict_classes_of_their_own():
    assert BY_HAND.member_labels.tolist() == [[0, 0], [1, 0]]
    pixels = np.moveaxis(random_prediction(examples=6)[0].member_probs.reshape(2, 3, 4, 5), 1, -1)
    found = be.Prediction(pixels)
    assert found.member_labels.tolist() == pixels.argmax(2).tolist()
    assert found.confidence.tolist() == found.probs.max(1).tolist()


def test_labels_of_one_class_only_can_be_scored():
    scores = score(single(0.75, 0.75), np.array([0, 0]))
    assert scores["accuracy"] == 1.0
    assert scores["nll"] == pytest.approx(-math.log(0.75))


def test_a_confidence_of_exactly_1_is_in_the_last_bin():
    bins = reliability(single(1.0, 1.0, 1.0, 1.0), np.array([0, 0, 0, 1]))
    assert bins.counts.tolist() == [0] * 14 + [4]
    assert bins.ece == 0.25


@pytest.mark.parametrize(("confidence", "index"), [(0.5, 1), (0.75, 2), (0.751, 3), (1.0, 3)])
def test_a_confidence_on_an_edge_is_in_the_lower_bin(confidence, index):
    bins = reliability(single(confidence), np.array([0]), bins=4)
    assert bins.edges.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert bins.counts.nonzero()[0].tolist() == [index]


def test_a_confidence_that_rounds_to_above_1_counts():
    above = np.nextafter(1.0, 2.0)
    assert reliability(single(above), np.array([0])).counts[-1] == 1


def test_bins_hold_the_mean_confidence_and_the_share_of_right_predictions():
    bins = reliability(single(0.8, 0.9, 0.6), np.array([0, 1, 0]), bins=4)
    assert bins.counts.tolist() == [0, 0, 1, 2]
    np.testing.assert_allclose(bins.confidence, [np.nan, np.nan, 0.6, 0.85])
    np.testing.assert_allclose(bins.accuracy, [np.nan, np.nan, 1.0, 0.5])
    assert bins.ece == pytest.approx((0.4 + 2 * 0.35) / 3)


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ([0], r"labels must have the shape \[2\], one for each example, got \[1\]"),
        ([[1, 0], [1, 0]], r"got \[2, 2\]; of one-hot rows .* give y.argmax\(1\)"),
        ([0, 2], "labels must be from 0 to 1, got 0 to 2"),
        ([-1, 0], "labels must be from 0 to 1, got -1 to 0"),
    ],
)
@pytest.mark.parametrize("function", [score, reliability])
def test_labels_that_do_not_fit_are_refused(function, labels, sentence):
    with pytest.raises(ValueError, match=sentence):
        function(BY_HAND, np.array(labels))


def test_no_examples_are_refused():
    with pytest.raises(ValueError, match="at least one example to score, got none"):
        score(be.Prediction(np.zeros((0, 2, 3))), np.zeros(0, int))


@pytest.mark.parametrize("kind", ["arrays", "dataset", "loader"])
def test_evaluate_scores_the_models_prediction(kind):
    torch.manual_seed(0)
    model = be.BatchEnsemble(torch.nn.Linear(4, 3), 3)
    x, y = torch.randn(20, 4), torch.randint(3, (20,))
    dataset = TensorDataset(x, y)
    data = {"arrays": (x, y), "dataset": dataset, "loader": DataLoader(dataset, 7)}[kind]
    scores = be.evaluate(model, data)
    expected = score(be.predict(model, x), y.numpy())
    assert scores["nll"] == pytest.approx(expected["nll"])
    assert scores["member_accuracies"] == expected["member_accuracies"]


def test_evaluate_refuses_labels_beyond_the_classes():
    with pytest.raises(ValueError, match="labels must be from 0 to 1, got 0 to 5"):
        be.evaluate(be.Single(torch.nn.Linear(4, 2)), (np.zeros((2, 4)), [0, 5]))


def test_scores_are_a_mapping_of_plain_numbers():
    scores = score(*random_prediction())
    assert list(scores) == [
        "accuracy",
        "balanced_accuracy",
        "auc",
        "average_precision",
        "nll",
        "brier",
        "ece",
        "mutual_information",
        "disagreement",
        "member_accuracies",
        "constant_accuracy",
        "constant_nll",
    ]
    assert len(scores) == 12
    assert json.loads(json.dumps(dict(scores))) == dict(scores)
    assert f"'nll': {scores['nll']}" in repr(scores)
    with pytest.raises(KeyError):
        scores["f1"]
