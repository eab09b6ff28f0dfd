"""Thresholds and risks of predicted numbers: the slow formula, the promise, what is refused."""

import warnings

import numpy as np
import pytest
from scipy.stats import binom, norm

import batchensemble as be
from batchensemble.decisions import RiskCoverage, detect_shift, risk_coverage, threshold_for
from batchensemble.predictions import Normals, Points, Quantiles

TOLERANCE = 1.0


def draw(rng, examples):
    """Numbers that two members predict, and targets with the noise that they say."""
    means = rng.normal(size=(examples, 2))
    deviations = rng.uniform(0.2, 2.0, (examples, 1)) * np.ones(2)
    targets = means.mean(1) + deviations[:, 0] * rng.normal(size=examples)
    return Normals(means, deviations), targets


@pytest.mark.parametrize("by", ["total", "aleatoric", "epistemic"])
@pytest.mark.parametrize("tolerance", [None, TOLERANCE])
def test_the_risk_is_that_of_the_slow_loop(by, tolerance):
    prediction, targets = draw(np.random.default_rng(0), 120)
    values = getattr(prediction, by)
    errors = [abs(float(prediction.mean[i]) - targets[i]) for i in range(120)]
    each = errors if tolerance is None else [float(error > tolerance) for error in errors]
    in_order = [each[i] for i in sorted(range(120), key=lambda i: values[i])]
    curve = risk_coverage(prediction, targets, by, tolerance=tolerance)
    assert curve.by == by
    np.testing.assert_allclose(curve.risk, [np.mean(in_order[:n]) for n in range(1, 121)])


def test_the_risk_of_all_is_the_mean_absolute_error():
    prediction, targets = draw(np.random.default_rng(1), 500)
    mae = be.metrics.score_numbers(prediction, targets)["mae"]
    assert risk_coverage(prediction, targets).risk_at(1.0) == pytest.approx(mae)


def test_a_threshold_is_that_of_the_errors_beyond_the_tolerance():
    """Numbers are off or not, and from there on it is the search that classes have."""
    prediction, targets = draw(np.random.default_rng(2), 3000)
    found = threshold_for(prediction, targets, 0.1, tolerance=TOLERANCE)
    off = np.abs(prediction.mean - targets) > TOLERANCE
    same = threshold_for(
        be.Prediction(np.tile([0.1, 0.9], (3000, 1, 1))), (~off).astype(int), 0.1,
        by=prediction.total,
    )  # fmt: skip
    for name in ("value", "coverage", "risk", "bound", "target", "confidence", "examples"):
        assert getattr(found, name) == getattr(same, name)
    accepted = found.accepts(prediction)
    assert 0.2 < accepted.mean() == found.coverage < 0.9
    assert off[accepted].mean() == pytest.approx(found.risk)
    assert "are off by more than 1, upper bound" in str(found)


def test_the_true_risk_is_kept_in_all_but_5_percent_of_draws():
    """Of deviations uniform from 0.2 to 2 the share that is off by more than 1 is an integral."""
    at = np.linspace(0.2, 2.0, 2001)
    of_each = 2 * norm.sf(TOLERANCE / at)
    below = of_each.cumsum() / np.arange(1, len(at) + 1)
    rng, draws, too_high, found = np.random.default_rng(3), 200, 0, 0
    for _ in range(draws):
        deviations = rng.uniform(0.2, 2.0, 1000)
        prediction = Normals(np.zeros((1000, 1)), deviations[:, None])
        targets = deviations * rng.normal(size=1000)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            threshold = threshold_for(prediction, targets, 0.1, tolerance=TOLERANCE)
        found += threshold.found
        true = np.interp(np.sqrt(min(threshold.value, 4.0)), at, below) if threshold.found else 0.0
        too_high += true > 0.1
    assert found > 0.9 * draws
    assert too_high <= binom(draws, 0.05).ppf(0.9995)


def test_a_doubt_that_tells_nothing_keeps_the_promise_too():
    """All examples are off with the same probability, just above what is asked."""
    rng, draws, examples = np.random.default_rng(8), 200, 600
    deviation = TOLERANCE / norm.isf(0.1002 / 2)
    prediction = Normals(np.zeros((examples, 1)), np.full((examples, 1), deviation))
    found = 0
    for _ in range(draws):
        targets, by = deviation * rng.normal(size=examples), rng.random(examples)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            threshold = threshold_for(prediction, targets, 0.1, by=by, tolerance=TOLERANCE)
        found += threshold.found  # any threshold at all has too many errors
    assert found <= binom(draws, 0.05).ppf(0.9995)


def test_more_tolerance_answers_more():
    prediction, targets = draw(np.random.default_rng(4), 3000)
    coverages = [
        threshold_for(prediction, targets, 0.1, tolerance=each).coverage for each in (0.8, 1.5, 9.0)
    ]
    assert coverages == sorted(coverages)
    assert coverages[0] < coverages[1] < coverages[2] == 1.0


def test_equal_doubt_is_all_or_nothing():
    prediction = Points(np.zeros((1000, 3)))
    targets = np.where(np.arange(1000) % 10 > 0, 0.0, 5.0)
    assert threshold_for(prediction, targets, 0.2, tolerance=TOLERANCE).value == np.inf
    with pytest.warns(UserWarning, match="no threshold on total meets it with 1000 examples"):
        threshold = threshold_for(prediction, targets, 0.1, tolerance=TOLERANCE)
    assert not threshold.accepts(prediction).any()
    assert np.ptp(risk_coverage(prediction, targets).risk) == pytest.approx(0, abs=1e-12)


def test_one_example_reaches_no_threshold():
    one = Points(np.array([[1.0, 2.0]]))
    with pytest.warns(UserWarning, match="give more examples or allow more errors"):
        assert not threshold_for(one, [1.5], tolerance=TOLERANCE).found
    assert risk_coverage(one, [2.0]).risk.tolist() == [0.5]


def test_what_is_off_by_the_tolerance_itself_is_right():
    prediction = Points(np.array([[0.0], [0.0]]))
    assert risk_coverage(prediction, [1.0, -1.25], tolerance=1.0).risk_at(1.0) == 0.5


def test_quantiles_and_numbers_of_ones_own_rank_too():
    rng = np.random.default_rng(5)
    widths = rng.uniform(0.1, 3, 2000)
    values = np.stack([-widths, 0 * widths, widths], 1)[:, None]
    prediction = Quantiles(values, (0.05, 0.5, 0.95))
    targets = widths / norm.ppf(0.95) * rng.normal(size=2000)
    named = threshold_for(prediction, targets, 0.1, tolerance=0.5)
    given = threshold_for(prediction, targets, 0.1, by=widths, tolerance=0.5)
    assert named.coverage == given.coverage > 0.1
    assert given.accepts(prediction, widths).mean() == given.coverage
    with pytest.raises(ValueError, match="give by= for these examples"):
        given.accepts(prediction)


def test_strangers_are_found_by_what_numbers_have():
    inside, _ = draw(np.random.default_rng(6), 200)
    outside = Normals(inside.means * 9, inside.deviations)
    found = detect_shift(inside, outside)
    assert list(found) == ["total", "aleatoric", "epistemic"]
    assert found["epistemic"].auroc > 0.8
    assert found["aleatoric"].auroc == 0.5


def test_what_does_not_fit_gets_a_sentence():
    prediction, targets = draw(np.random.default_rng(7), 10)
    with pytest.raises(ValueError, match=r"tolerance is missing: .* in the unit of the targets"):
        threshold_for(prediction, targets)
    for tolerance in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="tolerance must be a finite number above 0, got"):
            threshold_for(prediction, targets, tolerance=tolerance)
    with pytest.raises(ValueError, match="which predicted numbers do not have"):
        risk_coverage(prediction, targets, "confidence")
    with pytest.raises(ValueError, match=r"by must be one of total, .*; did you mean 'total'"):
        risk_coverage(prediction, targets, "totl")
    with pytest.raises(ValueError, match="targets must be finite, got 1 of 10 that are not"):
        risk_coverage(prediction, [np.nan, *targets[1:]])
    with pytest.raises(ValueError, match=r"targets must have the shape \[10\], .* got \[9\]"):
        threshold_for(prediction, targets[1:], tolerance=TOLERANCE)
    with pytest.raises(ValueError, match="the predicted numbers must be finite, got 1 of 10"):
        risk_coverage(Points(np.append(np.zeros(9), np.nan)[:, None]), targets)
    with pytest.raises(ValueError, match="at least one example to score, got none"):
        risk_coverage(Points(np.zeros((0, 2))), [])
    two_each = Points(np.zeros((10, 4, 2)))
    with pytest.raises(ValueError, match=r"one number for each example, got the shape \[10, 2\]"):
        threshold_for(two_each, np.zeros((10, 2)), tolerance=TOLERANCE)
    with pytest.raises(ValueError, match="use one target at a time"):
        risk_coverage(two_each, np.zeros((10, 2)))


@pytest.mark.parametrize("function", [threshold_for, risk_coverage])
def test_classes_have_no_tolerance(function):
    classes = be.Prediction(np.tile([0.1, 0.9], (10, 1, 1)))
    with pytest.raises(ValueError, match=r"not for classes; leave it out, got 1\.0"):
        function(classes, np.ones(10, int), tolerance=1.0)


def test_the_curve_of_any_loss_stays():
    assert RiskCoverage.of([1, 2], [0.5, 1.5]).risk.tolist() == [0.5, 1.0]
