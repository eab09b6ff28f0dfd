import numpy as np
import pandas as pd

import batchensemble as be
from batchensemble.metrics.encoded_columns import column_dependence
from batchensemble.metrics.importance import column_importance

QUICK = {"members": 2, "hidden": (16,), "epochs": 30, "lr": 1e-2, "random_state": 0}


def people(rows=300):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "age": rng.normal(40, 10, rows),
            "job": rng.choice(["cook", "smith"], rows),
            "noise": rng.normal(size=rows),
        }
    )
    return frame, np.where((frame["age"] > 40) ^ (frame["job"] == "cook"), "yes", "no")


def test_importance_on_encoded_rows_is_that_on_the_table():
    frame, y = people()
    model = be.BatchEnsembleClassifier(**QUICK).fit(frame, y)
    labels = np.searchsorted(model.classes_, y)
    inputs = model.encoding_.encode_table(_table(frame), "X")
    found = column_dependence(model.model_, model.encoding_, inputs, labels, ("no", "yes"))
    by_table = column_importance(model, frame, y, repeats=3, seed=0)
    assert found.importance.names == by_table.names
    np.testing.assert_allclose(found.importance.ensemble, by_table.ensemble, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.importance.members, by_table.members, rtol=1e-4, atol=1e-6)


def test_effects_are_mean_predictions_with_one_value_in_a_column():
    frame, y = people()
    model = be.BatchEnsembleClassifier(**QUICK).fit(frame, y)
    labels = np.searchsorted(model.classes_, y)
    inputs = model.encoding_.encode_table(_table(frame), "X")
    found = column_dependence(model.model_, model.encoding_, inputs, labels, ("no", "yes"))
    effect = next(each for each in found.effects if each.name == "job")
    assert sorted(effect.values) == ["cook", "smith"]
    for job, mean in zip(effect.values, effect.ensemble, strict=True):
        by_hand = model.predict_proba(frame.assign(job=job))[:, 1].mean()
        np.testing.assert_allclose(mean, by_hand, rtol=1e-5)
    np.testing.assert_allclose(effect.members.mean(1), effect.ensemble)


def test_the_effect_of_a_column_with_gaps_is_on_its_numbers():
    frame, y = people()
    frame.loc[::5, "age"] = np.nan
    model = be.BatchEnsembleClassifier(**QUICK).fit(frame, y)
    labels = np.searchsorted(model.classes_, y)
    inputs = model.encoding_.encode_table(_table(frame), "X")
    found = column_dependence(model.model_, model.encoding_, inputs, labels, ("no", "yes"))
    effect = next(each for each in found.effects if each.name == "age")
    assert effect.values.dtype == np.float64
    assert (np.diff(effect.values) > 0).all()


def test_numbers_have_effects_in_their_unit():
    frame, _ = people()
    y = 3 * frame["age"].to_numpy() + 10 * frame["noise"].to_numpy() + 100
    model = be.BatchEnsembleRegressor(**QUICK).fit(frame, y)
    inputs = model.encoding_.encode_table(_table(frame), "X")
    found = column_dependence(model.model_, model.encoding_, inputs, y)
    assert found.effects[0].name == "age"
    assert found.effects[0].of is None
    assert np.corrcoef(found.effects[0].values, found.effects[0].ensemble)[0, 1] > 0.9


def _table(frame):
    from batchensemble.data.tables.columns import as_table

    return as_table(frame)
