"""Predicted numbers against sampling, scipy and the slow loop over members."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from batchensemble.predictions import Normals, Points, Quantiles

RNG = np.random.default_rng(0)
MEANS, DEVIATIONS = RNG.normal(size=(7, 4)), RNG.uniform(0.2, 2, size=(7, 4))
NORMALS = Normals(MEANS, DEVIATIONS)
POINTS = Points(RNG.normal(size=(7, 5)))
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
QUANTILES = Quantiles(
    np.stack([stats.norm(MEANS, DEVIATIONS).ppf(level) for level in LEVELS], 2), LEVELS
)
ALL = [NORMALS, POINTS, QUANTILES]


def test_total_variance_is_that_of_the_mixture() -> None:
    second = (DEVIATIONS**2 + MEANS**2).mean(1)
    np.testing.assert_allclose(NORMALS.total, second - MEANS.mean(1) ** 2)
    np.testing.assert_allclose(NORMALS.total, NORMALS.aleatoric + NORMALS.epistemic)
    np.testing.assert_allclose(NORMALS.deviation**2, NORMALS.total)
    np.testing.assert_allclose(POINTS.total, POINTS.values.var(1))
    assert not POINTS.aleatoric.any()


@pytest.mark.parametrize("q", [1e-6, 0.05, 0.5, 0.8, 1 - 1e-6])
def test_quantile_of_normals_undoes_their_distribution_function(q: float) -> None:
    np.testing.assert_allclose(NORMALS.cdf(NORMALS.quantile(q)), q, rtol=1e-9)


def test_a_mixture_of_equal_normals_is_that_normal() -> None:
    one = Normals(np.full((3, 4), 2.0), np.full((3, 4), 0.5))
    norm = stats.norm(2.0, 0.5)
    np.testing.assert_allclose(one.quantile(0.9), norm.ppf(0.9))
    np.testing.assert_allclose(one.cdf(2.3), norm.cdf(2.3))
    np.testing.assert_allclose(one.log_density(2.3), norm.logpdf(2.3))
    np.testing.assert_allclose(
        one.interval(0.9), np.array([[1.1776], [2.8224]]) @ [[1, 1, 1]], 1e-4
    )
    assert not one.epistemic.any()


def test_density_of_normals_is_the_mean_density() -> None:
    y = RNG.normal(size=7)
    slow = [
        np.mean([stats.norm(m, s).pdf(each) for m, s in zip(MEANS[i], DEVIATIONS[i], strict=True)])
        for i, each in enumerate(y)
    ]
    np.testing.assert_allclose(NORMALS.log_density(y), np.log(slow))


def test_density_far_away_is_no_infinity() -> None:
    assert np.isfinite(NORMALS.log_density(1e6)).all()


@pytest.mark.parametrize("prediction", ALL, ids=lambda each: type(each).__name__)
def test_samples_have_the_moments_and_repeat_with_the_seed(prediction: object) -> None:
    draws = prediction.sample(40_000, seed=1)  # type: ignore[attr-defined]
    assert draws.shape == (40_000, 7)
    error = 5 * np.sqrt(prediction.total / 40_000) + 1e-9  # type: ignore[attr-defined]
    assert (abs(draws.mean(0) - prediction.mean) < error + 0.01).all()  # type: ignore[attr-defined]
    np.testing.assert_array_equal(draws, prediction.sample(40_000, seed=1))  # type: ignore[attr-defined]
    if isinstance(prediction, (Normals, Points)):
        np.testing.assert_allclose(draws.var(0), prediction.total, rtol=0.06)
        share = (draws <= 0.1).mean(0)
        assert abs(share - prediction.cdf(0.1)).max() < 0.015


def test_points_have_the_quantiles_of_their_members() -> None:
    np.testing.assert_allclose(POINTS.quantile(0.5), np.median(POINTS.values, 1))
    np.testing.assert_allclose(POINTS.cdf(POINTS.values.max(1)), 1)
    np.testing.assert_allclose(POINTS.cdf(POINTS.values.min(1) - 1), 0)


def test_quantiles_are_the_mean_of_the_members_and_straight_between() -> None:
    at = {level: QUANTILES.values[:, :, i].mean(1) for i, level in enumerate(LEVELS)}
    for level in LEVELS:
        np.testing.assert_allclose(QUANTILES.quantile(level), at[level])
        np.testing.assert_allclose(QUANTILES.cdf(at[level]), level)
    np.testing.assert_allclose(QUANTILES.quantile(0.4), 0.4 * at[0.25] + 0.6 * at[0.5])
    np.testing.assert_allclose(QUANTILES.cdf(QUANTILES.quantile(0.4)), 0.4)
    assert QUANTILES.widest == pytest.approx(0.9)
    np.testing.assert_allclose(QUANTILES.member_variances, DEVIATIONS**2)


def test_quantiles_beyond_the_outermost_are_said_not_to_be_known() -> None:
    with pytest.raises(ValueError, match=r"from 0\.05 to 0\.95.*got 0\.01"):
        QUANTILES.quantile(0.01)
    np.testing.assert_allclose(QUANTILES.cdf(1e9), 0.95)
    np.testing.assert_allclose(QUANTILES.cdf(-1e9), 0.05)


def test_quantiles_that_cross_or_come_in_any_order_are_sorted() -> None:
    crossed = Quantiles(np.array([[[3.0, 1.0, 2.0]]]), (0.9, 0.1, 0.5))
    assert crossed.levels == (0.1, 0.5, 0.9)
    assert crossed.quantile(0.5).tolist() == [2.0]
    equal = Quantiles(np.array([[[1.0, 1.0]]]), (0.1, 0.9))
    assert equal.cdf(1.0).tolist() == [0.9]
    assert equal.cdf(0.99).tolist() == [0.1]


def test_one_quantile_is_a_point() -> None:
    median = Quantiles(np.array([[[1.0], [3.0]]]), (0.5,))
    assert median.mean.tolist() == [2.0]
    assert median.aleatoric.tolist() == [0.0]
    assert median.widest == 0.0


@pytest.mark.parametrize("q", [0.0, 1.0, float("nan"), -1.0])
def test_levels_outside_are_refused(q: float) -> None:
    for prediction in ALL:
        with pytest.raises(ValueError, match="above 0 and below 1"):
            prediction.quantile(q)
        with pytest.raises(ValueError, match="coverage"):
            prediction.interval(q)


def test_several_targets_keep_their_axis() -> None:
    both = Normals(RNG.normal(size=(5, 3, 2)), np.ones((5, 3, 2)))
    assert both.mean.shape == both.quantile(0.3).shape == both.cdf(0.0).shape == (5, 2)
    assert both.sample(6, seed=0).shape == (6, 5, 2)
    levels = Quantiles(RNG.normal(size=(5, 3, 4, 2)), (0.2, 0.4, 0.6, 0.8))
    assert levels.mean.shape == levels.quantile(0.3).shape == levels.cdf(0.0).shape == (5, 2)
    assert levels.sample(6, seed=0).shape == (6, 5, 2)
