"""Tables as they should not be: each works, or gets a sentence before training."""

import warnings

import numpy as np
import pytest

import batchensemble as be
from hostile_tables import HOSTILE_PREDICTION, HOSTILE_TRAINING, TARGET, good_table

pytestmark = pytest.mark.filterwarnings("ignore:columns that are left out")

QUICK = {"members": 2, "hidden": (16,), "epochs": 2, "random_state": 0}
FRAMES = [
    table
    for table in HOSTILE_TRAINING
    # Without the column there is nothing to give as y.
    if table.frame() is not None and TARGET in table.frame()
]
NEW_FRAMES = [table for table in HOSTILE_PREDICTION if table.frame() is not None]


@pytest.fixture(scope="module")
def model():
    table = good_table()
    return be.BatchEnsembleClassifier(**QUICK).fit(table.drop(columns=TARGET), table[TARGET])


def outcome(action):
    """Return ``"works"`` or ``"sentence"``, and what was said."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            action()
        except (ValueError, TypeError) as error:
            return "sentence", str(error)
    return "works", " ".join(str(each.message) for each in caught)


@pytest.mark.parametrize("table", FRAMES, ids=str)
def test_training_works_or_gets_a_sentence(table):
    frame = table.frame()

    def train():
        X = frame.drop(columns=TARGET, errors="ignore")
        y = frame[TARGET]
        if getattr(y, "dtype", None) == np.float64 and not (y.dropna() % 1 == 0).all():
            assert np.isfinite(be.BatchEnsembleRegressor(**QUICK).fit(X, y).predict(X)).all()
            return
        found = be.BatchEnsembleClassifier(**QUICK).fit(X, y)
        assert np.isfinite(found.predict_proba(X)).all()

    found, said = outcome(train)
    # A fold of a cross-validation may have one number only, which is then predicted.
    expected = "works" if table.name == "one number as target" else table.expected
    assert found == expected, said
    if found == "sentence":
        assert "\n" not in said.strip() or len(said) < 600
        assert said


@pytest.mark.parametrize("table", NEW_FRAMES, ids=str)
def test_prediction_works_or_gets_a_sentence(model, table):
    frame = table.frame()
    found, said = outcome(lambda: model.predict_proba(frame))
    assert found == table.expected, said
    assert table.says.lower() in said.lower()
