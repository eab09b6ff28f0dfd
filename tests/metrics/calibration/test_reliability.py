"""Calibration errors are those of torchmetrics, of slow formulas, and right on odd predictions."""

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torchmetrics.classification import MulticlassCalibrationError

import batchensemble as be
from batchensemble.metrics import (
    brier_parts,
    classwise,
    ece_interval,
    reliability,
    score,
    smooth_ece,
    top_label_by_class,
)

FUNCTIONS = [reliability, classwise, top_label_by_class, smooth_ece, brier_parts, ece_interval]


def random_prediction(examples=300, members=4, classes=5, sharpness=2.0, seed=0):
    rng = np.random.default_rng(seed)
    logits = sharpness * rng.normal(size=(examples, members, classes))
    prediction = be.Prediction(torch.from_numpy(logits).softmax(-1).numpy())
    return prediction, rng.integers(classes, size=examples)


def calibrated_prediction(examples, seed, classes=2):
    """Return a prediction whose labels are drawn from it."""
    prediction, _ = random_prediction(examples, 1, classes, seed=seed)
    draws = np.random.default_rng(seed + 1000).random((examples, 1))
    return prediction, (draws > prediction.probs.cumsum(1)[:, :-1]).sum(1)


def single(*confidences):
    """Predict class 0 of two with these confidences, by one member."""
    return be.Prediction(np.array([[[c, 1 - c]] for c in confidences]))


def slow_error(probs, true, edges, power=1):
    """Go through the bins of one class."""
    total = 0.0
    for low, high in itertools.pairwise(edges):
        inside = (probs > low) & (probs <= high) | ((low == 0) & (probs == 0) & (high > 0))
        if inside.any():
            total += inside.mean() * abs(probs[inside].mean() - true[inside].mean()) ** power
    return total


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("sharpness", [0.3, 2.0, 20.0])
@pytest.mark.parametrize("bins", [1, 7, 15])
def test_errors_of_bins_of_equal_width_are_those_of_torchmetrics(classes, sharpness, bins):
    prediction, labels = random_prediction(classes=classes, sharpness=sharpness)
    found = reliability(prediction, labels, bins)
    # torchmetrics has a bin of its own for exactly 1.
    probs, truth = torch.from_numpy(prediction.probs).clip(max=1 - 1e-6), torch.from_numpy(labels)
    for norm, value in (("l1", found.ece), ("max", found.mce), ("l2", found.squared**0.5)):
        theirs = MulticlassCalibrationError(classes, n_bins=bins, norm=norm)(probs, truth)
        assert value == pytest.approx(theirs.item(), abs=3e-6)


@pytest.mark.parametrize("examples", [1, 2, 14, 15, 16, 301])
def test_bins_of_equal_mass_hold_equally_many(examples):
    prediction, labels = random_prediction(examples=examples)
    found = reliability(prediction, labels, binning="mass")
    assert len(found.counts) == min(examples, 15)
    assert found.counts.max() - found.counts.min() <= 1
    # The slow way: cut the sorted confidences into pieces.
    order = prediction.probs.max(1).argsort()
    ends = [-(-k * examples // 15) for k in range(16)]
    gaps = 0.0
    for start, end in itertools.pairwise(ends):
        own = order[start:end]
        gaps += abs((prediction.probs.max(1) - (prediction.labels == labels))[own].sum())
    assert found.ece == pytest.approx(gaps / examples)


def test_equal_confidences_are_in_one_bin_of_equal_mass():
    found = reliability(single(0.6, 0.6, 0.6, 0.6, 0.9), np.array([0, 0, 1, 0, 0]), binning="mass")
    assert found.counts.tolist() == [4, 1]
    assert found.edges.tolist() == [0, 0.6, 1]
    zeros = classwise(single(1.0, 1.0, 1.0, 0.7), np.array([0, 0, 0, 1]), 2, binning="mass")
    assert zeros.each[1] == pytest.approx(0.7 / 4)  # three sure ones, which are right, and one


def test_debiasing_takes_off_what_drawing_the_labels_anew_adds():
    prediction, labels = random_prediction(examples=400, classes=3)
    found = reliability(prediction, labels, 10)
    full = found.counts > 0
    shares = found.counts[full] / found.counts.sum()
    deviation = np.sqrt(found.accuracy * (1 - found.accuracy) / found.counts)[full]
    drawn = np.random.default_rng(0).normal(found.accuracy[full], deviation, (200_000, full.sum()))
    grown = (np.abs(drawn - found.confidence[full]) * shares).sum(1).mean()
    assert found.debiased_ece == pytest.approx(2 * found.ece - grown, abs=2e-4)
    assert found.debiased_ece < found.ece


def test_debiased_errors_of_calibrated_predictions_are_nearer_to_0():
    plain, debiased, squared, plain_squared = [], [], [], []
    for seed in range(100):
        found = reliability(*calibrated_prediction(200, seed))
        plain.append(found.ece)
        debiased.append(found.debiased_ece)
        plain_squared.append(found.squared)
        squared.append(found.debiased_squared)
    assert np.mean(debiased) < 0.75 * np.mean(plain)
    error = np.std(squared) / len(squared) ** 0.5
    assert abs(np.mean(squared)) < 4 * error + 0.1 * np.mean(plain_squared)


def test_the_squared_error_is_debiased_by_its_formula():
    found = reliability(*random_prediction(examples=500))
    expected = 0.0
    for count, accuracy, confidence in zip(
        found.counts, found.accuracy, found.confidence, strict=True
    ):
        if count > 1:
            noise = accuracy * (1 - accuracy) / (count - 1)
            expected += count / 500 * ((accuracy - confidence) ** 2 - noise)
        elif count == 1:
            expected += (accuracy - confidence) ** 2 / 500
    assert found.debiased_squared == pytest.approx(expected)


@pytest.mark.parametrize("binning", ["width", "mass"])
def test_the_errors_of_classes_are_those_of_going_through_their_bins(binning):
    prediction, labels = random_prediction()
    found = classwise(prediction, labels, 10, binning=binning)
    for number, each in enumerate(found.each):
        probs = prediction.probs[:, number]
        edges = np.linspace(0, 1, 11)
        if binning == "mass":
            edges = np.array([0, *np.sort(probs)[29:-1:30], 1])
        assert each == pytest.approx(slow_error(probs, labels == number, edges))
    assert found.ece == pytest.approx(found.each.mean())
    top = top_label_by_class(prediction, labels, 10, binning=binning)
    for number in range(5):
        chosen = prediction.labels == number
        alone = reliability(
            be.Prediction(prediction.member_probs[chosen]), labels[chosen], 10, binning=binning
        )
        assert top.each[number] == pytest.approx(alone.ece)
        assert top.counts[number] == chosen.sum()
    assert top.ece == pytest.approx((top.each * top.counts).sum() / 300)


def test_a_class_that_is_never_predicted_has_no_error_of_its_own():
    found = top_label_by_class(single(0.8, 0.7), np.array([0, 1]))
    assert found.counts.tolist() == [2, 0]
    assert np.isnan(found.each[1])
    assert found.ece == found.each[0]


def test_errors_that_cancel_over_classes_are_seen_class_by_class():
    probs = np.array([[0.8, 0.2]] * 10 + [[0.2, 0.8]] * 10)
    labels = np.array([0] * 10 + [1] * 6 + [0] * 4)  # right: 10 of 10 and 6 of 10
    prediction = be.Prediction(probs[:, None])
    assert reliability(prediction, labels).ece == pytest.approx(0)
    assert top_label_by_class(prediction, labels).each == pytest.approx([0.2, 0.2])


def slow_smooth(confidence, residual, width):
    """Add up the reflected kernels of all examples on a fine grid."""
    t = (np.arange(4000) + 0.5) / 4000
    total = np.zeros_like(t)
    for place, value in zip(confidence, residual, strict=True):
        for copy in range(-6, 7):
            for image in (2 * copy + place, 2 * copy - place):
                total += value * np.exp(-(((t - image) / width) ** 2) / 2)
    return np.abs(total).mean() / (width * np.sqrt(2 * np.pi)) / len(confidence)


@pytest.mark.parametrize(
    ("prediction", "labels"),
    [
        random_prediction(60, sharpness=0.5),
        random_prediction(60, sharpness=8.0, classes=2),
        calibrated_prediction(60, 3),
        (single(1.0, 1.0, 1.0, 0.55), np.array([0, 1, 0, 0])),
        (single(1.0), np.array([1])),
        (single(0.5, 0.5), np.array([0, 1])),
    ],
)
def test_the_smooth_error_is_the_fixed_point_of_the_slow_sum(prediction, labels):
    found = smooth_ece(prediction, labels)
    confidence = prediction.probs.max(1)
    residual = (prediction.labels == labels) - confidence
    assert found.ece == pytest.approx(found.bandwidth, abs=1e-6)
    if found.bandwidth > 1e-6:
        slow = slow_smooth(confidence, residual, found.bandwidth)
        assert found.ece == pytest.approx(slow, abs=1e-5)
    else:
        assert abs(residual.sum()) < 1e-12


def test_the_smooth_error_of_a_constant_gap_is_the_gap():
    labels = np.array([0] * 300 + [1] * 700)
    assert smooth_ece(single(*[0.8] * 1000), labels).ece == pytest.approx(0.5, abs=1e-6)
    assert smooth_ece(single(1.0, 1.0), np.array([0, 0])).ece == 0
    assert smooth_ece(single(1.0, 1.0), np.array([1, 1])).ece == pytest.approx(1)


def test_the_smooth_error_does_not_jump_where_bins_do():
    labels = np.array([0, 1])
    values, binned = zip(
        *(
            (smooth_ece(pair, labels).ece, reliability(pair, labels, 2).ece)
            for pair in (single(0.5 + 1e-9, 0.5 + 2e-9), single(0.5 - 0, 0.5 + 2e-9))
        ),
        strict=True,
    )
    assert abs(binned[0] - binned[1]) > 0.4
    assert abs(values[0] - values[1]) < 1e-4


@pytest.mark.parametrize("binning", ["width", "mass"])
@pytest.mark.parametrize("bins", [1, 15])
def test_the_parts_of_the_brier_score_add_up_to_it(bins, binning):
    prediction, labels = random_prediction()
    parts = brier_parts(prediction, labels, bins, binning=binning)
    assert parts.brier == pytest.approx(score(prediction, labels)["brier"], abs=1e-12)
    shares = np.bincount(labels) / len(labels)
    assert parts.uncertainty == pytest.approx(1 - (shares**2).sum())


def test_forecasts_of_few_values_leave_no_remainder():
    rng = np.random.default_rng(0)
    values = rng.choice([0.0, 0.2, 0.7, 1.0], size=500)
    labels = (rng.random(500) > values).astype(int)
    prediction = single(*values)
    parts = brier_parts(prediction, labels, 10)
    assert parts.remainder == pytest.approx(0, abs=1e-12)
    slow = {"reliability": 0.0, "resolution": 0.0}
    for value in np.unique(values):
        chosen = values == value
        share, often = chosen.mean(), (labels[chosen] == 0).mean()
        slow["reliability"] += 2 * share * (value - often) ** 2  # two classes, the same gap
        slow["resolution"] += 2 * share * (often - (labels == 0).mean()) ** 2
    assert parts.reliability == pytest.approx(slow["reliability"])
    assert parts.resolution == pytest.approx(slow["resolution"])


def slow_bootstrap(prediction, labels, resamples, level):
    """Draw the examples one by one."""
    rng = np.random.default_rng(1)
    value = reliability(prediction, labels).ece
    drawn = []
    for _ in range(resamples):
        chosen = rng.integers(len(labels), size=len(labels))
        part = be.Prediction(prediction.member_probs[chosen])
        drawn.append(reliability(part, labels[chosen]).ece)
    high, low = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return max(0, 2 * value - low), 2 * value - high


def test_the_interval_is_the_one_of_drawing_example_by_example():
    prediction, labels = random_prediction(examples=250, classes=3)
    found = ece_interval(prediction, labels, level=0.9, resamples=4000)
    low, high = slow_bootstrap(prediction, labels, 1500, 0.9)
    assert found.value == pytest.approx(reliability(prediction, labels).ece)
    width = high - low
    assert found.low == pytest.approx(low, abs=0.06 * width)
    assert found.high == pytest.approx(high, abs=0.06 * width)


def test_the_interval_is_of_its_seed_and_narrows_with_the_level():
    data = random_prediction(examples=250)
    assert ece_interval(*data) == ece_interval(*data)
    assert ece_interval(*data) != ece_interval(*data, seed=1)
    wide, narrow = ece_interval(*data, level=0.99), ece_interval(*data, level=0.5)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_the_interval_holds_the_true_gap_as_often_as_it_says():
    truth, held, draws = 0.15, 0, 200
    prediction = single(*np.full(300, 0.8))
    for seed in range(draws):
        labels = (np.random.default_rng(seed).random(300) > 0.8 - truth).astype(int)
        found = ece_interval(prediction, labels, level=0.9, resamples=400)
        held += found.low <= truth <= found.high
    assert binom.cdf(held, draws, 0.9) > 0.001


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    ("prediction", "labels"),
    [
        (single(1.0), np.array([0])),
        (single(1.0), np.array([1])),
        (single(0.0, 1.0, 0.5), np.array([0, 0, 1])),
        (single(*[0.5] * 9), np.array([0] * 9)),
        (be.Prediction(np.full((4, 3, 5), 0.2)), np.array([4, 4, 4, 4])),
        random_prediction(members=1, classes=2),
    ],
)
def test_odd_predictions_have_finite_errors(function, prediction, labels):
    found = function(prediction, labels)
    value = getattr(found, "ece", getattr(found, "value", getattr(found, "brier", None)))
    assert 0 <= value <= 2
    if function is brier_parts:
        assert value == pytest.approx(score(prediction, labels)["brier"], abs=1e-12)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_what_cannot_be_measured_is_refused(function):
    with pytest.raises(ValueError, match="at least one example to score, got none"):
        function(be.Prediction(np.zeros((0, 2, 3))), np.zeros(0, int))
    with pytest.raises(ValueError, match="labels must be from 0 to 1, got 0 to 2"):
        function(single(0.8, 0.7), np.array([0, 2]))


@pytest.mark.usefixtures("as_users_run_it")
def test_arguments_out_of_range_are_refused():
    data = random_prediction(examples=9)
    with pytest.raises(ValueError, match="bins must be at least 1, got 0"):
        reliability(*data, bins=0)
    with pytest.raises(ValueError, match="binning must be one of width, mass, got 'mas'"):
        classwise(*data, binning="mas")
    with pytest.raises(ValueError, match="level must be a number above 0 and below 1, got 1"):
        ece_interval(*data, level=1.0)
    with pytest.raises(ValueError, match="resamples must be at least 1, got 0"):
        ece_interval(*data, resamples=0)
