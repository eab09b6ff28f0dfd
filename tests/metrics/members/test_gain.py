"""Shares of a gain are right, their intervals hold the truth, and no gain has no share."""

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import batchensemble as be
from batchensemble.metrics import losses_by_example, score, share_of_gain

LABELS = np.zeros(200, int)


def sure_of(truth):
    """Predict class 0 of two with these probabilities, by one member."""
    truth = np.asarray(truth, dtype=np.float64)
    return be.Prediction(np.stack([truth, 1 - truth], -1)[:, None])


def with_losses(losses):
    """Predict with these NLLs."""
    return sure_of(np.exp(-np.asarray(losses)))


def triple(examples=200, noise=0.05, deep=0.2, ours=0.1, seed=0):
    """Return predictions whose true gains over one network are these."""
    rng = np.random.default_rng(seed)
    base = rng.uniform(0.5, 1.0, examples)
    return tuple(
        with_losses(base - gain + noise * rng.normal(size=examples)) for gain in (0, ours, deep)
    )


@pytest.mark.parametrize("name", ["nll", "brier", "error"])
def test_losses_by_example_are_the_scores_parts(name):
    rng = np.random.default_rng(0)
    prediction = be.Prediction(rng.dirichlet(np.ones(4), size=(50, 3)))
    labels = rng.integers(4, size=50)
    scores = {**score(prediction, labels)}
    scores["error"] = 1 - scores["accuracy"]
    assert losses_by_example(prediction, labels, name).mean() == pytest.approx(scores[name])


def test_a_class_that_is_excluded_and_true_costs_much_and_no_infinity():
    assert 700 < losses_by_example(sure_of([0.0]), LABELS[:1])[0] < 710


def test_the_share_is_the_ratio_of_the_gains():
    single, ours, deep = triple()
    found = share_of_gain(single, ours, deep, LABELS)
    nll = [score(each, LABELS)["nll"] for each in (single, ours, deep)]
    assert found.gain == pytest.approx(nll[0] - nll[1])
    assert found.deep_gain == pytest.approx(nll[0] - nll[2])
    assert found.share == pytest.approx(found.gain / found.deep_gain)
    assert found.low < found.share < found.high
    assert found.deep_low < found.deep_gain < found.deep_high
    assert found.reason == ""


@pytest.mark.parametrize(("ours", "share"), [(0.0, 0.0), (1.0, 1.0)])
def test_one_network_is_0_and_the_deep_ensemble_1(ours, share):
    single, _, deep = triple()
    found = share_of_gain(single, deep if ours else single, deep, LABELS)
    assert found.share == found.low == found.high == share


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    hits = 0
    for seed in range(200):
        found = share_of_gain(
            *triple(noise=0.5, seed=seed), LABELS, level=0.9, resamples=200, seed=seed
        )
        hits += found.low <= 0.5 <= found.high
    assert 165 <= hits <= 194  # of 200; 180 are expected, and it is four standard deviations


def test_the_interval_is_paired():
    # The examples differ far more than the three predictions do on each of them.
    single, ours, deep = triple(noise=0.001)
    found = share_of_gain(single, ours, deep, LABELS)
    assert found.high - found.low < 0.01


def doubting(seed=0, examples=400, found=1.0):
    """Predict two classes by two members, who differ more where they are wrong."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, size=examples)
    wrong = rng.random(examples) < 0.2
    gap = np.clip(0.1 + found * 0.05 * wrong + 0.04 * rng.normal(size=examples), 0, 0.2).round(2)
    truth = np.where(wrong, 0.25, 0.75)[:, None] + np.stack([gap, -gap], 1)
    probs = np.where((labels == 0)[:, None], truth, 1 - truth)
    return be.Prediction(np.stack([probs, 1 - probs], -1)), labels, wrong


def test_what_examples_add_to_the_auroc_is_it_in_the_mean_and_varies_as_it_does():
    prediction, labels, wrong = doubting()
    added = 1 - losses_by_example(prediction, labels, "auroc")
    assert added.mean() == pytest.approx(roc_auc_score(wrong, prediction.epistemic))
    rng = np.random.default_rng(0)
    draws = [rng.integers(len(labels), size=len(labels)) for _ in range(500)]
    anew = [roc_auc_score(wrong[each], prediction.epistemic[each]) for each in draws]
    ours = [added[each].mean() for each in draws]
    assert np.std(ours) == pytest.approx(np.std(anew), rel=0.05)
    assert np.corrcoef(ours, anew)[0, 1] > 0.99


def test_one_network_finds_no_error_by_what_its_members_differ_in():
    prediction, labels, _ = doubting()
    single = be.Prediction(prediction.member_probs[:, :1])
    assert losses_by_example(single, labels, "auroc").mean() == pytest.approx(0.5)
    half, full = (doubting(found=found)[0] for found in (0.5, 1.0))
    found = share_of_gain(single, half, full, labels, "auroc")
    assert found.low < found.share < found.high
    assert found.deep_gain == pytest.approx(0.5 - losses_by_example(full, labels, "auroc").mean())
    assert 0.2 < found.share < 0.9


def test_without_errors_there_is_no_auroc_to_gain():
    prediction, labels, _ = doubting()
    right = be.Prediction(np.eye(2)[labels][:, None].repeat(2, 1))
    single = be.Prediction(prediction.member_probs[:, :1])
    found = share_of_gain(single, right, prediction, labels, "auroc")
    assert math.isnan(found.share)
    assert found.reason == "the AUROC is not defined if none or all of the predictions are wrong"


def test_without_a_gain_there_is_no_share_but_a_reason():
    single, ours, _ = triple()
    rng = np.random.default_rng(1)
    losses = losses_by_example(single, LABELS)
    noise = with_losses(losses + 0.2 * rng.normal(size=200))
    found = share_of_gain(single, ours, noise, LABELS)
    assert math.isnan(found.share)
    assert math.isnan(found.low)
    assert "not significant" in found.reason
    assert found.gain == pytest.approx(0.1, abs=0.02)
    worse = share_of_gain(single, ours, with_losses(losses + 0.1), LABELS)
    assert worse.reason.endswith("is significantly negative")
    assert math.isnan(worse.share)


def test_several_seeds_widen_the_interval_by_what_they_differ():
    alike = [triple(seed=seed) for seed in range(4)]
    apart = [triple(ours=ours, seed=seed) for seed, ours in enumerate((0.0, 0.05, 0.15, 0.2))]
    widths = []
    for runs in (alike, apart):
        single, ours, deep = zip(*runs, strict=True)
        found = share_of_gain(list(single), list(ours), list(deep), LABELS)
        assert found.share == pytest.approx(0.5, abs=0.03)
        widths.append(found.high - found.low)
    assert widths[1] > 3 * widths[0]


def test_a_seed_gives_the_same_interval():
    found = [share_of_gain(*triple(), LABELS, seed=seed).low for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"single": be.Prediction(np.full((200, 2, 2), 0.5))}, "one network, got 2 members"),
        ({"ours": []}, "ours must be at least one prediction, got none"),
        ({"ours": [sure_of(np.full(200, 0.5))] * 2}, "as many predictions, .* got 1, 2 and 1"),
        ({"deep": sure_of([0.5])}, r"labels must have the shape \[1\]"),
        ({"score": "nl"}, "did you mean 'nll'"),
        ({"level": 1.0}, "level must be a number above 0 and below 1, got 1"),
        ({"resamples": 0}, "resamples must be at least 1, got 0"),
    ],
)
def test_bad_arguments_are_refused(change, sentence, as_users_run_it):
    single, ours, deep = triple()
    options = {"single": single, "ours": ours, "deep": deep, "labels": LABELS, **change}
    with pytest.raises(ValueError, match=sentence):
        share_of_gain(**options)
