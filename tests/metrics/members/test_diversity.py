"""Diversity is that of slow loops over pairs, of scipy and of scikit-learn."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import matthews_corrcoef

import batchensemble as be
from batchensemble.core import chunks as row_blocks
from batchensemble.metrics import disagreement, diversity, entries, score
from batchensemble.metrics.members.diversity import disagreement_by_example


def drawn(examples=80, members=4, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.full(classes, 0.7), size=(examples, members))
    return be.Prediction(probs), rng.integers(classes, size=examples)


def test_the_matrices_are_those_of_slow_loops():
    prediction, labels = drawn()
    found, probs = diversity(prediction, labels), prediction.member_probs
    wrong = probs.argmax(2) != labels[:, None]
    for one, other in itertools.product(range(4), repeat=2):
        at = (one, other)
        tops = zip(probs[:, one], probs[:, other], strict=True)
        assert found.disagreements[at] == np.mean([a.argmax() != b.argmax() for a, b in tops])
        kl = scipy.stats.entropy(probs[:, one], probs[:, other], axis=1).mean()
        assert found.kls[at] == pytest.approx(kl, abs=1e-12)
        a = sum(~x and ~y for x, y in wrong[:, at])
        b = sum(~x and y for x, y in wrong[:, at])
        c = sum(x and ~y for x, y in wrong[:, at])
        d = sum(x and y for x, y in wrong[:, at])
        assert found.q_statistics[at] == pytest.approx((a * d - b * c) / (a * d + b * c))
        expected = matthews_corrcoef(wrong[:, one], wrong[:, other])
        assert found.error_correlations[at] == pytest.approx(expected)


def test_the_figures_are_the_means_over_pairs_of_different_members():
    prediction, labels = drawn()
    found = diversity(prediction, labels)
    pairs = list(itertools.permutations(range(4), 2))
    for figure, matrix in (
        (found.disagreement, found.disagreements),
        (found.pairwise_kl, found.kls),
        (found.q_statistic, found.q_statistics),
        (found.error_correlation, found.error_correlations),
    ):
        assert figure == pytest.approx(np.mean([matrix[pair] for pair in pairs]))
    assert found.disagreement == disagreement(prediction)
    assert found.disagreement == score(prediction, labels)["disagreement"]
    assert disagreement_by_example(prediction).mean() == pytest.approx(found.disagreement)
    # A prediction's own mean has each member with itself among the pairs.
    assert prediction.pairwise_kl.mean() == pytest.approx(found.pairwise_kl * 3 / 4)


def test_members_alike_err_together():
    prediction, labels = drawn(members=1)
    found = diversity(be.Prediction(prediction.member_probs.repeat(3, 1)), labels)
    assert (found.disagreement, found.pairwise_kl) == (0, pytest.approx(0, abs=1e-12))
    assert (found.q_statistic, found.error_correlation) == (1, pytest.approx(1))


def test_members_that_are_never_wrong_have_no_correlation_of_errors():
    right = be.Prediction(np.tile([[[0.9, 0.1], [0.8, 0.2]]], (5, 1, 1)))
    found = diversity(right, np.zeros(5, int))
    assert np.isnan(found.q_statistics).all()
    assert math.isnan(found.error_correlation)


def test_a_pair_without_a_value_is_left_out_of_the_mean():
    prediction, labels = drawn(members=2)
    never = np.eye(3)[labels][:, None]
    found = diversity(be.Prediction(np.concatenate([prediction.member_probs, never], 1)), labels)
    assert found.q_statistic == pytest.approx(diversity(prediction, labels).q_statistic)


def test_one_member_differs_from_nobody():
    found = diversity(*drawn(members=1))
    assert (found.disagreement, found.pairwise_kl) == (0, 0)
    assert math.isnan(found.q_statistic)


def test_without_labels_nothing_is_said_of_errors():
    found = diversity(drawn()[0])
    assert found.q_statistics is None
    assert found.error_correlations is None
    assert math.isnan(found.error_correlation)


def test_what_one_member_excludes_and_another_does_not_is_infinitely_far():
    found = diversity(be.Prediction(np.array([[[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]]])))
    assert found.kls.tolist() == [[0, pytest.approx(math.log(2))], [math.inf, 0]]
    assert found.pairwise_kl == math.inf


def test_blocks_change_nothing(monkeypatch):
    prediction, labels = drawn()
    whole = diversity(prediction, labels)
    monkeypatch.setattr(row_blocks, "CHUNK_SIZE", 50)
    np.testing.assert_allclose(diversity(prediction, labels).kls, whole.kls, atol=1e-12)


def test_pixels_are_compared_as_so_many_examples():
    prediction, labels = drawn(examples=60)
    images = be.Prediction(
        np.moveaxis(prediction.member_probs.reshape(10, 2, 3, 4, 3), (3, 4), (1, 2))
    )
    with pytest.raises(ValueError, match=r"one class for each example, got .* metrics.entries"):
        diversity(images)
    found = diversity(*entries(images, labels.reshape(10, 2, 3)))
    assert found.disagreement == diversity(prediction, labels).disagreement
    assert found.q_statistic == pytest.approx(diversity(prediction, labels).q_statistic)


def test_no_examples_are_refused():
    with pytest.raises(ValueError, match="at least one example to compare members on, got none"):
        diversity(be.Prediction(np.zeros((0, 2, 3))))
