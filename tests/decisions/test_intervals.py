"""Intervals of regression: three scores, the promised coverage, MAPIE as second source."""

import numpy as np
import pytest
from scipy.stats import betabinom, binom
from sklearn.base import BaseEstimator, RegressorMixin

from batchensemble.decisions import ConformalIntervals, Intervals
from batchensemble.decisions.quantile import rank_of


def draw(rng, examples):
    """A model that is biased where x is large, and targets that are spread there."""
    x = rng.uniform(0.5, 3, examples)
    return x, x**2 + x * rng.standard_t(4, examples)


def learn(kind, x, y, confidence=0.9):
    intervals = ConformalIntervals(confidence)
    if kind == "absolute":
        return intervals.fit(2 * x, y)
    return (
        intervals.fit(2 * x, y, x) if kind == "normalised" else intervals.fit_quantiles(x, 3 * x, y)
    )


def give(intervals, x):
    if intervals.kind_ == "quantiles":
        return intervals.moved(x, 3 * x)
    return intervals(2 * x, x if intervals.kind_ == "normalised" else None)


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
    intervals = ConformalIntervals(0.5).fit_quantiles(np.full(1000, -9.0), np.full(1000, 9.0), y)
    assert intervals.quantile_ < -8
    found = intervals.moved([-9.0, -1.0], [9.0, 3.0])
    assert 0 < found.widths[0] < 2
    assert (found.lower[1], found.upper[1]) == (1.0, 1.0)


@pytest.mark.parametrize("kind", KINDS)
def test_too_few_examples_give_infinite_intervals_and_say_so(kind):
    x, y = draw(np.random.default_rng(4), 8)
    with pytest.warns(UserWarning, match="takes at least 9 held-out examples, got 8"):
        intervals = learn(kind, x, y)
    found = give(intervals, x)
    assert np.isinf(found.widths).all()
    assert found.coverage(y) == 1


def test_no_new_examples_have_no_coverage():
    intervals = learn("absolute", *draw(np.random.default_rng(5), 50))
    found = intervals(np.zeros(0))
    assert len(found) == 0
    with pytest.raises(ValueError, match="at least one interval to score, got none"):
        found.coverage(np.zeros(0))


def test_wrong_calls_get_a_sentence():
    x, y = draw(np.random.default_rng(6), 50)
    intervals = ConformalIntervals()
    with pytest.raises(RuntimeError, match="call fit on held-out examples"):
        intervals(x)
    with pytest.raises(ValueError, match="at least one held-out example, got none"):
        intervals.fit([], [])
    with pytest.raises(ValueError, match=r"targets must have the shape \[50\].* got \[49\]"):
        intervals.fit(x, y[:-1])
    with pytest.raises(ValueError, match=r"centre must have the shape \[examples\].*\[50, 1\]"):
        intervals.fit(x[:, None], y)
    with pytest.raises(ValueError, match="targets must be finite, got 1 of 50 that are not"):
        intervals.fit(x, np.where(x == x[0], np.nan, y))
    with pytest.raises(ValueError, match="spread must be above 0, got 50 of 50 that are not"):
        intervals.fit(x, y, 0 * x)
    with pytest.raises(ValueError, match="upper must have the shape"):
        intervals.fit_quantiles(x, x[:3], y)
    intervals.fit(x, y)
    with pytest.raises(ValueError, match="learnt absolute intervals: call it with centre alone"):
        intervals(x, x)
    intervals.fit(x, y, x)
    with pytest.raises(ValueError, match="learnt normalised intervals: call it with centre and"):
        intervals(x)
    intervals.fit_quantiles(x, x, y)
    with pytest.raises(ValueError, match=r"learnt quantiles intervals: call moved\(lower, upper"):
        intervals(x)


def test_both_ends_belong_to_an_interval():
    assert Intervals(np.zeros(2), np.ones(2), 0.9).contains([0.0, 1.0]).all()
