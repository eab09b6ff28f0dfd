"""The question is answered right for ensembles of which the answer is known."""

import math

import numpy as np
import pytest

import batchensemble as be
from batchensemble.metrics import disagreement, is_one_model

CLASSES, EXAMPLES = 3, 1500
RNG = np.random.default_rng(0)
LABELS = RNG.integers(CLASSES, size=EXAMPLES)


def ensemble(members=4, apart=1.0, seed=1, strength=2.0):
    """Return networks that share what is hard and, so far ``apart``, have noise of their own."""
    shared = np.random.default_rng(0).normal(size=(EXAMPLES, 1, CLASSES))
    own = np.random.default_rng(seed).normal(size=(EXAMPLES, members, CLASSES))
    logits = 1.5 * np.eye(CLASSES)[LABELS][:, None] + shared + apart * own
    probs = np.exp(strength * logits)
    return be.Prediction(probs / probs.sum(-1, keepdims=True))


SINGLE, DEEP = ensemble(members=1, seed=2), ensemble(seed=3)


@pytest.mark.parametrize("single", [None, SINGLE])
@pytest.mark.parametrize("deep", [None, DEEP])
def test_independent_networks_are_an_ensemble(single, deep):
    found = is_one_model(ensemble(), LABELS, single=single, deep=deep)
    assert found.answer == "ensemble"
    assert found.verdict.startswith("Ensemble: ")
    if deep is not None:
        assert found.low < 1 < found.high
        assert found.epistemic_share == pytest.approx(1, abs=0.1)
        assert found.compared_with == "deep ensemble"


@pytest.mark.parametrize("single", [None, SINGLE])
@pytest.mark.parametrize(("deep", "apart"), [(None, 0.0), (DEEP, 0.0), (DEEP, 0.02)])
def test_members_nearly_alike_are_one_model(single, deep, apart):
    found = is_one_model(ensemble(apart=apart), LABELS, single=single, deep=deep)
    assert found.answer == "one model"
    assert found.high < (0.01 if deep is None else 0.1)


def test_that_none_was_seen_is_no_proof_that_there_are_none():
    few = be.Prediction(ensemble(apart=0.0).member_probs[:300])
    errors = (few.labels != LABELS[:300]).sum()
    found = is_one_model(few, LABELS[:300])
    assert (found.difference, found.low) == (0, 0)
    assert found.high == pytest.approx(3 / errors)
    assert found.answer == "undecided"


def test_noisy_labels_alone_do_not_make_one_model():
    # Members that part on a twentieth of their errors; the others may all be the labels'..
    ours = ensemble(apart=0.025)
    found = is_one_model(ours, LABELS)
    assert 0.01 < found.low < found.high < 0.1
    assert found.answer == "undecided"
    assert "a deep ensemble would decide" in found.verdict


def test_one_network_is_one_model_by_its_number_of_members():
    found = is_one_model(SINGLE, LABELS)
    assert found.answer == "one model"
    assert "it has one member" in found.verdict


def test_the_figures_are_those_of_the_prediction():
    ours = ensemble(apart=0.5)
    found = is_one_model(ours, LABELS, deep=DEEP)
    assert found.disagreement == pytest.approx(disagreement(ours))
    assert found.difference == pytest.approx(disagreement(ours) / disagreement(DEEP))
    assert found.epistemic_share == pytest.approx(ours.epistemic.mean() / DEEP.epistemic.mean())
    rows = np.arange(EXAMPLES)
    alone = np.mean([-np.log(ours.member_probs[rows, m, LABELS]).mean() for m in range(4)])
    together = -np.log(ours.probs[rows, LABELS]).mean()
    assert found.averaging_gain == pytest.approx(alone - together)
    assert math.isnan(found.gain)
    assert found.share is None


def test_without_a_deep_ensemble_the_members_errors_are_the_measure():
    ours = ensemble()
    wrong = (ours.member_probs.argmax(-1) != LABELS[:, None]).mean()
    found = is_one_model(ours, LABELS)
    assert found.compared_with == "error rate"
    assert found.difference == pytest.approx(disagreement(ours) / wrong)
    assert math.isnan(found.epistemic_share)


def test_members_alike_that_beat_one_network_do_so_otherwise_than_by_averaging():
    better = ensemble(apart=0.0)
    found = is_one_model(better, LABELS, single=SINGLE)
    assert found.gain_low > 0
    assert found.answer == "one model"
    assert "but not by averaging" in found.verdict


def test_members_apart_that_gain_nothing_are_no_ensemble():
    worse = ensemble(apart=2.0, members=2)
    found = is_one_model(worse, LABELS, single=SINGLE)
    assert found.gain < 0
    assert found.answer == "undecided"
    assert "but its gain over one network is" in found.verdict
    found = is_one_model(worse, LABELS, single=SINGLE, deep=DEEP)
    assert found.answer == "one model"
    assert "of the deep ensemble's gain" in found.verdict


def test_a_difference_around_the_limit_is_undecided():
    found = is_one_model(ensemble(apart=0.08), LABELS, deep=DEEP)
    assert found.low < 0.1 < found.high
    assert found.answer == "undecided"
    assert "more examples would decide" in found.verdict


@pytest.mark.parametrize("deep", [None, DEEP])
@pytest.mark.parametrize("apart", [0.0, 1.0])
def test_too_few_examples_are_undecided(apart, deep):
    few = be.Prediction(ensemble(apart=apart).member_probs[:12])
    deep = deep if deep is None else be.Prediction(deep.member_probs[:12])
    found = is_one_model(few, LABELS[:12], deep=deep)
    assert found.answer == "undecided"
    assert "too few to tell" in found.verdict


def test_where_no_gain_is_to_be_had_the_difference_decides():
    # A network as good as the deep ensemble, with members as independent as its.
    ours = ensemble()
    found = is_one_model(ours, LABELS, single=be.Prediction(DEEP.probs[:, None]), deep=DEEP)
    assert found.answer == "ensemble"
    assert "not significant" in found.verdict


def test_where_nobody_errs_there_is_nothing_to_compare_with():
    found = is_one_model(
        be.Prediction(np.tile([[[0.9, 0.1]] * 3], (100, 1, 1))), np.zeros(100, int)
    )
    assert found.answer == "undecided"
    assert math.isnan(found.difference)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="single must be the prediction of one network, got 4"):
        is_one_model(DEEP, LABELS, single=DEEP)
    with pytest.raises(ValueError, match=r"deep must be .* at least 2 members, got 1"):
        is_one_model(DEEP, LABELS, deep=SINGLE)
    short = be.Prediction(DEEP.member_probs[:5])
    with pytest.raises(ValueError, match=r"labels must have the shape \[5\]"):
        is_one_model(DEEP, LABELS, deep=short)
