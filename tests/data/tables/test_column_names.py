"""Columns are known by their names: in another order they are reordered, others are refused."""

import copy
import json

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import batchensemble as be
from batchensemble.data.tables.column_names import ColumnNames
from batchensemble.decisions import under_shift
from batchensemble.ensembles.saving import CONFIG
from batchensemble.training.checkpoints.store import CheckpointError

# Calibrated on what trained them, which is warned of, and does not matter here.
pytestmark = pytest.mark.filterwarnings("ignore:the model was trained on these data")

N = 400
RNG = np.random.default_rng(0)
FRAME = pd.DataFrame({name: RNG.normal(size=N) for name in ("age", "dose", "mass")})
KIND = np.where(FRAME.age > FRAME.dose, "well", "ill")
LABELS = (KIND == "well").astype(int)
TURNED = ["dose", "mass", "age"]
RENAMED = FRAME.rename(columns={"dose": "Dose"})
SMALL = 2000  # bytes: files are streamed

TABLES = {
    "pandas": lambda frame: frame,
    "polars": pl.from_pandas,
    "arrow": lambda frame: pa.Table.from_pandas(frame, preserve_index=False),
}


def network(outputs=2):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, outputs))


def fitted(data=None, outputs=2, **options):
    model = be.BatchEnsemble(network(outputs), members=2)
    be.fit(model, (FRAME, LABELS) if data is None else data, epochs=2, lr=1e-2, **options)
    return model


@pytest.fixture(scope="module")
def model():
    return fitted()


def written(folder, frame, kind):
    path = folder / f"table{len(list(folder.iterdir()))}.{kind}"
    if kind == "csv":
        frame.to_csv(path, index=False)
    elif kind == "parquet":
        frame.to_parquet(path, row_group_size=100)
    elif kind == "feather":
        frame.to_feather(path)
    else:
        path = path.with_suffix("")
        path.mkdir()
        for part in range(4):
            frame[part * 100 : (part + 1) * 100].to_parquet(path / f"{part}.parquet")
    return path


def same(prediction, other):
    np.testing.assert_allclose(prediction.member_probs, other.member_probs, rtol=1e-5)


REFUSED = (
    (RENAMED, r"has no 'dose'; did you mean 'Dose'\? and has 'Dose' beside"),
    (FRAME[["mass", "age"]], "has no 'dose'"),
    (FRAME.assign(id=1), r"has 'id' beside; leave out"),
    (FRAME.assign(kind=LABELS)[["age", "dose", "kind"]], "has no 'mass'.* and has 'kind' beside"),
)


@pytest.mark.parametrize("kind", TABLES)
def test_frames_in_another_order_are_reordered_and_others_refused(model, kind):
    make = TABLES[kind]
    known, turned = make(FRAME), make(FRAME[TURNED])
    assert model.feature_names == ("age", "dose", "mass")
    np.testing.assert_array_equal(
        be.predict(model, turned).member_probs, be.predict(model, known).member_probs
    )
    assert be.evaluate(model, (turned, LABELS)) == be.evaluate(model, (FRAME, LABELS))
    labelled = make(FRAME.assign(y=LABELS)[["y", *TURNED]])
    assert be.evaluate(model, labelled, target="y") == be.evaluate(model, (FRAME, LABELS))
    calibrated = be.calibrate(model, (turned, LABELS))
    same(be.predict(calibrated, turned), be.predict(be.calibrate(model, (FRAME, LABELS)), FRAME))
    for other, sentence in REFUSED:
        other = make(other)
        for use, data in (
            (be.predict, other),
            (be.evaluate, (other, LABELS)),
            (be.calibrate, (other, LABELS)),
        ):
            with pytest.raises(
                ValueError, match=f"'age', 'dose', 'mass', in any order; it {sentence}"
            ):
                use(model, data)


@pytest.mark.parametrize("limit", [SMALL, 1 << 20])
@pytest.mark.parametrize("kind", ["csv", "parquet", "feather", "folder"])
def test_files_in_another_order_are_reordered_and_others_refused(model, kind, limit, tmp_path):
    options = {"target": "y", "memory_limit": limit}
    mixed = FRAME.assign(y=LABELS, id=[f"p{row}" for row in range(N)])[
        ["id", "mass", "y", "dose", "age"]
    ]
    path = written(tmp_path, mixed, kind)  # further columns of files are passed over
    said = be.predict(model, FRAME)
    same(be.predict(model, path, **options), said)
    same(be.predict(model, path, memory_limit=limit), said)
    assert be.evaluate(model, path, **options)["nll"] == pytest.approx(
        be.evaluate(model, (FRAME, LABELS))["nll"], rel=1e-5
    )
    be.calibrate(model, path, **options)
    for other in (RENAMED, FRAME[["mass", "age"]]):
        missing = written(tmp_path, other.assign(y=LABELS), kind)
        for use in (be.predict, be.evaluate, be.calibrate):
            with pytest.raises(
                ValueError, match=r"table\d.* must have the columns .* has no 'dose'"
            ):
                use(model, missing, **options)


def test_files_teach_names_too(tmp_path):
    for limit in (SMALL, 1 << 20):
        path = written(tmp_path, FRAME.assign(y=LABELS), "parquet")
        found = fitted(path, target="y", memory_limit=limit)
        assert found.feature_names == ("age", "dose", "mass")
        same(be.predict(found, FRAME[TURNED]), be.predict(found, FRAME))


def test_held_out_data_have_the_training_s_columns(tmp_path):
    def held_out(data, **options):
        model = be.BatchEnsemble(network(), members=2)
        train = FRAME.assign(y=LABELS) if options else (FRAME, LABELS)
        return be.fit(model, train, validation=data, epochs=1, **options).validation_nll

    expected = held_out((FRAME, LABELS))
    assert held_out((FRAME[TURNED], LABELS)) == expected
    target = {"target": "y"}
    assert held_out(FRAME.assign(y=LABELS)[["y", *TURNED]], **target) == expected
    path = written(tmp_path, FRAME.assign(y=LABELS, id=1)[["id", "y", *TURNED]], "csv")
    assert held_out(path, **target) == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"X must have the columns .*'age', 'dose', 'mass'"):
        held_out((RENAMED, LABELS))


def test_names_go_where_the_model_goes(model, tmp_path):
    folder = be.save(model, tmp_path)
    others = [
        be.load(folder),
        model.select([1]),
        copy.deepcopy(model),
        model.uncalibrated(),
        be.calibrate(model, (FRAME, LABELS)),
    ]
    for other in others:
        assert other.feature_names == ("age", "dose", "mass")
        same(be.predict(other, FRAME[TURNED]), be.predict(other, FRAME))
        with pytest.raises(ValueError, match="has no 'dose'"):
            be.predict(other, RENAMED)


def test_a_folder_of_before_is_read_by_position(model, tmp_path):
    folder = be.save(model, tmp_path)
    config = json.loads((folder / CONFIG).read_text())
    for name in ("feature_names", "target_names", "class_names"):
        del config[name]
    (folder / CONFIG).write_text(json.dumps(config))
    before = be.load(folder)
    assert before.feature_names is None
    assert before.class_names == ()
    same(be.predict(before, RENAMED), be.predict(model, FRAME))


def test_a_second_training_keeps_to_the_columns_and_a_resumed_one_refuses_others(tmp_path):
    one, two = fitted(), fitted()
    be.fit(one, (FRAME, LABELS), epochs=1)
    be.fit(two, (FRAME[TURNED], LABELS), epochs=1)
    same(be.predict(one, FRAME), be.predict(two, FRAME))
    with pytest.raises(ValueError, match=r"model\.feature_names = None"):
        be.fit(one, (RENAMED, LABELS), epochs=1)
    one.feature_names = None
    be.fit(one, (RENAMED, LABELS), epochs=1)
    assert one.feature_names == ("age", "Dose", "mass")
    be.fit(be.BatchEnsemble(network(), 2), (FRAME, LABELS), epochs=1, checkpoints=tmp_path)
    other = be.BatchEnsemble(network(), 2)
    with pytest.raises(CheckpointError, match="its data is"):
        be.fit(other, (FRAME[TURNED], LABELS), epochs=2, checkpoints=tmp_path, resume=True)


@pytest.mark.filterwarnings("error")
def test_what_has_no_names_is_taken_by_position_without_a_word(model):
    values = FRAME.to_numpy().copy()
    said = be.predict(model, FRAME)
    for X in (values, torch.from_numpy(values), pd.DataFrame(values), pl.DataFrame(values)):
        same(be.predict(model, X), said)
    same(be.predict(model, TensorDataset(torch.from_numpy(values).float())), said)
    for data in (values, pd.DataFrame(values)):
        unnamed = fitted((data, LABELS))
        assert unnamed.feature_names is None
        same(be.predict(unnamed, RENAMED), be.predict(unnamed, values))
        # The numbers of columns are their places, in any order.
        same(be.predict(unnamed, pd.DataFrame(values)[[2, 0, 1]]), be.predict(unnamed, values))
    with pytest.raises(ValueError, match="must have the columns"):
        be.predict(model, pd.DataFrame(values[:, :2]))


def test_numbers_that_are_names_are_names():
    years = FRAME.set_axis([2019, 2020, 2021], axis=1)
    found = fitted((years, LABELS))
    assert found.feature_names == ("2019", "2020", "2021")
    same(be.predict(found, years[[2021, 2019, 2020]]), be.predict(found, years))
    turned = fitted((FRAME.set_axis([0, 1, 2], axis=1)[[2, 0, 1]], LABELS))
    np.testing.assert_array_equal(
        be.predict(turned, FRAME.set_axis([0, 1, 2], axis=1)).probs,
        be.predict(turned, FRAME.set_axis([0, 1, 2], axis=1)[[1, 2, 0]]).probs,
    )


def test_names_are_told_apart_to_the_letter_and_stand_once():
    names = ColumnNames(("age", "Age", " age"))
    assert names.features_among((" age", "age", "Age"), "X") == ("age", "Age", " age")
    with pytest.raises(ValueError, match="two columns of the same name"):
        fitted((FRAME.set_axis(["age", "age", "mass"], axis=1), LABELS))


def test_columns_of_any_type_keep_their_place():
    typed = FRAME.assign(dose=FRAME.dose > 0, mass=(FRAME.mass > 0).astype("Int64"))
    found = fitted((typed, LABELS))
    same(be.predict(found, typed[TURNED]), be.predict(found, typed))


def test_several_targets_are_known_by_name():
    y = pd.DataFrame({"low": FRAME.age, "high": 100 + FRAME.dose})
    for make in TABLES.values():
        found = fitted((FRAME, make(y)), 2, loss="mse", standardise_targets=True)
        assert found.target_names == ("low", "high")
        expected = be.evaluate(found, (FRAME, y.to_numpy()))["rmse"]
        assert be.evaluate(found, (FRAME, make(y[["high", "low"]])))["rmse"] == expected
        for other in (y.rename(columns={"low": "Low"}), y.assign(more=1)):
            with pytest.raises(
                ValueError, match="y must have the columns that the model was trained"
            ):
                be.evaluate(found, (FRAME, make(other)))
    swapped = (FRAME, y[["high", "low"]])
    options = {"loss": "mse", "standardise_targets": True}
    same_way = fitted((FRAME, y), validation=(FRAME, y), **options)
    other = be.BatchEnsemble(network(), 2)
    history = be.fit(other, (FRAME, y), validation=swapped, epochs=2, lr=1e-2, **options)
    assert history.validation_nll[-1] < 2  # of columns that were not swapped
    assert same_way.target_names == other.target_names
    labels = (y > y.mean()).astype(float)
    many = fitted((FRAME, labels), loss="binary_cross_entropy")
    assert be.evaluate(many, (FRAME, labels[["high", "low"]])) == be.evaluate(many, (FRAME, labels))


def test_classes_are_known_by_name(tmp_path):
    kinds = np.where(FRAME.mass > 1, "dead", KIND)
    found = fitted((FRAME, pd.Series(kinds)), 3)
    assert found.class_names == ("dead", "ill", "well")
    alive = kinds != "dead"
    numbers = np.array([found.class_names.index(kind) for kind in kinds])
    expected = be.evaluate(found, (FRAME[alive], numbers[alive]))
    table = FRAME.assign(kind=kinds)[alive]  # in which one class is missing
    path = written(tmp_path, table, "csv")
    again = be.load(be.save(found, tmp_path / "model"))
    for each in (found, again):
        assert be.evaluate(each, (FRAME[alive], pd.Series(kinds[alive]))) == expected
        assert be.evaluate(each, table, target="kind") == expected
        for limit in (SMALL, 1 << 20):
            scores = be.evaluate(each, path, target="kind", memory_limit=limit)
            assert scores["nll"] == pytest.approx(expected["nll"], rel=1e-5)
        with pytest.raises(ValueError, match="must be in the order of the training, 'dead', 'ill'"):
            be.evaluate(each, table, target="kind", class_names=("well", "ill", "dead"))
        with pytest.raises(ValueError, match="must hold one of 'dead', 'ill', 'well', got 'fine'"):
            be.evaluate(each, table.assign(kind="fine"), target="kind")


def test_a_dataset_that_numbers_other_classes_is_refused():
    def data(*classes):
        found = TensorDataset(torch.tensor(FRAME.to_numpy()).float(), torch.from_numpy(LABELS))
        found.classes = list(classes)
        return found

    model = fitted(data("cat", "dog"))
    assert model.class_names == ("cat", "dog")
    be.evaluate(model, data("cat", "dog"))
    for use in (be.evaluate, be.calibrate):
        with pytest.raises(ValueError, match="classes must be those of the training, 'cat', 'dog'"):
            use(model, data("dog", "emu"))


def test_corrupted_frames_are_reordered_too(model):
    found = under_shift(model, FRAME[TURNED], LABELS, strengths=(0.0,))
    assert found == under_shift(model, FRAME, LABELS, strengths=(0.0,))
    with pytest.raises(ValueError, match="has no 'dose'"):
        under_shift(model, RENAMED, LABELS)
