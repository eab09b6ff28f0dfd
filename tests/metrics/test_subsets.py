"""The score of some members, from one pass, is that of a prediction that has these members only."""

import dataclasses
import itertools

import numpy as np
import pytest

from batchensemble.core import chunks
from batchensemble.metrics import score
from batchensemble.metrics.subsets import SUBSET_SCORES, countable, only, subset_score
from batchensemble.predictions import (
    MultiLabelPrediction,
    Normals,
    Points,
    Prediction,
    Quantiles,
)

RNG = np.random.default_rng(0)
MEMBERS, EXAMPLES = 4, 50
VALUES = RNG.normal(size=(EXAMPLES, MEMBERS))
SEVERAL = RNG.normal(size=(EXAMPLES, MEMBERS, 2))
GAPS = RNG.normal(size=(EXAMPLES, 2))
GAPS[::3, 0] = np.nan
GAPS[20:30] = np.nan  # a batch in which nothing is known
LABELS = np.where(np.isnan(GAPS), np.nan, GAPS > 0)
LEVELS = (0.1, 0.5, 0.9)
PREDICTIONS = {
    "classes": (
        Prediction(RNG.dirichlet(np.ones(3), (EXAMPLES, MEMBERS))),
        RNG.integers(3, size=EXAMPLES),
    ),
    "labels": (MultiLabelPrediction(RNG.random((EXAMPLES, MEMBERS, 2))), LABELS),
    "normals": (Normals(VALUES, np.exp(VALUES[::-1])), RNG.normal(size=EXAMPLES)),
    "normals of two": (Normals(SEVERAL, np.exp(SEVERAL[::-1])), GAPS),
    "points": (Points(VALUES), RNG.normal(size=EXAMPLES)),
    "quantiles": (
        Quantiles(RNG.normal(size=(EXAMPLES, MEMBERS, 3)), LEVELS),
        RNG.normal(size=EXAMPLES),
    ),
    "quantiles of two": (Quantiles(RNG.normal(size=(EXAMPLES, MEMBERS, 3, 2)), LEVELS), GAPS),
}
ALL = [
    (name, each)
    for name, (prediction, _) in PREDICTIONS.items()
    for each in SUBSET_SCORES[type(prediction)]
]
SUBSETS = [each for k in range(1, 5) for each in itertools.combinations(range(MEMBERS), k)]


def rows_of(prediction, rows):
    """Return the prediction of some examples."""
    made = {}
    for name in (each.name for each in dataclasses.fields(prediction)):
        value = getattr(prediction, name)
        made[name] = value[rows] if isinstance(value, np.ndarray) else value
    return type(prediction)(**made)


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_every_subset_has_the_score_of_its_prediction(kind, name, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_SIZE", 30)  # blocks of a few rows
    prediction, targets = PREDICTIONS[kind]
    found, collector, finish = subset_score(prediction, name)
    for start in range(0, EXAMPLES, 10):
        rows = slice(start, start + 10)
        counted = countable(rows_of(prediction, rows), targets[rows], None)
        if counted is not None:
            collector.add(*counted)
    assert found == name
    assert collector.entries == np.count_nonzero(~np.isnan(targets))
    assert collector.finite.all()
    for members in SUBSETS:
        expected = score(only(prediction, members), targets)[name]
        assert finish(collector.of(members)) == pytest.approx(expected, rel=1e-9), members


def test_ignored_entries_do_not_count():
    prediction, labels = PREDICTIONS["classes"]
    labels = np.where(np.arange(EXAMPLES) % 2, labels, -1)
    kept, classes = countable(prediction, labels, -1)
    assert len(kept) == len(classes) == EXAMPLES // 2
    assert countable(prediction, np.full(EXAMPLES, -1), -1) is None


def test_a_member_whose_outputs_are_not_finite_leaves_others_their_scores():
    values = VALUES.copy()
    values[7, 2] = np.inf
    targets = PREDICTIONS["points"][1]
    for name in ("rmse", "mae", "crps"):
        _, collector, finish = subset_score(Points(values), name)
        collector.add(Points(values), targets)
        assert collector.finite.tolist() == [True, True, False, True]
        expected = score(Points(VALUES[:, [0, 3]]), targets)[name]
        assert finish(collector.of([0, 3])) == pytest.approx(expected)


def test_predictions_of_another_kind_get_a_sentence():
    class Words(Points):
        pass

    with pytest.raises(TypeError, match="no score of some members of a Words"):
        subset_score(Words(VALUES))
