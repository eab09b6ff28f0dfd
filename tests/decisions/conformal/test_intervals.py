"""Intervals of regression: three scores, the promised coverage, MAPIE as second source."""

import numpy as np
import pytest
from scipy.stats import betabinom, binom
from sklearn.base import BaseEstimator, RegressorMixin

from batchensemble.decisions import ConformalIntervals, Intervals
from batchensemble.decisions.conformal.quantile import rank_of
from batchensemble.predictions import Normals, Points, Prediction, Quantiles


def draw(rng, examples):
    """A model that is biased where x is large, and targets that are spread there."""
    x = rng.uniform(0.5, 3, examples)
    return x, x**2 + x * rng.standard_t(4, examples)


def said(kind, x):
    """What a network for this kind would say: a number, a normal distribution or two quantiles."""
    x = x[:, None]
    if kind == "quantiles":
        return Quantiles(np.stack([x, 3 * x], 2), (0.05, 0.95))
    return Normals(2 * x, x) if kind == "normalised" else Points(2 * x)


def learn(kind, x, y, confidence=0.9):
    return ConformalIntervals(confidence=confidence).fit(said(kind, x), y)


def give(intervals, x):
    return intervals(said(intervals.method_, x))


def slow_score(kind, x, y):
    return {"absolute": abs(y - 2 * x), "normalised": abs(y - 2 * x) / x}.get(
        kind, max(x - y, y - 3 * x)
    )


KINDS = ["absolute", "normalised", "quantiles"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_interval_holds_what_scores_no_more_than_the_quantile(kind):
    rng = np.random.default_rng(0)
    x, y = draw(rng, 97)
    intervals = learn(kind, x, y)
    scores = sorted(slow_score(kind, a, b) for a, b in zip(x, y, strict=True))
    assert intervals.quantile_ == pytest.approx(scores[rank_of(97, 0.9) - 1])
    new, truth = draw(rng, 200)
    expected = [
        slow_score(kind, a, b) <= intervals.quantile_ for a, b in zip(new, truth, strict=True)
    ]
    assert give(intervals, new).contains(truth).tolist() == expected


@pytest.mark.parametrize("kind", KINDS)
def test_coverage_of_200_draws_is_as_the_theory_says(kind):
    draws, examples, new = 200, 150, 500
    rank = rank_of(examples, 0.8)
    law = betabinom(new, rank, examples + 1 - rank)
    covered = []
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        intervals = learn(kind, *draw(rng, examples), 0.8)
        x, y = draw(rng, new)
        covered.append(give(intervals, x).contains(y).sum())
    covered = np.array(covered)
    assert law.ppf(1e-6) <= covered.min() <= covered.max() <= law.ppf(1 - 1e-6)
    for share in (0.1, 0.5, 0.9):
        value = law.ppf(share)
        low, high = binom(draws, law.cdf(value)).ppf([0.0005, 0.9995])
        assert low <= (covered <= value).sum() <= high


class Column(RegressorMixin, BaseEstimator):
    """A regressor of scikit-learn that predicts its first column."""

    def fit(self, X, y):
        self.fitted_ = True
        return self

    def predict(self, X):
        return X[:, 0]


@pytest.mark.parametrize("confidence", [0.7, 0.9, 0.95])
def test_absolute_intervals_are_those_of_mapie(confidence):
    from mapie.regression import SplitConformalRegressor

    rng = np.random.default_rng(1)
    (x, y), (new, _) = draw(rng, 201), draw(rng, 50)
    X = 2 * np.stack([x, x], 1)
    theirs = SplitConformalRegressor(Column().fit(X, y), confidence, prefit=True)
    _, expected = theirs.conformalize(X, y).predict_interval(2 * np.stack([new, new], 1))
    ours = give(learn("absolute", x, y, confidence), new)
    np.testing.assert_allclose(ours.lower, expected[:, 0, 0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(ours.upper, expected[:, 1, 0], rtol=0, atol=1e-12)


class Times(Column):
    """A regressor that predicts so many times its first column."""

    def __init__(self, factor=1):
        self.factor = factor

    def predict(self, X):
        return self.factor * X[:, 0]


def test_moved_quantiles_are_those_of_mapie():
    from mapie.regression import ConformalizedQuantileRegressor

    rng = np.random.default_rng(1)
    (x, y), (new, _) = draw(rng, 201), draw(rng, 50)
    X, others = np.stack([x, x], 1), np.stack([new, new], 1)
    lower, upper, median = (Times(factor).fit(X, y) for factor in (1, 3, 2))
    theirs = ConformalizedQuantileRegressor([lower, upper, median], 0.9, prefit=True)
    theirs.conformalize(X, y)
    _, expected = theirs.predict_interval(others, symmetric_correction=True)
    ours = give(learn("quantiles", x, y), new)
    np.testing.assert_allclose(ours.lower, expected[:, 0, 0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(ours.upper, expected[:, 1, 0], rtol=0, atol=1e-12)


def test_a_spread_makes_intervals_wide_where_it_is_large():
    x, y = draw(np.random.default_rng(2), 500)
    assert np.ptp(give(learn("absolute", x, y), x).widths) < 1e-12
    widths = give(learn("normalised", x, y), x).widths
    assert np.corrcoef(widths, x)[0, 1] == pytest.approx(1)


def test_quantiles_that_are_too_wide_move_together_and_never_past_each_other():
    y = np.random.default_rng(3).normal(size=1000)
    levels = (0.25, 0.75)
    wide = Quantiles(np.tile([-9.0, 9.0], (1000, 1, 1)), levels)
    intervals = ConformalIntervals("quantiles", 0.5).fit(wide, y)
    assert intervals.quantile_ < -8
    found = intervals(Quantiles(np.array([[[-9.0, 9.0]], [[-1.0, 3.0]]]), levels))
    assert 0 < found.widths[0] < 2
    assert (found.lower[1], found.upper[1]) == (1.0, 1.0)


def normals(rng, examples):
    """Three members with means and deviations of their own, and targets unlike all of them."""
    means, deviations = rng.normal(size=(examples, 3)), rng.uniform(0.3, 2, (examples, 3))
    targets = 0.3 + means.mean(1) + 2 * deviations[:, 0] * rng.laplace(size=examples)
    return Normals(means, deviations), targets


@pytest.mark.parametrize("kind", KINDS)
def test_each_method_goes_by_what_the_mixture_says(kind):
    rng = np.random.default_rng(7)
    prediction, targets = normals(rng, 499)
    intervals = ConformalIntervals(kind, 0.8).fit(prediction, targets)
    lower, upper = prediction.interval(0.8)
    off = np.abs(targets - prediction.mean)
    scores = {
        "absolute": off,
        "normalised": off / np.sqrt(prediction.total),
        "quantiles": np.maximum(lower - targets, targets - upper),
    }[kind]
    assert intervals.quantile_ == np.sort(scores)[rank_of(499, 0.8) - 1]
    new, truth = normals(rng, 20_000)
    assert intervals(new).coverage(truth) == pytest.approx(0.8, abs=0.05)
    widths = intervals(new).widths
    assert (np.ptp(widths) < 1e-9) == (kind == "absolute")


def test_the_method_is_by_default_what_the_network_was_trained_for():
    x, y = draw(np.random.default_rng(8), 50)
    for kind in KINDS:
        assert learn(kind, x, y).method_ == kind
    one_level = Quantiles(2 * x[:, None, None], (0.5,))
    assert ConformalIntervals().fit(one_level, y).method_ == "absolute"
    chosen = ConformalIntervals("absolute").fit(said("normalised", x), y)
    assert chosen.quantile_ == learn("absolute", x, y).quantile_


def test_quantiles_that_do_not_reach_the_confidence_are_moved_further_apart():
    rng = np.random.default_rng(9)
    (x, y), (new, truth) = draw(rng, 2000), draw(rng, 2000)
    intervals = learn("quantiles", x, y, 0.99)
    assert intervals.quantile_ > 0
    assert give(intervals, new).coverage(truth) == pytest.approx(0.99, abs=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_too_few_examples_give_infinite_intervals_and_say_so(kind):
    x, y = draw(np.random.default_rng(4), 8)
    with pytest.warns(UserWarning, match="needs at least 9 held-out examples, got 8"):
        intervals = learn(kind, x, y)
    found = give(intervals, x)
    assert np.isinf(found.widths).all()
    assert found.coverage(y) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_no_new_examples_have_no_coverage(kind):
    found = give(learn(kind, *draw(np.random.default_rng(5), 50)), np.zeros(0))
    assert len(found) == 0
    with pytest.raises(ValueError, match="at least one interval to score, got none"):
        found.coverage(np.zeros(0))


@pytest.mark.usefixtures("as_users_run_it")
def test_wrong_calls_get_a_sentence():
    x, y = draw(np.random.default_rng(6), 50)
    points, intervals = said("absolute", x), ConformalIntervals()
    with pytest.raises(ValueError, match=r"method must be one of absolute.*did you mean 'quant"):
        ConformalIntervals("quantile")
    with pytest.raises(ValueError, match="confidence must be a number above 0 and below 1"):
        ConformalIntervals(confidence=1.0)
    with pytest.raises(ValueError, match=r"method must be one of absolute.*got 0\.9"):
        ConformalIntervals(0.9)
    with pytest.raises(RuntimeError, match="call fit with held-out examples"):
        intervals(points)
    with pytest.raises(ValueError, match="at least one held-out example, got none"):
        intervals.fit(said("absolute", x[:0]), [])
    with pytest.raises(ValueError, match=r"targets must have the shape \[50\].* got \[49\]"):
        intervals.fit(points, y[:-1])
    with pytest.raises(ValueError, match="targets must be finite, got 1 of 50 that are not"):
        intervals.fit(points, np.where(x == x[0], np.nan, y))
    with pytest.raises(ValueError, match="the predicted numbers must be finite, got 50 of 50"):
        intervals.fit(Points(np.full((50, 2), np.inf)), y)
    with pytest.raises(ValueError, match=r"above 0, got 50 of 50 .*; use method='absolute'"):
        ConformalIntervals("normalised").fit(points, y)
    with pytest.raises(ValueError, match="one quantile has no interval; use method="):
        ConformalIntervals("quantiles").fit(Quantiles(x[:, None, None], (0.5,)), y)
    with pytest.raises(ValueError, match=r"one number for each example, got the shape \[50, 2\]"):
        intervals.fit(Points(np.zeros((50, 3, 2))), np.zeros((50, 2)))


@pytest.mark.usefixtures("as_users_run_it")
def test_classes_have_sets_and_no_intervals():
    classes = Prediction(np.tile([0.5, 0.5], (3, 1, 1)))
    for other in (classes, np.zeros(3)):
        with pytest.raises(TypeError, match="intervals need predicted numbers, got"):
            ConformalIntervals().fit(other, np.zeros(3))


def test_both_ends_belong_to_an_interval():
    assert Intervals(np.zeros(2), np.ones(2), 0.9).contains([0.0, 1.0]).all()
