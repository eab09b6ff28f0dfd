"""Data sets are split once, always alike, and scaled by what training may see."""

import numpy as np
import pytest
from sklearn import datasets

from batchensemble.data.datasets import NAMED, load_dataset


@pytest.mark.parametrize(
    ("name", "train", "held_out", "features", "classes"),
    [
        ("moons", 24000, 6000, 2, 2),
        ("circles", 24000, 6000, 2, 2),
        ("digits", 1438, 359, 64, 10),
        ("breast_cancer", 455, 114, 30, 2),
    ],
)
def test_named_sets_have_their_known_sizes(name, train, held_out, features, classes):
    data = load_dataset(name)
    assert data.name == name
    assert data.train[0].shape == (train, features)
    assert data.held_out[0].shape == (held_out, features)
    assert (data.features, data.classes) == (features, classes)
    for x, y in (data.train, data.held_out):
        assert (x.dtype, y.dtype) == (np.float32, np.int64)
        assert len(x) == len(y)
        assert np.isfinite(x).all()
        assert np.unique(y).tolist() == list(range(classes))


def test_every_named_set_is_tested_above():
    numbers = ["cubic", "diabetes"]  # tests/comparison/test_compare_numbers.py
    assert list(NAMED) == ["moons", "circles", "digits", "breast_cancer", *numbers]


def test_moons_are_scikit_learns_in_their_order_and_unscaled():
    x, y = datasets.make_moons(30_000, noise=0.2, random_state=42)
    data = load_dataset("moons")
    np.testing.assert_array_equal(data.train[0], x[:24_000].astype(np.float32))
    np.testing.assert_array_equal(data.held_out[1], y[24_000:])
    assert not data.standardised


@pytest.mark.parametrize("name", ["digits", "breast_cancer"])
def test_columns_are_standardised_by_the_training_part(name):
    data = load_dataset(name)
    columns = data.train[0].astype(np.float64)
    assert data.standardised
    np.testing.assert_allclose(columns.mean(0), 0, atol=1e-6)
    varying = columns.std(0) > 0
    np.testing.assert_allclose(columns.std(0)[varying], 1, atol=1e-6)
    assert abs(data.held_out[0].mean(0)[varying]).max() > 1e-3


@pytest.mark.parametrize("name", ["digits", "breast_cancer"])
def test_no_example_is_lost_or_on_both_sides(name):
    data, bunch = load_dataset(name), getattr(datasets, f"load_{name}")()
    together = np.concatenate([data.train[0], data.held_out[0]])
    classes = np.concatenate([data.train[1], data.held_out[1]])
    assert np.bincount(classes).tolist() == np.bincount(bunch.target).tolist()
    assert len(np.unique(together, axis=0)) == len(np.unique(bunch.data, axis=0))


@pytest.mark.parametrize("name", ["digits", "breast_cancer"])
def test_classes_have_equal_shares_in_both_parts(name):
    data = load_dataset(name)
    train, held_out = (np.bincount(y) / len(y) for _, y in (data.train, data.held_out))
    np.testing.assert_allclose(train, held_out, atol=0.01)


@pytest.mark.parametrize("name", NAMED)
def test_a_set_is_the_same_each_time(name):
    for one, two in zip(load_dataset(name).train, load_dataset(name).train, strict=True):
        np.testing.assert_array_equal(one, two)


def write(tmp_path, lines, header="a,b,y"):
    path = tmp_path / "mine.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return str(path)


def test_a_file_is_split_and_standardised(tmp_path):
    rng = np.random.default_rng(0)
    lines = [f"{rng.normal(5, 3)},7,{'cat' if n % 4 else 'dog'}" for n in range(40)]
    data = load_dataset(write(tmp_path, lines), "y")
    assert data.name == "mine.csv"
    assert (data.feature_names, data.class_names) == (("a",), ("cat", "dog"))
    assert (len(data.train[0]), len(data.held_out[0])) == (32, 8)
    assert np.bincount(data.held_out[1]).tolist() == [6, 2]
    np.testing.assert_allclose(data.train[0].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(data.train[0].std(0), 1, atol=1e-6)
    assert data.encoding.notes() == ("column 'b' is left out: it has one value only",)


@pytest.mark.parametrize(
    ("labels", "task"),
    [(["cat", "dog"], "classification"), (["0", "1"], "classification"), (None, "regression")],
)
def test_the_task_is_told_from_the_target(tmp_path, labels, task):
    lines = [f"{n % 7},{n % 3},{labels[n % 2] if labels else n / 8}" for n in range(60)]
    assert load_dataset(write(tmp_path, lines), "y").task == task


def test_a_class_that_appears_once_can_be_split(tmp_path):
    path = write(tmp_path, [f"{n},{n},{n % 2}" for n in range(20)] + ["1,2,9"])
    data = load_dataset(path, "y", "classification")
    assert data.class_names == ("0", "1", "9")
    assert len(data.train[0]) + len(data.held_out[0]) == 21


def test_more_classes_than_held_out_examples_can_be_split(tmp_path):
    path = write(tmp_path, [f"{n},{n},{n % 5}" for n in range(10)])
    data = load_dataset(path, "y", "classification")
    assert data.classes == 5
    assert len(data.held_out[0]) == 2


@pytest.mark.parametrize(
    ("source", "target", "error", "sentence"),
    [
        ("mons", None, ValueError, "data must be one of moons, .* got 'mons'; did you mean 'moons"),
        ("Moons", None, ValueError, "did you mean 'moons'"),
        ("moons", "y", ValueError, "moons has its own labels, got 'y'"),
        ("moons.csv", "y", FileNotFoundError, r"no file moons\.csv; did you mean 'moons'"),
        ("nowhere/at/all.csv", "y", FileNotFoundError, "give a CSV file or one of moons, circles"),
    ],
)
def test_a_source_that_is_not_there_is_refused(source, target, error, sentence):
    with pytest.raises(error, match=sentence):
        load_dataset(source, target)


def test_a_file_needs_its_target(tmp_path):
    path = write(tmp_path, ["1,2,3"] * 20)
    with pytest.raises(ValueError, match=r"target is missing: name the column of .* the labels"):
        load_dataset(path)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is a folder without Parquet files; give a CSV file"):
        load_dataset(str(tmp_path), "y")
