"""What the examples add up to is the score, as the scores count it."""

import numpy as np
import pytest

from batchensemble.metrics import score
from batchensemble.metrics.bootstrap import difference
from batchensemble.metrics.by_example import CLASS_SCORES, NUMBERS, contributions
from batchensemble.predictions import Normals, Points, Prediction

RNG = np.random.default_rng(0)
LABELS = RNG.integers(3, size=200)
PROBS = [Prediction(RNG.dirichlet(np.ones(3), size=(200, 4))) for _ in range(2)]
TARGETS = RNG.normal(size=200)
NORMALS = [Normals(RNG.normal(size=(200, 4)), 1 + RNG.random((200, 4))) for _ in range(2)]


@pytest.mark.parametrize("key", CLASS_SCORES)
def test_the_examples_add_up_to_the_scores_of_classes(key):
    found = contributions(key, PROBS, LABELS)
    assert found.score == pytest.approx(np.mean([score(p, LABELS)[key] for p in PROBS]))


@pytest.mark.parametrize("key", NUMBERS)
def test_the_examples_add_up_to_the_scores_of_numbers(key):
    found = contributions(key, NORMALS, TARGETS)
    assert found.score == pytest.approx(np.mean([score(p, TARGETS)[key] for p in NORMALS]))


def test_several_targets_of_an_example_are_drawn_together():
    targets = RNG.normal(size=(50, 2))
    prediction = Normals(RNG.normal(size=(50, 4, 2)), np.ones((50, 4, 2)))
    found = contributions("rmse", [prediction], targets)
    assert found.parts.shape == (1, 50, 1)
    assert found.score == pytest.approx(score(prediction, targets)["rmse"])


def test_what_is_no_sum_over_the_examples_is_none():
    assert contributions("disagreement", PROBS, LABELS) is None
    assert contributions("accuracy", NORMALS, TARGETS) is None
    assert contributions("nll", [Points(RNG.normal(size=(200, 4)))], TARGETS) is None
    assert contributions("rmse", NORMALS, np.full(200, np.nan)) is None
    assert contributions("rmse", [PROBS[0], NORMALS[0]], TARGETS) is None


def test_a_calibration_error_has_an_interval():
    labels = (RNG.random(2000) < 0.8).astype(int)
    modest, boastful = (
        Prediction(np.tile([[1 - p, p]], (2000, 1, 1)).reshape(2000, 1, 2)) for p in (0.75, 0.97)
    )
    pair = [contributions("ece", [each], labels) for each in (boastful, modest)]
    found = difference(*pair)
    assert 0.07 < found.low < found.estimate < found.high < 0.17
