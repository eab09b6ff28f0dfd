"""The estimators inside and beside other packages: scikit-learn, MAPIE, crepes, polars."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from crepes import WrapClassifier, WrapRegressor
from crepes.extras import DifficultyEstimator
from mapie.classification import CrossConformalClassifier, SplitConformalClassifier
from mapie.regression import CrossConformalRegressor, SplitConformalRegressor
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import batchensemble as be

QUICK = {"members": 2, "hidden": (32,), "epochs": 20, "lr": 1e-2, "random_state": 0}
# MAPIE tries a fitted model on an array of zeros, and scikit-learn says that it has no names.
TRIED_ON_ZEROS = pytest.mark.filterwarnings("ignore:X does not have valid feature names")
classifier = be.BatchEnsembleClassifier(**QUICK)
regressor = be.BatchEnsembleRegressor(**QUICK)


def people(rows=300, seed=0):
    """Return a table with words and gaps, and the class of each row."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": np.where(rng.random(rows) < 0.1, np.nan, rng.normal(40, 10, rows)),
            "job": rng.choice(["cook", "smith", None], rows),
            "member": rng.random(rows) < 0.5,
        }
    )
    high = (frame["age"].fillna(50) > 40) ^ (frame["job"] == "cook")
    return frame, np.where(high, "yes", "no")


def flats(rows=400, seed=0):
    """Return sizes and towns of flats, and their rents, which vary more where they are larger."""
    rng = np.random.default_rng(seed)
    size, town = rng.uniform(20, 200, rows), rng.choice(["Bonn", "Ulm", None], rows)
    rent = size * (np.where(town == "Bonn", 12, 9) + rng.normal(0, 1, rows))
    return pd.DataFrame({"size": size, "town": town}), rent


def inside(intervals, y):
    """Return the share of intervals ``[rows, 2]`` that contain their number."""
    return np.mean((intervals[:, 0] <= y) & (y <= intervals[:, 1]))


@pytest.fixture(scope="module")
def classes():
    return clone(classifier).fit(*people()), *people(200, seed=1)


@pytest.fixture(scope="module")
def numbers():
    return clone(regressor).fit(*flats()), *flats(200, seed=1)


@pytest.mark.parametrize("output", ["default", "pandas", "polars"])
def test_a_column_transformer_may_stand_before_it(output):
    before = make_column_transformer(
        (SimpleImputer(), ["age"]),
        (OneHotEncoder(sparse_output=False), ["job"]),
        remainder="passthrough",
        verbose_feature_names_out=False,
    ).set_output(transform=output)
    pipeline = make_pipeline(before, clone(classifier)).fit(*people())
    frame, y = people(200, seed=1)
    assert pipeline.score(frame, y) > 0.85
    if output != "default":
        names = ["age", "job_cook", "job_smith", "job_nan", "member"]
        assert pipeline[-1].feature_names_in_.tolist() == names


def test_words_pass_through_a_pipeline_of_frames():
    before = make_column_transformer((StandardScaler(), ["size"]), remainder="passthrough")
    pipeline = make_pipeline(before, clone(regressor)).set_output(transform="pandas")
    frame, rent = flats()
    assert pipeline.fit(frame, rent).score(*flats(200, seed=1)) > 0.8
    kinds = {each.name: each.kind for each in pipeline[-1].encoding_.used}
    assert kinds == {"standardscaler__size": "number", "remainder__town": "category"}
    logs = TransformedTargetRegressor(clone(regressor), func=np.log, inverse_func=np.exp)
    assert logs.fit(frame, rent).score(*flats(200, seed=1)) > 0.8


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
def test_calibrators_take_it_before_and_after_its_training(classes, method):
    model, frame, y = classes
    before = CalibratedClassifierCV(clone(classifier), method=method, cv=2).fit(*people())
    assert before.score(frame, y) > 0.8
    after = CalibratedClassifierCV(FrozenEstimator(model), method=method).fit(frame, y)
    assert after.classes_.tolist() == ["no", "yes"]
    np.testing.assert_allclose(after.predict_proba(frame).sum(1), 1)


def test_probabilities_of_cross_validation_are_of_models_that_did_not_see_the_row():
    frame, y = people()
    found = cross_val_predict(clone(classifier), frame, y, cv=3, method="predict_proba")
    assert found.shape == (300, 2)
    assert log_loss(y, found) < 0.5
    rents = cross_val_predict(clone(regressor), *flats(), cv=3)
    assert np.corrcoef(rents, flats()[1])[0, 1] > 0.9


def test_a_search_tries_the_parameters_of_the_recipe():
    grid = {"hidden": [(8,), (32, 32)], "method": ["batch", "deep"], "fast": [True]}
    frame, y = people(200)
    search = GridSearchCV(clone(classifier), grid, cv=2, scoring="neg_log_loss").fit(frame, y)
    best = search.best_estimator_
    assert search.best_params_["hidden"] in grid["hidden"]
    assert best.recipe.hidden == search.best_params_["hidden"]
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@pytest.mark.parametrize("estimator", [classifier, regressor])
def test_a_clone_of_a_fitted_model_is_unfitted_and_learns_the_same(estimator):
    data = people() if estimator is classifier else flats()
    fitted = clone(estimator).fit(*data)
    again = clone(fitted)
    assert again.get_params() == fitted.get_params()
    assert not [name for name in vars(again) if name.endswith("_")]
    np.testing.assert_array_equal(again.fit(*data).predict(data[0]), fitted.predict(data[0]))


def test_frames_and_series_of_polars_are_taken(classes):
    model, frame, _ = classes
    known, y = people()
    polars = clone(classifier).fit(pl.from_pandas(known), pl.Series(y.tolist()))
    assert polars.feature_names_in_.tolist() == ["age", "job", "member"]
    new = pl.from_pandas(frame)
    np.testing.assert_allclose(polars.predict_proba(new), model.predict_proba(frame), atol=1e-6)
    rents = cross_val_predict(
        clone(regressor), pl.from_pandas(flats()[0]), pl.Series(flats()[1]), cv=2
    )
    assert rents.shape == (400,)


def test_a_lazy_frame_is_told_how_to_become_a_frame():
    frame, y = people(50)
    with pytest.raises(TypeError, match=r"LazyFrame .* give frame.collect\(\)"):
        clone(classifier).fit(pl.from_pandas(frame).lazy(), y)


@pytest.mark.parametrize("kind", ["bool", "boolean", "bool[pyarrow]"])
def test_truth_values_stay_truth_values(kind):
    frame, y = people(200)
    labels = pd.Series(y == "yes").astype(kind)
    model = clone(classifier).fit(frame, labels)
    assert model.classes_.tolist() == [False, True]
    assert model.predict(frame).dtype == bool
    if kind != "bool":
        labels[3] = pd.NA
        assert clone(classifier).fit(frame, labels).classes_.tolist() == [False, True]


def test_an_array_is_taken_in_the_order_of_the_names(numbers):
    model, frame, _ = numbers
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        found = model.predict(frame.to_numpy())
    np.testing.assert_array_equal(found, model.predict(frame))


@TRIED_ON_ZEROS
def test_mapie_makes_sets(classes):
    model, frame, y = classes
    new, truth = people(300, seed=2)
    split = SplitConformalClassifier(model, 0.9, prefit=True).conformalize(frame, y)
    cross = CrossConformalClassifier(clone(classifier), 0.9, cv=2).fit_conformalize(*people())
    for theirs in (split, cross):
        labels, sets = theirs.predict_set(new)
        assert set(labels) == {"no", "yes"}
        assert sets[np.arange(300), (truth == "yes").astype(int), 0].mean() > 0.83


@TRIED_ON_ZEROS
def test_mapie_makes_intervals(numbers):
    model, frame, rent = numbers
    new, truth = flats(300, seed=2)
    split = SplitConformalRegressor(model, 0.9, prefit=True).conformalize(frame, rent)
    cross = CrossConformalRegressor(clone(regressor), 0.9, cv=2).fit_conformalize(*flats())
    for theirs in (split, cross):
        means, intervals = theirs.predict_interval(new)
        assert np.corrcoef(means, truth)[0, 1] > 0.9
        assert inside(intervals[:, :, 0], truth) > 0.83


def test_crepes_makes_sets(classes):
    model, frame, y = classes
    new, truth = people(300, seed=2)
    theirs = WrapClassifier(model)
    theirs.calibrate(frame, y, class_cond=True)
    sets = theirs.predict_set(new, confidence=0.9, labels=False, seed=0)
    assert sets[np.arange(300), (truth == "yes").astype(int)].mean() > 0.83
    trained = WrapClassifier(clone(classifier))
    trained.fit(*people())
    np.testing.assert_array_equal(trained.predict_proba(new), model.predict_proba(new))


def test_crepes_makes_intervals_that_are_wide_where_our_uncertainty_is_large(numbers):
    model, frame, rent = numbers
    new, truth = flats(300, seed=2)

    def spread(X):
        return np.sqrt(model.predict_uncertainty(X)["total"].to_numpy())

    theirs = WrapRegressor(model)
    theirs.calibrate(frame, rent, de=DifficultyEstimator().fit(X=frame, f=spread))
    found = theirs.predict_int(new, confidence=0.9)
    assert inside(found, truth) > 0.83
    assert np.corrcoef(np.ptp(found, axis=1), spread(new))[0, 1] > 0.95
    systems = WrapRegressor(model)
    systems.calibrate(frame, rent, cps=True)
    assert systems.predict_int(new, confidence=0.9).shape == (300, 2)
