"""How doubtful an example is, by name or by numbers of one's own, and the order that gives."""

import numpy as np
import pytest

import batchensemble as be
from batchensemble.decisions.uncertainty_score import sort_by_uncertainty, uncertainty_score

PREDICTION = be.Prediction(np.random.default_rng(0).dirichlet([1, 1, 1], (50, 4)))


@pytest.mark.parametrize("by", ["total", "aleatoric", "epistemic"])
def test_uncertainties_are_those_of_the_prediction(by):
    np.testing.assert_array_equal(uncertainty_score(PREDICTION, by), getattr(PREDICTION, by))


def test_less_confidence_is_more_doubt():
    assert uncertainty_score(PREDICTION, "confidence").argmax() == PREDICTION.probs.max(1).argmin()


def test_numbers_of_ones_own_are_taken_as_they_are():
    assert uncertainty_score(PREDICTION, list(range(50))).tolist() == list(range(50))


def test_wrong_names_and_numbers_get_a_sentence():
    with pytest.raises(ValueError, match=r"by must be one of total, .* did you mean 'epistemic'"):
        uncertainty_score(PREDICTION, "epistemik")
    with pytest.raises(ValueError, match=r"uncertainty must have the shape \[50\].* got \[3\]"):
        uncertainty_score(PREDICTION, [1, 2, 3])
    with pytest.raises(ValueError, match="uncertainty must be finite, got 1 of 50 that are not"):
        uncertainty_score(PREDICTION, np.append(np.zeros(49), np.nan))
    broken = PREDICTION.member_probs.copy()
    broken[:2] = np.nan
    with pytest.raises(ValueError, match="member_probs must be from 0 to 1, got nan"):
        uncertainty_score(be.Prediction(broken))


def test_a_ranking_counts_at_the_end_of_ties():
    rng = np.random.default_rng(1)
    values, losses = rng.integers(5, size=200) / 8, rng.random(200)
    found = sort_by_uncertainty(values, losses)
    for value, accepted, total in zip(found.uncertainty, found.accepted, found.losses, strict=True):
        assert accepted == (values <= value).sum()
        assert total == pytest.approx(losses[values <= value].sum())
    assert len(found.uncertainty) == 5
