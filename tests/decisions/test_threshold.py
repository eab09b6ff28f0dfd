"""A threshold with a promise: kept in simulation, by good, bad and useless uncertainties."""

import warnings

import numpy as np
import pytest
from scipy.stats import binom, binomtest

import batchensemble as be
from batchensemble.decisions import threshold_for
from batchensemble.decisions.threshold import upper_bound


def two_classes(right):
    """A prediction of class 1 everywhere, and labels that are 1 where it is right."""
    prediction = be.Prediction(np.tile([0.1, 0.9], (len(right), 1, 1)))
    return prediction, np.asarray(right).astype(int)


def draw(rng, examples, error):
    """Uncertainties of a uniform distribution, and errors with a probability of ``error``."""
    uncertainty = rng.random(examples)
    return uncertainty, two_classes(rng.random(examples) >= error(uncertainty))


# The share of errors at a doubt of u, and among all examples with less than that.
KINDS = {
    "ranks well": (lambda u: 0.4 * u**2, lambda t: 0.4 * t**2 / 3),
    "just too many everywhere": (lambda u: 0.1002 + 0 * u, lambda t: 0.1002),
    "the surest are the worst": (lambda u: 0.3 * (1 - u), lambda t: 0.3 * (1 - t / 2)),
    "good in the middle": (
        lambda u: np.where((u > 0.2) & (u < 0.7), 0.0, 0.15),
        lambda t: (0.15 * min(t, 0.2) + 0.15 * max(t - 0.7, 0)) / t,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_true_risk_is_kept_in_all_but_5_percent_of_draws(kind):
    error, true_risk = KINDS[kind]
    rng, draws, too_high, found = np.random.default_rng(0), 400, 0, 0
    for _ in range(draws):
        uncertainty, (prediction, labels) = draw(rng, 600, error)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            threshold = threshold_for(prediction, labels, 0.1, 0.95, by=uncertainty)
        found += threshold.found
        too_high += threshold.found and true_risk(min(threshold.value, 1.0)) > 0.1
    assert too_high <= binom(draws, 0.05).ppf(0.9995)
    if kind in ("ranks well", "good in the middle"):
        assert found > 0.9 * draws


def test_a_search_without_correction_would_break_the_promise():
    """The test above can fail: the same search with each bound at 95 % chooses too much."""
    rng, too_high = np.random.default_rng(0), 0
    for _ in range(200):
        right = rng.random(600) >= 0.1002
        answered = np.arange(30, 601)
        bounds = upper_bound((~right).cumsum()[29:].astype(float), answered, 0.05)
        too_high += (bounds <= 0.1).any()
    assert too_high > binom(200, 0.05).ppf(0.9995)


def test_bounds_are_those_of_clopper_and_pearson():
    for wrong, answered in ((0, 20), (3, 50), (50, 50), (1, 1)):
        interval = binomtest(wrong, answered, alternative="less").proportion_ci(0.97, "exact")
        found = upper_bound(np.array([float(wrong)]), np.array([answered]), 0.03)
        assert found[0] == pytest.approx(interval.high, abs=1e-12)
    assert upper_bound(np.zeros(1), np.zeros(1, int), 0.05).tolist() == [1.0]


def test_a_threshold_tells_what_it_accepts():
    rng = np.random.default_rng(1)
    probs = rng.dirichlet([0.1] * 4, (5000, 1))
    labels = (probs[:, 0].cumsum(1) < rng.random((5000, 1))).sum(1).clip(max=3)
    prediction = be.Prediction(probs)
    for by in ("total", "confidence"):
        threshold = threshold_for(prediction, labels, risk=0.02, by=by)
        accepted = threshold.accepts(prediction)
        assert 0.1 < threshold.coverage < 1
        assert accepted.mean() == threshold.coverage
        assert (prediction.labels != labels)[accepted].mean() == pytest.approx(threshold.risk)
        assert threshold.risk < threshold.bound <= 0.02
        assert f"answer if {by} < " in str(threshold)


def test_more_risk_answers_more():
    uncertainty, (prediction, labels) = draw(
        np.random.default_rng(2), 20_000, KINDS["ranks well"][0]
    )
    coverages = [
        threshold_for(prediction, labels, risk, by=uncertainty).coverage
        for risk in (0.02, 0.05, 0.1)
    ]
    assert coverages == sorted(coverages)
    assert coverages[0] < coverages[2]


def test_where_all_may_be_answered_the_threshold_is_infinite():
    prediction, labels = two_classes(np.ones(1000))
    threshold = threshold_for(prediction, labels, risk=0.01)
    assert (threshold.value, threshold.coverage, threshold.risk) == (np.inf, 1.0, 0.0)
    assert threshold.accepts(prediction).all()


def test_equal_doubt_is_all_or_nothing():
    prediction, labels = two_classes(np.arange(1000) % 10 > 0)
    assert threshold_for(prediction, labels, risk=0.2).coverage == 1
    with pytest.warns(UserWarning, match="no threshold on total meets it with 1000 examples"):
        threshold = threshold_for(prediction, labels, risk=0.1)
    assert not threshold.found
    assert threshold.coverage == 0
    assert 0.1 < threshold.bound < 0.2
    assert not threshold.accepts(prediction).any()


@pytest.mark.parametrize("examples", [1, 50])
def test_too_few_examples_reach_no_threshold(examples):
    prediction, labels = two_classes(np.ones(examples))
    with pytest.warns(UserWarning, match=r"give more examples or allow more errors"):
        threshold = threshold_for(prediction, labels, risk=0.01)
    assert not threshold.found
    assert threshold.bound > 0.01


def test_numbers_of_ones_own_are_needed_again_to_accept():
    uncertainty, (prediction, labels) = draw(np.random.default_rng(3), 3000, KINDS["ranks well"][0])
    threshold = threshold_for(prediction, labels, 0.1, by=uncertainty)
    assert threshold.accepts(prediction, uncertainty).mean() == threshold.coverage
    with pytest.raises(ValueError, match="give by= for these examples"):
        threshold.accepts(prediction)


def test_wrong_arguments_get_a_sentence():
    prediction, labels = two_classes(np.ones(10))
    with pytest.raises(ValueError, match="risk must be a number above 0 and below 1"):
        threshold_for(prediction, labels, risk=0.0)
    with pytest.raises(ValueError, match="confidence must be a number above 0 and below 1"):
        threshold_for(prediction, labels, confidence=1.0)
    with pytest.raises(ValueError, match="levels must be at least 1, got 0"):
        threshold_for(prediction, labels, levels=0)
    with pytest.raises(ValueError, match="at least one example to score, got none"):
        threshold_for(be.Prediction(np.zeros((0, 2, 3))), [])
    with pytest.raises(ValueError, match="the uncertainty must be finite, got 1 of 10"):
        threshold_for(prediction, labels, by=[np.nan] + [0] * 9)
