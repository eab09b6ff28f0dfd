"""Risk against coverage: the definition, ties in expectation, and the best order."""

import itertools

import numpy as np
import pytest

import batchensemble as be
from batchensemble.decisions import RiskCoverage, risk_coverage


def draw(seed, examples=300, classes=3):
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.full(classes, 0.5), (examples, 3))
    labels = (probs.mean(1).cumsum(1) < rng.random((examples, 1))).sum(1)
    return be.Prediction(probs), np.minimum(labels, classes - 1)


@pytest.mark.parametrize("by", ["total", "aleatoric", "epistemic", "confidence"])
def test_the_risk_is_that_of_the_slow_loop(by):
    prediction, labels = draw(0)
    values = 1 - prediction.probs.max(1) if by == "confidence" else getattr(prediction, by)
    order = sorted(range(300), key=lambda i: values[i])
    wrong = [prediction.labels[i] != labels[i] for i in order]
    curve = risk_coverage(prediction, labels, by)
    assert curve.by == by
    risks = [np.mean(wrong[:n]) for n in range(1, 301)]
    np.testing.assert_allclose(curve.risk, risks, atol=1e-12)
    assert curve.aurc == pytest.approx(np.mean(risks))
    assert curve.coverage[[0, -1]].tolist() == [1 / 300, 1.0]
    for share, answered in ((0.8, 240), (0.9, 270), (0.95, 285), (1.0, 300)):
        assert curve.accuracy_at(share) == pytest.approx(1 - np.mean(wrong[:answered]))


def test_ties_are_the_mean_over_all_their_orders():
    uncertainty, losses = [2, 1, 2, 3, 2, 1], np.array([1, 0, 0, 1, 0, 1])
    curves = [
        np.cumsum(losses[list(order)]) / np.arange(1, 7)
        for order in itertools.permutations(range(6))
        if [uncertainty[i] for i in order] == sorted(uncertainty)
    ]
    assert len(curves) == 2 * 6
    curve = RiskCoverage.of(uncertainty, losses)
    np.testing.assert_allclose(curve.risk, np.mean(curves, 0), atol=1e-12)
    assert curve.aurc == pytest.approx(np.mean(curves))


def test_the_best_order_has_no_excess_and_no_other_has_less():
    rng = np.random.default_rng(1)
    losses = rng.random(100)
    assert RiskCoverage.of(losses, losses).excess_aurc == 0
    best = RiskCoverage.of(losses, losses).aurc
    for _ in range(20):
        curve = RiskCoverage.of(rng.random(100), losses)
        assert curve.aurc == pytest.approx(best + curve.excess_aurc)
        assert curve.excess_aurc > 0


def test_the_excess_is_that_of_the_paper_for_many_examples():
    """Geifman et al. 2019: the best area is r + (1 - r) log(1 - r)."""
    losses = np.random.default_rng(2).random(20_000) < 0.2
    curve = RiskCoverage.of(np.zeros(20_000), losses)
    share = losses.mean()
    assert curve.aurc == pytest.approx(share)
    best = share + (1 - share) * np.log(1 - share)
    assert curve.excess_aurc == pytest.approx(share - best, abs=1e-4)


def test_equal_doubt_has_the_same_risk_at_every_coverage():
    prediction, labels = draw(3)
    curve = risk_coverage(prediction, labels, np.zeros(300))
    assert np.ptp(curve.risk) < 1e-12
    assert curve.accuracy_at(0.5) == pytest.approx(
        risk_coverage(prediction, labels).accuracy_at(1.0)
    )


def test_one_example_and_the_ends_of_coverage():
    curve = RiskCoverage.of([0.3], [1.0])
    assert (curve.aurc, curve.excess_aurc, curve.risk_at(0.0), curve.risk_at(1.0)) == (1, 0, 1, 1)
    assert RiskCoverage.of(np.arange(10), np.arange(10)).risk_at(0.7) == 3


def test_what_cannot_be_ranked_gets_a_sentence():
    prediction, labels = draw(4)
    with pytest.raises(ValueError, match="at least one example to rank, got none"):
        RiskCoverage.of([], [])
    with pytest.raises(ValueError, match="losses must be finite, got 1 of 2 that are not"):
        RiskCoverage.of([1, 2], [np.inf, 0])
    with pytest.raises(ValueError, match=r"uncertainty must have the shape \[2\]"):
        RiskCoverage.of([1], [0, 0])
    with pytest.raises(ValueError, match="at least one example to score, got none"):
        risk_coverage(be.Prediction(np.zeros((0, 2, 3))), [])
    with pytest.raises(ValueError, match=r"coverage must be a number from 0 to 1, got 1\.1"):
        risk_coverage(prediction, labels).risk_at(1.1)
