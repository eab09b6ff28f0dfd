"""Scores of numbers and labels against scipy, scikit-learn and slow formulas."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, stats
from sklearn.metrics import log_loss, r2_score

from batchensemble.metrics import (
    crps,
    interval_calibration,
    pit,
    score,
    score_labels,
    score_numbers,
)
from batchensemble.predictions import (
    MultiLabelPrediction,
    Normals,
    Points,
    Quantiles,
    RegressionPrediction,
)

RNG = np.random.default_rng(0)
Y = RNG.normal(size=30)
NORMALS = Normals(RNG.normal(size=(30, 4)), RNG.uniform(0.3, 2, size=(30, 4)))
POINTS = Points(RNG.normal(size=(30, 5)))
LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)
QUANTILES = Quantiles(
    np.stack([stats.norm(0, 1).ppf(level) + 0.1 * NORMALS.means for level in LEVELS], 2), LEVELS
)


@pytest.mark.parametrize("prediction", [NORMALS, POINTS, QUANTILES])
def test_the_usual_scores(prediction: RegressionPrediction) -> None:
    scores = score(prediction, Y)
    assert scores["rmse"] == pytest.approx(np.sqrt(((Y - prediction.mean) ** 2).mean()))
    assert scores["mae"] == pytest.approx(abs(Y - prediction.mean).mean())
    assert scores["r2"] == pytest.approx(r2_score(Y, prediction.mean))
    low, high = prediction.interval(scores["coverage_meant"])
    assert scores["coverage"] == ((low <= Y) & (high >= Y)).mean()
    assert scores["width"] == pytest.approx((high - low).mean())
    assert scores["epistemic"] ** 2 + scores["aleatoric"] ** 2 == pytest.approx(
        prediction.total.mean()
    )
    for index, rmse in enumerate(scores["member_rmses"]):
        own = prediction.member_means[:, index]
        assert rmse == pytest.approx(np.sqrt(((Y - own) ** 2).mean()))
    assert ("nll" in scores) == isinstance(prediction, Normals)
    assert ("pinball" in scores) == isinstance(prediction, Quantiles)


def test_nll_is_that_of_the_mixture() -> None:
    members = [stats.norm(NORMALS.means[:, i], NORMALS.deviations[:, i]) for i in range(4)]
    slow = -np.log(np.mean([each.pdf(Y) for each in members], 0)).mean()
    assert score(NORMALS, Y)["nll"] == pytest.approx(slow)
    with pytest.raises(ValueError, match="no density"):
        POINTS.log_density(Y)


@pytest.mark.parametrize("prediction", [NORMALS, POINTS])
def test_crps_is_the_area_between_the_distribution_functions(
    prediction: RegressionPrediction,
) -> None:
    grid = np.linspace(-12, 12, 60_001)
    for index in range(3):
        one = type(prediction)(*(each[index : index + 1] for each in vars_of(prediction)))
        cdf = np.array([one.cdf(each)[0] for each in grid[::20]])
        gap = (cdf - (grid[::20] >= Y[index])) ** 2
        area = integrate.trapezoid(gap, grid[::20])
        assert crps(prediction, Y)[index] == pytest.approx(area, abs=0.01)


def vars_of(prediction: RegressionPrediction) -> list[np.ndarray]:
    if isinstance(prediction, Normals):
        return [prediction.means, prediction.deviations]
    assert isinstance(prediction, Points)
    return [prediction.values]


def test_crps_of_many_quantiles_is_near_that_of_the_distribution() -> None:
    levels = tuple((np.arange(500) + 0.5) / 500)
    fine = Quantiles(np.tile(stats.norm.ppf(levels), (30, 1))[:, None], levels)
    exact = crps(Normals(np.zeros((30, 1)), np.ones((30, 1))), Y)
    np.testing.assert_allclose(crps(fine, Y), exact, atol=2e-3)


def test_crps_of_one_point_is_the_absolute_error() -> None:
    np.testing.assert_allclose(crps(Points(NORMALS.means[:, :1]), Y), abs(Y - NORMALS.means[:, 0]))


def test_pit_is_uniform_where_the_distribution_is_right() -> None:
    means, deviations = RNG.normal(size=(4000, 3)), RNG.uniform(0.5, 2, size=(4000, 3))
    right = Normals(means, deviations)
    y = right.sample(1, seed=3)[0]
    assert stats.kstest(pit(right, y), "uniform").pvalue > 0.001
    too_sure = Normals(means, deviations / 3)
    assert stats.kstest(pit(too_sure, y), "uniform").pvalue < 1e-6
    calibration = interval_calibration(right, y)
    assert calibration.error < 0.03
    assert (np.diff(calibration.width) > 0).all()
    assert interval_calibration(too_sure, y).error > 0.1


def test_quantiles_have_intervals_as_far_as_their_levels() -> None:
    calibration = interval_calibration(QUANTILES, Y)
    assert calibration.levels.max() == pytest.approx(0.8)
    assert score(QUANTILES, Y)["coverage_meant"] == pytest.approx(0.8)
    median = Quantiles(np.zeros((3, 1, 1)), (0.5,))
    assert score(median, [0, 0, 1])["coverage"] == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="one quantile has no interval"):
        interval_calibration(median, np.zeros(3))


def test_targets_that_are_not_known_do_not_count() -> None:
    y = Y.copy()
    y[4] = np.nan
    without = np.delete(np.arange(30), 4)
    rest = Normals(NORMALS.means[without], NORMALS.deviations[without])
    for name, value in score(rest, Y[without]).items():
        assert score(NORMALS, y)[name] == pytest.approx(value), name


def test_what_cannot_be_scored_is_said() -> None:
    with pytest.raises(ValueError, match=r"shape \[30\].*got \[29\]"):
        score_numbers(NORMALS, Y[1:])
    with pytest.raises(ValueError, match="infinite"):
        score_numbers(NORMALS, np.where(Y > 0, np.inf, Y))
    with pytest.raises(ValueError, match="at least one known target"):
        score_numbers(NORMALS, np.full(30, np.nan))
    one = score_numbers(Points(np.ones((1, 2))), [1.0])
    assert np.isnan(one["r2"])
    assert one["rmse"] == 0


def test_constant_targets_and_sure_members() -> None:
    with pytest.warns(UserWarning, match="R² is NaN: all 5 targets are 1, so there is no variance"):
        scores = score_numbers(Normals(np.zeros((5, 2)), np.full((5, 2), 1e-12)), np.ones(5))
    assert np.isnan(scores["r2"])
    assert np.isfinite(scores["nll"])
    assert scores["coverage"] == 0


def test_scores_of_labels() -> None:
    probs = RNG.uniform(size=(20, 3, 4))
    y = RNG.integers(2, size=(20, 4)).astype(float)
    prediction = MultiLabelPrediction(probs)
    scores = score_labels(prediction, y)
    mean = probs.mean(1)
    slow = np.mean([log_loss(y[:, i], mean[:, i], labels=[0, 1]) for i in range(4)])
    assert scores["nll"] == pytest.approx(slow)
    assert scores["accuracy"] == ((mean > 0.5) == y).mean()
    assert scores["exact_match"] == ((mean > 0.5) == y).all(1).mean()
    votes = probs > 0.5
    pairs = [(votes[:, i] != votes[:, j]).mean() for i in range(3) for j in range(i)]
    assert scores["disagreement"] == pytest.approx(np.mean(pairs))
    y[0] = np.nan
    y[1, 2] = np.nan
    assert score_labels(prediction, y)["exact_match"] == pytest.approx(
        np.mean([((mean[i] > 0.5) == y[i])[~np.isnan(y[i])].all() for i in range(1, 20)])
    )
    sure = MultiLabelPrediction(np.array([[[1.0, 0.0]]]))
    assert np.isfinite(score_labels(sure, [[0.0, 1.0]])["nll"])
    with pytest.raises(ValueError, match=r"0 or 1.*got 0\.5"):
        score_labels(sure, [[0.5, 1.0]])
    with pytest.raises(ValueError, match=r"shape \[1, 2\]"):
        score_labels(sure, [1.0])
    with pytest.raises(ValueError, match="at least one known label"):
        score_labels(sure, [[np.nan, np.nan]])
