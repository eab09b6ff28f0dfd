"""Curves against members are the means over subsets, and effective members what they say."""

import itertools
import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss

import batchensemble as be
from batchensemble.core import chunks as row_blocks
from batchensemble.metrics import by_members, effective_members, score


def drawn(examples=60, members=4, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=examples)
    logits = rng.normal(size=(examples, members, classes)) + 1.5 * np.eye(classes)[labels][:, None]
    probs = np.exp(logits)
    return be.Prediction(probs / probs.sum(-1, keepdims=True)), labels


def test_the_curve_is_the_mean_over_all_subsets():
    prediction, labels = drawn()
    curve = by_members(prediction, labels)
    assert curve.members.tolist() == [1, 2, 3, 4]
    assert curve.exact.all()
    for size in range(1, 5):
        subsets = itertools.combinations(range(4), size)
        means = [prediction.member_probs[:, list(subset)].mean(1) for subset in subsets]
        accuracy = np.mean([accuracy_score(labels, mean.argmax(1)) for mean in means])
        nll = np.mean([log_loss(labels, mean, labels=range(3)) for mean in means])
        assert curve.accuracy[size - 1] == pytest.approx(accuracy)
        assert curve.nll[size - 1] == pytest.approx(nll)
    assert curve.nll[-1] == pytest.approx(score(prediction, labels)["nll"])
    assert curve.accuracy[-1] == score(prediction, labels)["accuracy"]


def test_more_members_never_have_a_higher_nll():
    assert (np.diff(by_members(*drawn(members=6)).nll) <= 1e-12).all()


def test_many_subsets_are_a_sample_with_a_seed():
    prediction, labels = drawn(members=7)
    exact = by_members(prediction, labels)
    sampled = by_members(prediction, labels, subsets=20, seed=1)
    assert sampled.exact.tolist() == [True, False, False, False, False, True, True]
    np.testing.assert_allclose(sampled.nll, exact.nll, atol=0.05)
    assert sampled.nll[[0, 6]] == pytest.approx(exact.nll[[0, 6]])
    again = by_members(prediction, labels, subsets=20, seed=1)
    other = by_members(prediction, labels, subsets=20, seed=2)
    assert again.nll.tolist() == sampled.nll.tolist() != other.nll.tolist()


def test_blocks_change_nothing(monkeypatch):
    prediction, labels = drawn()
    whole = by_members(prediction, labels)
    monkeypatch.setattr(row_blocks, "CHUNK_SIZE", 200)
    parts = by_members(prediction, labels)
    np.testing.assert_allclose(parts.nll, whole.nll)
    assert parts.accuracy.tolist() == whole.accuracy.tolist()


def test_one_member_is_a_curve_of_one_point():
    prediction, labels = drawn(members=1)
    curve = by_members(prediction, labels)
    assert curve.nll == pytest.approx([score(prediction, labels)["nll"]])
    assert effective_members(prediction, labels) == 1


def test_members_of_the_deep_ensemble_are_worth_their_number():
    deep, labels = drawn()
    for size in (1, 2, 3):
        nll = by_members(deep, labels).nll[size - 1]
        # A prediction with exactly that NLL: the true class has its mean likelihood throughout.
        probs = np.full((60, 1, 3), (1 - math.exp(-nll)) / 2)
        probs[np.arange(60), 0, labels] = math.exp(-nll)
        assert effective_members(be.Prediction(probs), labels, deep) == pytest.approx(size)
    assert effective_members(deep, labels, deep) == pytest.approx(4)


def test_between_two_numbers_of_members_it_is_a_straight_line():
    deep, labels = drawn()
    nll = by_members(deep, labels).nll[:2].mean()
    probs = np.full((60, 1, 3), (1 - math.exp(-nll)) / 2)
    probs[np.arange(60), 0, labels] = math.exp(-nll)
    assert effective_members(be.Prediction(probs), labels, deep) == pytest.approx(1.5)


def test_worse_than_one_network_is_one_member_and_better_than_all_is_all():
    deep, labels = drawn()
    assert effective_members(be.Prediction(np.full((60, 1, 3), 1 / 3)), labels, deep) == 1
    assert effective_members(be.Prediction(np.eye(3)[labels][:, None]), labels, deep) == 4


def test_a_deep_ensemble_that_gains_nothing_measures_nothing():
    prediction, labels = drawn(members=2)
    alike = be.Prediction(np.full((60, 3, 3), 1 / 3))
    assert math.isnan(effective_members(prediction, labels, alike))


def test_members_alike_are_one_and_independent_ones_all():
    prediction, labels = drawn(members=1)
    alike = be.Prediction(prediction.member_probs.repeat(4, 1))
    assert effective_members(alike, labels) == pytest.approx(1)
    rng = np.random.default_rng(0)
    of_truth = rng.uniform(0.2, 0.8, size=(20_000, 4))
    independent = be.Prediction(np.stack([of_truth, 1 - of_truth], -1))
    assert effective_members(independent, np.zeros(20_000, int)) == pytest.approx(4, rel=0.03)


def test_the_mean_of_the_members_varies_as_that_of_so_many_independent_ones():
    rng = np.random.default_rng(0)
    logs = -np.exp(0.3 * (rng.normal(size=(50_000, 1)) + rng.normal(size=(50_000, 5))))
    probs = np.stack([np.exp(logs), 1 - np.exp(logs)], -1)
    expected = logs.var(0).mean() / logs.mean(1).var()
    found = effective_members(be.Prediction(probs), np.zeros(50_000, int))
    assert found == pytest.approx(expected, rel=0.02)


def test_members_that_cancel_each_other_out_are_infinitely_many():
    logs = -np.array([[1.0, 2.0], [2.0, 1.0]])
    probs = np.stack([np.exp(logs), 1 - np.exp(logs)], -1)
    assert effective_members(be.Prediction(probs), np.zeros(2, int)) == math.inf


def test_a_member_that_never_varies_has_no_correlation():
    fair = be.Prediction(np.full((5, 2, 2), 0.5))
    assert math.isnan(effective_members(fair, np.zeros(5, int)))


def test_bad_arguments_are_refused():
    prediction, labels = drawn()
    with pytest.raises(ValueError, match="at least 2 members, got 1; leave it out"):
        effective_members(prediction, labels, drawn(members=1)[0])
    with pytest.raises(ValueError, match="subsets must be at least 1, got 0"):
        by_members(prediction, labels, subsets=0)
    with pytest.raises(ValueError, match="labels must be from 0 to 2, got 3 to 3"):
        by_members(prediction, np.full(60, 3))
