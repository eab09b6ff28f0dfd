"""Detection of errors and of shifts: scikit-learn's measures, and what has none."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

import batchensemble as be
from batchensemble.decisions import Detection, detect_errors, detect_shift
from batchensemble.decisions.uncertainty_score import uncertainty_score

NAMES = ["total", "aleatoric", "epistemic", "confidence"]


def measures(values, sought):
    false_positives, true_positives, _ = roc_curve(~sought, -values, drop_intermediate=False)
    return {
        "auroc": roc_auc_score(sought, values),
        "aupr": average_precision_score(sought, values),
        "aupr_in": average_precision_score(~sought, -values),
        "fpr95": false_positives[np.flatnonzero(true_positives >= 0.95)[0]],
    }


@pytest.mark.parametrize("grid", [0, 7])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_measures_are_those_of_scikit_learn(share, grid):
    rng = np.random.default_rng(0)
    sought = rng.random(400) < share
    values = rng.normal(size=400) + sought
    values = np.round(values * grid) / grid if grid else values
    found = Detection.of(values, sought)
    for name, value in measures(values, sought).items():
        assert getattr(found, name) == pytest.approx(value, abs=1e-12), name
    assert (found.found, found.others) == (sought.sum(), 400 - sought.sum())
    false_alarms, hits, _ = roc_curve(sought, values, drop_intermediate=False)
    np.testing.assert_allclose(found.false_alarms, false_alarms, atol=1e-12)
    np.testing.assert_allclose(found.hits, hits, atol=1e-12)


def test_errors_are_found_by_each_uncertainty():
    rng = np.random.default_rng(1)
    prediction = be.Prediction(rng.dirichlet([0.5] * 3, (300, 4)))
    labels = (prediction.probs.cumsum(1) < rng.random((300, 1))).sum(1).clip(max=2)
    found = detect_errors(prediction, labels)
    assert list(found) == NAMES
    for name, each in found.items():
        assert each.by == name
        assert each.auroc == pytest.approx(
            roc_auc_score(prediction.labels != labels, uncertainty_score(prediction, name))
        )


def test_a_shift_is_found_where_members_differ():
    rng = np.random.default_rng(2)
    inside = be.Prediction(rng.dirichlet([50, 1, 1], (200, 4)))
    outside = be.Prediction(rng.dirichlet([0.1] * 3, (100, 4)))
    found = detect_shift(inside, outside, by="epistemic")
    assert list(found) == ["epistemic"]
    assert found == detect_shift(inside, outside, ["epistemic"])
    assert found["epistemic"].auroc > 0.99
    assert (found["epistemic"].found, found["epistemic"].others) == (100, 200)
    assert detect_shift(outside, inside)["epistemic"].auroc < 0.01


def test_perfect_useless_and_inverse_doubt():
    sought = np.repeat([False, True], 20)
    perfect = Detection.of(sought, sought)
    assert (perfect.auroc, perfect.aupr, perfect.aupr_in, perfect.fpr95) == (1, 1, 1, 0)
    useless = Detection.of(np.zeros(40), sought)
    assert (useless.auroc, useless.aupr, useless.aupr_in, useless.fpr95) == (0.5, 0.5, 0.5, 1)
    inverse = Detection.of(~sought, sought)
    assert (inverse.auroc, inverse.fpr95) == (0, 1)


@pytest.mark.parametrize(("right", "found", "others"), [(True, 0, 5), (False, 5, 0)])
def test_where_there_is_nothing_to_tell_apart_it_is_nan_with_a_reason(right, found, others):
    prediction = be.Prediction(np.tile([0.2, 0.8], (5, 1, 1)))
    for each in detect_errors(prediction, np.full(5, int(right))).values():
        assert np.isnan([each.auroc, each.aupr, each.aupr_in, each.fpr95]).all()
        assert each.reason == f"there are {found} positive and {others} negative examples"
        assert len(each.hits) == 0


def test_one_example_of_each_kind_is_enough():
    assert Detection.of([0.0, 1.0], [False, True]).auroc == 1


def test_wrong_calls_get_a_sentence():
    prediction = be.Prediction(np.tile([0.2, 0.8], (5, 1, 1)))
    none = be.Prediction(np.zeros((0, 1, 2)))
    with pytest.raises(ValueError, match="outside must have at least one example, got none"):
        detect_shift(prediction, none)
    with pytest.raises(ValueError, match="inside must have at least one example, got none"):
        detect_shift(none, prediction)
    with pytest.raises(ValueError, match="by must be one of total, aleatoric, epistemic, conf"):
        detect_errors(prediction, np.ones(5, int), ["variance"])
    with pytest.raises(ValueError, match="the uncertainty must be finite, got 1 of 2 that are not"):
        Detection.of([np.nan, 0], [True, False])
    with pytest.raises(ValueError, match=r"the uncertainty must have the shape \[2\]"):
        Detection.of([1, 2, 3], [True, False])
