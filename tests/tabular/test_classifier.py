import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import NotFittedError
from sklearn.inspection import permutation_importance
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import batchensemble as be
from batchensemble.data.tables.columns import TableWarning
from batchensemble.decisions import ConformalSets

pytestmark = pytest.mark.filterwarnings("ignore:columns that are left out")

QUICK = {"members": 3, "hidden": (32,), "epochs": 30, "lr": 5e-3, "random_state": 0}


def people(rows=400, seed=0):
    """Return a table with words, gaps, dates, truth values and ids, and the class of each row."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "id": [f"p{number}" for number in range(rows)],
            "age": np.where(rng.random(rows) < 0.1, np.nan, rng.normal(40, 10, rows)),
            "job": rng.choice(["cook", "smith", None], rows),
            "member": rng.random(rows) < 0.5,
            "since": pd.date_range("2020-01-01", periods=rows, freq="9h"),
        }
    )
    high = (frame["age"].fillna(50) > 40) ^ (frame["job"] == "cook")
    return frame, np.where(high, "yes", "no").astype(object)


@pytest.fixture(scope="module")
def fitted():
    frame, y = people()
    return be.BatchEnsembleClassifier(**QUICK).fit(frame, y), *people(300, seed=1)


def test_a_table_with_words_gaps_and_dates_is_learnt(fitted):
    model, frame, y = fitted
    assert model.score(frame, y) > 0.9
    assert model.classes_.tolist() == ["no", "yes"]
    assert "column 'id' is left out" in model.encoding_.notes()[0]


def test_probabilities_are_the_mean_of_the_members(fitted):
    model, frame, _ = fitted
    members = model.member_proba(frame)
    assert members.shape == (300, 3, 2)
    np.testing.assert_allclose(model.predict_proba(frame), members.mean(1), rtol=1e-12)
    np.testing.assert_allclose(members.sum(-1), 1, rtol=1e-6)


def test_the_uncertainty_is_a_frame_with_the_index_of_the_table(fitted):
    model, frame, _ = fitted
    found = model.predict_uncertainty(frame[10:20])
    assert found.index.tolist() == list(range(10, 20))
    np.testing.assert_allclose(found["aleatoric"] + found["epistemic"], found["total"], atol=1e-12)


def test_sets_contain_the_class_and_are_those_of_the_kept_rows(fitted):
    model, frame, y = fitted
    sets = model.predict_set(frame, confidence=0.8)
    kept = model.kept_
    by_hand = ConformalSets(method="lac", confidence=0.8).fit(kept.prediction, kept.targets)
    np.testing.assert_array_equal(sets, by_hand(be.predict(model.model_, frame)).contains)
    truth = np.searchsorted(model.classes_, y)
    assert sets[np.arange(len(y)), truth].mean() > 0.7


def test_decide_says_when_to_answer(fitted):
    model, frame, y = fitted
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = model.decide(risk=0.3)
    answered = model.accepts(frame)
    prediction = be.predict(model.model_, frame)
    np.testing.assert_array_equal(answered, found.accepts(prediction))
    assert (model.predict(frame)[answered] != y[answered]).mean() <= 0.3


def test_accepts_needs_a_decision():
    frame, y = people(60)
    model = be.BatchEnsembleClassifier(**QUICK).fit(frame, y)
    with pytest.raises(ValueError, match="call decide"):
        model.accepts(frame)


def test_the_model_inside_takes_the_table_itself(fitted):
    model, frame, _ = fitted
    turned = frame[frame.columns[::-1]]
    np.testing.assert_array_equal(
        be.predict(model.model_, turned).probs, model.predict_proba(frame)
    )


def test_save_and_load_give_the_same_without_a_pickle(fitted, tmp_path):
    model, frame, _ = fitted
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        model.decide(risk=0.3)
    model.save(tmp_path / "model")
    again = be.BatchEnsembleClassifier.load(tmp_path / "model")
    for method in ("predict", "predict_proba", "predict_set", "accepts"):
        np.testing.assert_array_equal(getattr(again, method)(frame), getattr(model, method)(frame))
    assert again.get_params() == model.get_params()
    assert again.encoding_ == model.encoding_
    kinds = {path.suffix for path in (tmp_path / "model").iterdir()}
    assert kinds == {".json", ".safetensors"}
    with pytest.raises(ValueError, match="holds a 'BatchEnsembleClassifier'"):
        be.BatchEnsembleRegressor.load(tmp_path / "model")


def test_a_model_that_is_no_estimator_is_not_loaded_as_one(tmp_path):
    network = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    be.save(be.BatchEnsemble(network, 2), tmp_path / "model")
    with pytest.raises(ValueError, match="holds no estimator"):
        be.BatchEnsembleClassifier.load(tmp_path / "model")
    with pytest.raises(FileNotFoundError):
        be.BatchEnsembleClassifier.load(tmp_path / "nothing")


def test_pickle_gives_the_same(fitted):
    model, frame, _ = fitted
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(frame), model.predict_proba(frame))


def test_the_same_seed_gives_the_same_and_another_one_does_not():
    frame, y = people(200)
    one, two = (be.BatchEnsembleClassifier(**QUICK).fit(frame, y) for _ in range(2))
    other = be.BatchEnsembleClassifier(**{**QUICK, "random_state": 1}).fit(frame, y)
    np.testing.assert_array_equal(one.predict_proba(frame), two.predict_proba(frame))
    assert np.abs(one.predict_proba(frame) - other.predict_proba(frame)).max() > 0


def test_labels_of_any_kind_come_back_in_their_type():
    frame, y = people(200)
    for labels in (y == "yes", np.where(y == "yes", 7, -1), np.where(y == "yes", 2.0, 1.0)):
        model = be.BatchEnsembleClassifier(**QUICK).fit(frame, labels)
        assert model.predict(frame).dtype == labels.dtype
        assert set(model.classes_.tolist()) == set(labels.tolist())


def test_examples_without_a_class_are_left_out():
    frame, y = people(200)
    gaps = y.copy()
    gaps[::10] = None
    known = np.array([each is not None for each in gaps])
    with_gaps = be.BatchEnsembleClassifier(**QUICK).fit(frame, gaps)
    without = be.BatchEnsembleClassifier(**QUICK).fit(frame[known], gaps[known])
    np.testing.assert_allclose(
        with_gaps.predict_proba(frame), without.predict_proba(frame), rtol=1e-6
    )


def test_a_weight_of_0_is_as_good_as_no_row():
    frame, y = people(200)
    weights = np.ones(200)
    weights[::4] = 0
    kept = weights > 0
    weighted = be.BatchEnsembleClassifier(**QUICK).fit(frame, y, sample_weight=weights)
    without = be.BatchEnsembleClassifier(**QUICK).fit(frame[kept], y[kept], np.ones(kept.sum()))
    np.testing.assert_allclose(
        weighted.predict_proba(frame), without.predict_proba(frame), rtol=1e-6
    )


def test_class_weights_by_name_shift_the_probabilities():
    frame, y = people(300)
    plain = be.BatchEnsembleClassifier(**QUICK).fit(frame, y)
    weighted = be.BatchEnsembleClassifier(**QUICK, class_weight={"yes": 50.0}).fit(frame, y)
    assert weighted.predict_proba(frame)[:, 1].mean() > plain.predict_proba(frame)[:, 1].mean()
    with pytest.raises(ValueError, match="class_weight names 'maybe'"):
        be.BatchEnsembleClassifier(**QUICK, class_weight={"maybe": 2.0}).fit(frame, y)


def test_columns_that_are_left_out_are_told():
    frame, y = people(100)
    with pytest.warns(TableWarning, match=r"left out: 'id' \(its values are all different"):
        be.BatchEnsembleClassifier(**QUICK).fit(frame, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        be.BatchEnsembleClassifier(**QUICK, drop=["id"]).fit(frame, y)


def test_a_copy_of_the_target_is_told():
    frame, y = people(100)
    frame["answer"] = np.where(y == "yes", "ja", "nein")
    with pytest.warns(TableWarning, match="'answer' tells the target exactly"):
        be.BatchEnsembleClassifier(**QUICK).fit(frame, y)


def test_a_class_that_only_prediction_rows_have_is_refused():
    frame, y = people(100)
    model = be.BatchEnsembleClassifier(**QUICK).fit(frame, y)
    strange = np.array(["yes", "maybe"], dtype=object)
    with pytest.raises(ValueError, match="got 'maybe'"):
        model.calibrate(frame[:2], strange)


def test_an_evaluation_set_stops_the_training_instead_of_a_share_of_the_rows():
    frame, y = people(200)
    quick = {**QUICK, "calibration_fraction": 0.0}
    model = be.BatchEnsembleClassifier(**quick).fit(frame, y, eval_set=people(50, seed=3))
    assert len(model.history_.validation_nll) == model.n_iter_
    assert model.history_.examples[0] == 200
    with pytest.raises(ValueError, match="call calibrate"):
        model.predict_set(frame)
    assert model.calibrate(*people(100, seed=4)).predict_set(frame).shape == (200, 2)


def test_warm_start_goes_on_from_the_weights():
    frame, y = people(200)
    warm = be.BatchEnsembleClassifier(**{**QUICK, "epochs": 2, "warm_start": True}).fit(frame, y)
    first = [each.detach().clone() for each in warm.model_.parameters()]
    loss = warm.history_.losses[-1]
    assert warm.fit(frame, y).history_.losses[0] < loss
    assert any((one != two).any() for one, two in zip(first, warm.model_.parameters(), strict=True))


def test_partial_fit_learns_batch_by_batch():
    model = be.BatchEnsembleClassifier(**QUICK)
    for seed in range(30):
        frame, y = people(100, seed)
        model.partial_fit(frame, y, classes=["no", "yes"])
    frame, y = people(300, seed=99)
    assert model.score(frame, y) > 0.85


def test_members_are_chosen_after_training():
    frame, y = people(300)
    model = be.BatchEnsembleClassifier(**{**QUICK, "members": 6}, choose=2).fit(frame, y)
    assert model.model_.members == 2
    assert len(model.model_.choice.chosen) == 2


def test_pipelines_searches_and_calibrators_of_scikit_learn_take_it():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(150, 3))
    y = (X[:, 0] + X[:, 1] > 0).astype(int)
    quick = be.BatchEnsembleClassifier(**{**QUICK, "epochs": 10})
    assert make_pipeline(StandardScaler(), quick).fit(X, y).score(X, y) > 0.8
    search = GridSearchCV(quick, {"members": [2, 3]}, cv=2).fit(X, y)
    assert search.best_params_["members"] in (2, 3)
    assert CalibratedClassifierCV(quick, cv=2).fit(X, y).score(X, y) > 0.8
    assert cross_val_score(clone(quick), X, y, cv=2).min() > 0.7
    importance = permutation_importance(quick.fit(X, y), X, y, n_repeats=2, random_state=0)
    assert importance.importances_mean[2] < importance.importances_mean[0]


@pytest.mark.parametrize("method", ["single", "deep", "batch", "mimo"])
def test_each_method_learns(method):
    frame, y = people(400)
    model = be.BatchEnsembleClassifier(**{**QUICK, "epochs": 60}, method=method).fit(frame, y)
    assert model.score(*people(200, seed=1)) > 0.8
    assert model.model_.members == (1 if method == "single" else 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"validation_fraction": 1.0}, "validation_fraction must be at least 0 and below 1"),
        ({"validation_fraction": 0.6, "calibration_fraction": 0.5}, "must leave rows"),
        ({"method": "bach"}, "did you mean 'batch'"),
        ({"drop": ["aeg"]}, "drop names 'aeg'"),
        ({"stop_on": "rmse"}, "stop_on"),
    ],
)
def test_a_wrong_argument_is_told_before_training(arguments, message):
    frame, y = people(60)
    with pytest.raises(ValueError, match=message):
        be.BatchEnsembleClassifier(**{**QUICK, **arguments}).fit(frame, y)


def test_prediction_needs_a_fitted_model():
    with pytest.raises(NotFittedError):
        be.BatchEnsembleClassifier().predict_uncertainty(np.zeros((2, 2)))


def test_the_report_tells_which_columns_matter(fitted, tmp_path):
    model, frame, y = fitted
    page = model.report(tmp_path / "page.html", frame[:100], y[:100]).read_text()
    assert "Which columns matter" in page
    assert "Most important: " in page
    assert "4 features" in page  # columns, of which a date and a gap make several inputs
    assert "Column &#39;id&#39; is left out" in page
    assert "mapped to a normal distribution" in page
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_what_was_decided_before_does_not_outlive_another_training(fitted):
    frame, y = people(200)
    model = be.BatchEnsembleClassifier(**QUICK).fit(frame, y)
    for again in (
        lambda: model.fit(frame, y),
        lambda: model.calibrate(frame, y),
        lambda: model.partial_fit(frame, y),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            model.decide(risk=0.5)
        model.accepts(frame)
        again()
        with pytest.raises(ValueError, match="call decide"):
            model.accepts(frame)
    with pytest.raises(ValueError, match="no rows were kept"):
        model.predict_set(frame)


def test_a_warm_start_keeps_the_same_rows_from_training():
    frame, y = people(200)
    quick = {**QUICK, "epochs": 1, "random_state": None, "warm_start": True}
    model = be.BatchEnsembleClassifier(**quick).fit(frame, y)
    kept = model.kept_.inputs
    np.testing.assert_array_equal(model.fit(frame, y).kept_.inputs, kept)


def test_a_fit_forgets_the_classes_of_a_partial_fit():
    frame, y = people(100)
    model = be.BatchEnsembleClassifier(**QUICK)
    model.partial_fit(frame, y, classes=["maybe", "no", "yes"])
    assert model.classes_.tolist() == ["maybe", "no", "yes"]
    assert model.fit(frame, y).classes_.tolist() == ["no", "yes"]
