"""Decompositions are those of slow loops and of scipy, and keep the identities of their theory."""

import itertools
import math
import tracemalloc

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

import batchensemble as be
from batchensemble.core import chunks as row_blocks
from batchensemble.predictions.uncertainty import (
    entropy_decomposition,
    pairwise_kl,
    variance_decomposition,
)

FUNCTIONS = [entropy_decomposition, variance_decomposition, pairwise_kl]
OPPOSITE = np.array([[[1.0, 0.0], [0.0, 1.0]]])


def drawn(examples=6, members=4, classes=5, concentration=0.5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(classes, concentration), size=(examples, members))


def drawn_labels(examples=6, members=4, labels=3):
    return np.random.default_rng(1).uniform(size=(examples, members, labels))


def kl(one, other):
    return scipy.stats.entropy(one, other)


def mean_kl(members):
    return np.mean([kl(one, other) for one, other in itertools.product(members, repeat=2)])


def test_entropies_are_scipys():
    probs = drawn()
    ours = entropy_decomposition(probs)
    for row, example in enumerate(probs):
        total = scipy.stats.entropy(sum(example) / 4)
        aleatoric = sum(scipy.stats.entropy(member) for member in example) / 4
        assert ours.total[row] == pytest.approx(total)
        assert ours.aleatoric[row] == pytest.approx(aleatoric)
        # The second way to the mutual information: how far the members are from their mean.
        information = np.mean([kl(member, example.mean(0)) for member in example])
        assert ours.epistemic[row] == pytest.approx(information)


def test_variances_are_those_of_labels_drawn_from_a_member_drawn():
    probs = drawn(members=3)
    ours = variance_decomposition(probs)
    for row, class_ in itertools.product(range(6), range(5)):
        p = probs[row, :, class_]
        # Each member and label equally often: the label's variance, taken over all of them.
        weights = np.concatenate([p, 1 - p]) / 3
        label = np.repeat([1.0, 0.0], 3)
        mean = (weights * label).sum()
        assert ours.total[row, class_] == pytest.approx((weights * (label - mean) ** 2).sum())
        assert ours.aleatoric[row, class_] == pytest.approx(sum(q * (1 - q) for q in p) / 3)
        assert ours.epistemic[row, class_] == pytest.approx(sum((q - mean) ** 2 for q in p) / 3)


def test_pairwise_kl_is_scipys_over_all_ordered_pairs():
    probs = drawn()
    assert pairwise_kl(probs) == pytest.approx([mean_kl(example) for example in probs])


def test_labels_are_coins():
    probs = drawn_labels()
    coins = np.stack([probs, 1 - probs], -1)  # [examples, members, labels, 2]
    entropy = entropy_decomposition(probs, labels=True)
    variance = variance_decomposition(probs, labels=True)
    divergence = pairwise_kl(probs, labels=True)
    for label in range(3):
        alone = entropy_decomposition(coins[:, :, label])
        for part in ("total", "aleatoric", "epistemic"):
            assert getattr(entropy, part)[:, label] == pytest.approx(getattr(alone, part))
        expected = variance_decomposition(coins[:, :, label]).epistemic[:, 0]
        assert variance.epistemic[:, label] == pytest.approx(expected)
        assert divergence[:, label] == pytest.approx(pairwise_kl(coins[:, :, label]))


def test_the_entropies_of_independent_labels_sum_to_that_of_all_together():
    probs = drawn_labels(examples=1, members=1)
    together = [
        math.prod(p if there else 1 - p for p, there in zip(probs[0, 0], outcome, strict=True))
        for outcome in itertools.product([True, False], repeat=3)
    ]
    total = entropy_decomposition(probs, labels=True).summed().total
    assert total == pytest.approx([scipy.stats.entropy(together)])


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 6),
    st.integers(1, 6),
    st.floats(0.01, 5),
    st.booleans(),
)
def test_identities_and_ranges(seed, members, classes, concentration, labels):
    probs = drawn(7, members, classes, concentration, seed)
    entropy = entropy_decomposition(probs, labels=labels)
    variance = variance_decomposition(probs, labels=labels)
    divergence = pairwise_kl(probs, labels=labels)
    for parts in (entropy, variance, variance.summed()):
        np.testing.assert_allclose(parts.total, parts.aleatoric + parts.epistemic, atol=1e-12)
        assert min(parts.total.min(), parts.aleatoric.min(), parts.epistemic.min()) >= 0
    outcomes = 2 if labels else classes
    assert entropy.total.max() <= math.log(outcomes) + 1e-12
    assert entropy.epistemic.max() <= math.log(min(outcomes, members)) + 1e-12
    assert variance.total.max() <= 0.25 + 1e-12
    assert (divergence >= entropy.epistemic - 1e-9).all()


def test_pairwise_kl_is_the_mutual_information_and_its_reverse():
    probs = drawn()
    reverse = [np.mean([kl(e.mean(0), member) for member in e]) for e in probs]
    assert pairwise_kl(probs) == pytest.approx(entropy_decomposition(probs).epistemic + reverse)


@pytest.mark.parametrize("members", [1, 2, 3, 5])
def test_members_alike_differ_in_nothing(members):
    alike = drawn(members=1).repeat(members, 1)
    assert entropy_decomposition(alike).epistemic == pytest.approx(0, abs=1e-12)
    assert variance_decomposition(alike).epistemic == pytest.approx(0, abs=1e-30)
    assert pairwise_kl(alike) == pytest.approx(0, abs=1e-15)


def test_two_opposite_sure_members_are_all_epistemic():
    entropy, variance = entropy_decomposition(OPPOSITE), variance_decomposition(OPPOSITE)
    assert (entropy.total[0], entropy.aleatoric[0]) == (pytest.approx(math.log(2)), 0)
    assert entropy.epistemic[0] == pytest.approx(math.log(2))
    assert variance.total.tolist() == variance.epistemic.tolist() == [[0.25, 0.25]]
    assert variance.aleatoric.tolist() == [[0.0, 0.0]]
    assert pairwise_kl(OPPOSITE).tolist() == [math.inf]


def test_fair_coins_are_all_aleatoric():
    fair = np.full((1, 3, 2), 0.5)
    assert entropy_decomposition(fair).aleatoric[0] == pytest.approx(math.log(2))
    assert entropy_decomposition(fair).epistemic[0] == 0
    assert variance_decomposition(fair).summed().aleatoric.tolist() == [0.5]


def test_a_zero_that_all_members_share_adds_nothing():
    probs = drawn(classes=3)
    padded = np.concatenate([probs, np.zeros((6, 4, 2))], 2)
    assert pairwise_kl(padded) == pytest.approx(pairwise_kl(probs))
    assert entropy_decomposition(padded).total == pytest.approx(entropy_decomposition(probs).total)


def test_a_zero_that_one_member_has_makes_its_pixel_infinite_and_no_other():
    probs = np.full((1, 2, 2, 3), 0.5)
    probs[0, 0, :, 1] = [0, 1]
    assert pairwise_kl(probs).tolist() == [[0, math.inf, 0]]
    assert entropy_decomposition(probs).epistemic[0] == pytest.approx(
        [0, *entropy_decomposition(probs[..., 1]).epistemic, 0]
    )


@pytest.mark.parametrize("function", FUNCTIONS)
def test_one_class_and_one_member_are_certain(function):
    for shape in [(2, 3, 1), (2, 1, 1)]:
        result = function(np.ones(shape))
        parts = [result] if function is pairwise_kl else vars(result).values()
        assert all((np.asarray(part) == 0).all() for part in parts)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_pixels_are_each_by_itself(function):
    probs = np.stack([drawn(seed=seed) for seed in range(6)], -1).reshape(6, 4, 5, 2, 3)
    result = function(probs)
    for row, column in itertools.product(range(2), range(3)):
        alone = function(probs[..., row, column])
        if function is pairwise_kl:
            assert result[..., row, column] == pytest.approx(alone)
        else:
            for name, part in vars(result).items():
                assert part[..., row, column] == pytest.approx(getattr(alone, name))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_blocks_change_nothing_and_no_copy_of_the_input_is_made(function, monkeypatch):
    probs = drawn(examples=2000, classes=40)
    whole = function(probs)
    monkeypatch.setattr(row_blocks, "CHUNK_SIZE", 4000)
    tracemalloc.start()
    parts = function(probs)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    if function is pairwise_kl:
        whole, parts, results = {"": whole}, {"": parts}, whole.nbytes
    else:
        whole, parts = vars(whole), vars(parts)
        results = sum(part.nbytes for part in whole.values())
    for name, part in parts.items():
        np.testing.assert_array_equal(part, whole[name])
    assert peak - results < probs.nbytes / 4


@pytest.mark.parametrize("function", FUNCTIONS)
def test_half_precision_is_counted_in_double(function):
    probs = drawn()
    result = function(probs.astype(np.float16))
    result = result if function is pairwise_kl else result.total
    expected = function(probs.astype(np.float16).astype(np.float64))
    expected = expected if function is pairwise_kl else expected.total
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    ("probs", "sentence"),
    [
        (np.zeros((0, 2, 3)), r"at least one example, member and class, .* \[0, 2, 3\]"),
        (np.zeros((2, 0, 3)), r"at least one example, member and class, .* \[2, 0, 3\]"),
        (np.array([[0.5, 0.5]]), r"\[examples, members, classes, ...\], got \[1, 2\]"),
        (np.array([[[3.0, -2.0]]]), "must be from 0 to 1, got -2; give probabilities, not logits"),
        (np.array([[[1.5, 0.0]]]), "must be from 0 to 1, got 1.5"),
        (np.array([[[np.nan, 0.0]]]), "must be from 0 to 1, got nan"),
        (np.array([[[0.9, 0.8]]]), r"sum to 1 over the classes, got 1.7; give labels=True"),
    ],
)
def test_what_is_no_probability_is_refused(function, probs, sentence, as_users_run_it):
    with pytest.raises(ValueError, match=sentence):
        function(probs)


def test_one_label_needs_no_axis_of_its_own():
    probs = drawn_labels(labels=1)
    for function in FUNCTIONS:
        flat, whole = function(probs[..., 0], labels=True), function(probs, labels=True)
        if function is not pairwise_kl:
            flat, whole = flat.epistemic, whole.epistemic
        np.testing.assert_array_equal(flat, whole[:, 0])


def test_a_prediction_of_labels_has_them_all():
    probs = drawn_labels()
    prediction = be.MultiLabelPrediction(probs)
    expected = entropy_decomposition(probs, labels=True)
    for part in ("total", "aleatoric", "epistemic"):
        np.testing.assert_array_equal(getattr(prediction, part), getattr(expected, part))
    variance = variance_decomposition(probs, labels=True)
    np.testing.assert_array_equal(prediction.variance.epistemic, variance.epistemic)
    np.testing.assert_array_equal(prediction.pairwise_kl, pairwise_kl(probs, labels=True))


def test_a_prediction_has_them_all():
    probs = drawn()
    prediction = be.Prediction(probs)
    entropy, variance = entropy_decomposition(probs), variance_decomposition(probs)
    for part in ("total", "aleatoric", "epistemic"):
        np.testing.assert_array_equal(getattr(prediction, part), getattr(entropy, part))
        np.testing.assert_array_equal(getattr(prediction.variance, part), getattr(variance, part))
    np.testing.assert_array_equal(prediction.pairwise_kl, pairwise_kl(probs))
