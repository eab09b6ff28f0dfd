import numpy as np
import pandas as pd
import pytest

import batchensemble as be
from batchensemble.decisions import ConformalIntervals

pytestmark = pytest.mark.filterwarnings("ignore:columns that are left out")

QUICK = {"members": 3, "hidden": (32,), "epochs": 40, "lr": 5e-3, "random_state": 0}


def flats(rows=600, seed=0):
    """Return sizes and towns of flats, and their rents, which vary more where they are larger."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "size": rng.uniform(20, 200, rows),
            "town": rng.choice(["Bonn", "Ulm", None], rows),
            "balcony": pd.array(rng.choice([True, False, None], rows), dtype="boolean"),
        }
    )
    rate = np.where(frame["town"] == "Bonn", 12, 9)
    return frame, frame["size"].to_numpy() * (rate + rng.normal(0, 1, rows))


@pytest.fixture(scope="module")
def fitted():
    return be.BatchEnsembleRegressor(**QUICK).fit(*flats()), *flats(500, seed=1)


def test_a_table_with_words_and_gaps_is_learnt_in_the_unit_of_the_target(fitted):
    model, frame, y = fitted
    assert model.score(frame, y) > 0.9
    assert abs(model.predict(frame).mean() - y.mean()) < 30


def test_the_mean_is_that_of_the_members(fitted):
    model, frame, _ = fitted
    members = model.member_predict(frame)
    assert members.shape == (500, 3)
    np.testing.assert_allclose(model.predict(frame), members.mean(1), rtol=1e-12)


def test_intervals_are_conformal_on_the_kept_rows_and_cover(fitted):
    model, frame, y = fitted
    ends = model.predict_interval(frame, 0.8)
    kept = model.kept_
    by_hand = ConformalIntervals(confidence=0.8).fit(kept.prediction, kept.targets)
    found = by_hand(be.predict(model.model_, frame))
    np.testing.assert_array_equal(ends, np.stack([found.lower, found.upper], 1))
    assert 0.7 < ((ends[:, 0] <= y) & (y <= ends[:, 1])).mean() < 0.95
    assert np.corrcoef(ends[:, 1] - ends[:, 0], frame["size"])[0, 1] > 0.5


def test_quantiles_are_those_of_the_ensemble(fitted):
    model, frame, _ = fitted
    found = model.predict_quantiles(frame, (0.1, 0.5, 0.9))
    assert (np.diff(found, axis=1) > 0).all()
    np.testing.assert_allclose(found[:, 1], be.predict(model.model_, frame).quantile(0.5))


def test_decide_takes_a_tolerance(fitted):
    model, frame, y = fitted
    model.decide(risk=0.3, tolerance=400.0)
    answered = model.accepts(frame)
    assert answered.any()
    assert (np.abs(model.predict(frame) - y)[answered] > 400).mean() <= 0.3


def test_several_targets_are_predicted_together(tmp_path):
    frame, y = flats()
    both = np.stack([y, -2 * y + 100], 1)
    model = be.BatchEnsembleRegressor(**QUICK).fit(frame, both)
    assert model.predict(frame).shape == (600, 2)
    assert model.predict_interval(frame).shape == (600, 2, 2)
    assert model.score(frame, both) > 0.9
    model.save(tmp_path / "model")
    again = be.BatchEnsembleRegressor.load(tmp_path / "model")
    np.testing.assert_array_equal(again.predict_interval(frame), model.predict_interval(frame))


def test_examples_without_a_number_are_left_out():
    frame, y = flats(200)
    y[::10] = np.nan
    model = be.BatchEnsembleRegressor(**QUICK).fit(frame, y)
    assert model.history_.examples[0] == 180 - 18 - 18


def test_a_small_table_is_trained_without_stopping_rows():
    frame, y = flats(12)
    model = be.BatchEnsembleRegressor(**QUICK).fit(frame, y)
    assert model.history_.validation_nll == []
    with pytest.raises(ValueError, match="no rows were kept"):
        model.predict_interval(frame)


def test_fast_costs_a_share_of_the_examples_a_step():
    frame, y = flats(200)
    fast = be.BatchEnsembleRegressor(**QUICK, fast=True).fit(frame, y)
    assert fast.history_.plan["batches"] == "split"


@pytest.mark.parametrize("kind", ["polars", "arrow", "lists"])
def test_other_tables_give_the_same(fitted, kind):
    import polars as pl
    import pyarrow as pa

    model, frame, _ = fitted
    if kind == "polars":
        other = pl.from_pandas(frame)
    elif kind == "arrow":
        other = pa.Table.from_pandas(frame)
    else:
        numbers = flats(100)[0][["size"]].to_numpy()
        y = flats(100)[1]
        listed = be.BatchEnsembleRegressor(**QUICK).fit(numbers.tolist(), y)
        whole = be.BatchEnsembleRegressor(**QUICK).fit(numbers, y)
        np.testing.assert_array_equal(listed.predict(numbers), whole.predict(numbers))
        return
    np.testing.assert_allclose(model.predict(other), model.predict(frame), rtol=1e-6)
