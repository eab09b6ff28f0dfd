"""Importance and effect of columns: by the slow loop, and for estimators made elsewhere."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.inspection import partial_dependence
from sklearn.linear_model import LinearRegression
from torch import nn

import batchensemble as be

RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(RNG.normal(size=(300, 3)), columns=["a", "b", "noise"]).astype("float32")
WORDS = np.where(FRAME["a"] + 0.3 * FRAME["b"] > 0, "yes", "no")


@pytest.fixture(scope="module")
def classifier():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 2))
    model = be.BatchEnsemble(net, members=3)
    be.fit(model, FRAME.assign(ill=WORDS), target="ill", epochs=15, lr=0.03, seed=0)
    return model


class Named:
    """An estimator of others, of a table with words in it."""

    classes_ = np.array(["no", "yes"])

    def member_proba(self, X):
        kind = (X["kind"] == "x").to_numpy(float)
        p = np.stack([0.2 + 0.5 * kind + 0.1 * m * np.tanh(X["a"].to_numpy()) for m in (0, 1)], 1)
        return np.stack([1 - p, p], 2)


class Numbers:
    """Two lines with slopes of 1 and 3 in ``a``."""

    def member_predict(self, X):
        return X["a"].to_numpy()[:, None] * [1.0, 3.0]


def test_the_columns_that_matter_come_first(classifier):
    found = be.column_importance(classifier, FRAME, WORDS, repeats=3)
    frame = found.to_pandas()
    assert list(frame.index) == ["a", "b", "noise"]
    assert found.score == "nll"
    scores = be.evaluate(classifier, FRAME.assign(ill=WORDS), target="ill")
    assert found.baseline == pytest.approx(scores["nll"], rel=1e-5)
    assert found.ensemble.shape == (3, 3)
    assert found.members.shape == (3, 3)
    assert (frame["members_low"] <= frame["members_high"]).all()
    again = be.column_importance(classifier, FRAME, (WORDS == "yes").astype(int), repeats=3)
    np.testing.assert_array_equal(again.ensemble, found.ensemble)


def test_importance_is_that_of_the_slow_loop(classifier):
    found = be.column_importance(classifier, FRAME, WORDS, repeats=40, seed=1)
    labels = (WORDS == "yes").astype(int)
    generator, loop = np.random.default_rng(5), []
    for _ in range(40):
        shuffled = FRAME.assign(a=generator.permutation(FRAME["a"]))
        probs = be.predict(classifier, shuffled).member_probs
        loop.append(-np.log(probs[np.arange(300), :, labels]).mean(0))
    plain = be.predict(classifier, FRAME).member_probs
    before = -np.log(plain[np.arange(300), :, labels]).mean(0)
    np.testing.assert_allclose(found.members[0], np.mean(loop, 0) - before, rtol=0.1)


def test_an_estimator_needs_its_members_only():
    frame = pd.DataFrame({"a": RNG.normal(size=200), "kind": RNG.choice(["x", "y", "z"], 200)})
    y = np.where(RNG.random(200) < Named().member_proba(frame).mean(1)[:, 1], "yes", "no")
    found = be.column_importance(Named(), frame, y)
    assert list(found.to_pandas().index) == ["kind", "a"]
    assert found.members[0, 0] == 0  # the first member does not use it
    effect = be.column_effect(Named(), frame, "kind", of="yes")
    assert effect.to_pandas()["ensemble"].idxmax() == "x"
    assert sorted(effect.values) == ["x", "y", "z"]
    with pytest.raises(ValueError, match="there is no class 'maybe'; there are 'no', 'yes'"):
        be.column_effect(Named(), frame, "kind", of="maybe")
    with pytest.raises(ValueError, match="y has the class 'maybe'; the model knows 'no', 'yes'"):
        be.column_importance(Named(), frame, ["maybe"] * 200)


def test_the_members_of_a_regression_have_their_spread():
    frame = pd.DataFrame({"a": RNG.normal(size=500), "b": RNG.normal(size=500)})
    y = 2 * frame["a"]
    found = be.column_importance(Numbers(), frame, y)
    assert (found.score, found.baseline) == ("rmse", 0)
    assert found.ensemble[1].tolist() == [0] * 5
    effect = be.column_effect(Numbers(), frame, "a", points=7)
    assert effect.of is None
    np.testing.assert_allclose(effect.members, effect.values[:, None] * [1, 3])
    np.testing.assert_allclose(effect.ensemble, 2 * effect.values)


def test_an_effect_is_that_of_scikit_learn():
    frame = pd.DataFrame({"a": RNG.normal(size=200), "b": RNG.normal(size=200)})
    line = LinearRegression().fit(frame, 3 * frame["a"] - frame["b"])

    class One:
        def member_predict(self, X):
            return line.predict(X)[:, None]

    effect = be.column_effect(One(), frame, "b", points=6)
    grid = {1: effect.values}
    theirs = partial_dependence(line, frame, ["b"], custom_values={"b": effect.values})
    assert len(grid[1]) == 6
    np.testing.assert_allclose(effect.ensemble, theirs["average"][0])


def test_arrays_and_polars_frames_are_taken(classifier):
    polars = pytest.importorskip("polars")
    found = be.column_importance(classifier, polars.from_pandas(FRAME), WORDS)
    assert found.to_pandas().index[0] == "a"
    effect = be.column_effect(classifier, FRAME, "a", of="yes", points=5)
    assert np.all(np.diff(effect.ensemble) > 0)
    with pytest.raises(ValueError, match="there is no column 'c'; there are 'a', 'b', 'noise'"):
        be.column_effect(classifier, FRAME, "c")
    with pytest.raises(ValueError, match="one value for each of the 300 rows, got 2"):
        be.column_importance(classifier, FRAME, ["no", "yes"])
