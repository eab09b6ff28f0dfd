"""Labels keep what stands in the table; which are one class, and in which order, is one rule."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
import torch
from torch import nn

import batchensemble as be
from batchensemble.data.sources import open_batches
from batchensemble.data.tables.class_labels import ClassNames, class_names_in, numbers_of
from batchensemble.data.tables.columns import TableWarning
from batchensemble.data.tables.dialects import Dialect
from batchensemble.data.train_test import open_data
from batchensemble.losses import as_loss

CLASSES = as_loss("cross_entropy")
PLACE = {"device": torch.device("cpu"), "dtype": torch.float32}
ROWS = 60
STREAMED = 8  # a memory limit in bytes that no table of these fits


def csv(folder, labels):
    """Write a table whose labels come round and round, as they are given."""
    path = folder / "table.csv"
    lines = [f"{row},{labels[row % len(labels)]}\n" for row in range(ROWS)]
    path.write_text("a,y\n" + "".join(lines), encoding="utf-8")
    return path


def classes_of(path, limit):
    """Return the classes that ``train`` finds, and the labels of its parts by name."""
    data = open_data(str(path), "y", loss=CLASSES, memory_limit=limit)
    names = data.columns.class_names
    parts = (data.train, data.validation, data.calibration, data.held_out)
    return names, sorted(names[label] for part in parts for label in targets_of(part).tolist())


def targets_of(part):
    return torch.cat([y for _, y in open_batches(part, 8, memory_limit=STREAMED, **PLACE)])


@pytest.mark.parametrize("limit", [STREAMED, 1 << 29])
@pytest.mark.parametrize(
    ("written", "names"),
    [
        (["007", "7"], ("007", "7")),
        (["no", "no ", " yes", "yes"], ("no", "yes")),
        (["NA", "EU", "None"], ("EU", "NA", "None")),
        (["nan", "null", "x"], ("nan", "null", "x")),
        (["1e5", "100000"], ("100000", "1e5")),
        (["01", "02", "+3"], ("+3", "01", "02")),
        (["10", "9", "-1"], ("-1", "9", "10")),
        (["1.0", "2.0"], ("1.0", "2.0")),
        (["1", "1.0", "2"], ("1", "2")),
        (["12345678901234567890", "12345678901234567891"],) * 2,
        (["True", "true"], ("True", "true")),
    ],
)
def test_labels_stay_as_they_stand_whole_and_streamed(tmp_path, limit, written, names):
    found, labels = classes_of(csv(tmp_path, written), limit)
    assert found == tuple(names)
    expected = [text.strip() for text in written]
    as_named = [text if text in names else "1" for text in expected]
    assert labels == sorted(as_named[row % len(written)] for row in range(ROWS))


@pytest.mark.parametrize("limit", [STREAMED, 1 << 29])
@pytest.mark.parametrize("gap", ["NA", "null", "", "?"])
def test_a_gap_among_numbers_is_no_class(tmp_path, limit, gap):
    gaps = Dialect(gaps=("?",)) if gap == "?" else None
    path = csv(tmp_path, ["0", "1", "0", "1", gap])
    with pytest.warns(TableWarning, match="12 rows have no target and are left out"):
        data = open_data(str(path), "y", loss=CLASSES, memory_limit=limit, dialect=gaps)
    assert data.columns.class_names == ("0", "1")
    parts = (data.train, data.validation, data.calibration, data.held_out)
    assert torch.cat([targets_of(part) for part in parts]).bincount().tolist() == [24, 24]


@pytest.mark.parametrize("gap", ["NA", "null", ""])
def test_a_gap_among_numbers_is_no_class_for_fit_either(tmp_path, gap):
    path = csv(tmp_path, ["0", "1", "0", "1", gap])
    sentence = r"'y' must hold a class in every row, got no value .*in row 5 \(line 6\)"
    with pytest.raises(ValueError, match=sentence):
        open_batches(path, 8, target="y", **PLACE)


@pytest.mark.parametrize("limit", [STREAMED, 1 << 29])
def test_fit_takes_a_csv_file_by_the_same_rule(tmp_path, limit):
    def found(labels):
        path = csv(tmp_path, labels)
        batches = open_batches(path, ROWS, target="y", memory_limit=limit, **PLACE)
        return batches.class_names, torch.cat([y for _, y in batches])[:3].tolist()

    assert found(["007", "7", "8"]) == (("007", "7", "8"), [0, 1, 2])
    assert found(["NA", "no ", "no"]) == (("NA", "no"), [0, 1, 1])
    assert found(["2", "0", "1"]) == ((), [2, 0, 1])  # class numbers


ANIMALS = np.array([" no ", "no", "yes"] * 20)


@pytest.mark.parametrize("kind", ["pandas", "polars", "arrow", "parquet", "feather", "csv"])
def test_blanks_around_labels_are_stripped_in_every_kind_of_table(tmp_path, kind):
    frame = pd.DataFrame({"a": np.arange(60.0), "y": ANIMALS})
    batches = open_batches(table_of(frame, kind, tmp_path), 60, target="y", **PLACE)
    assert batches.class_names == ("no", "yes")
    assert next(iter(batches))[1][:3].tolist() == [0, 0, 1]


def table_of(frame, kind, folder):
    """Return a data frame as a table of another library, or as the path of a file."""
    arrow = pa.Table.from_pandas(frame, preserve_index=False)
    path = folder / f"table.{kind}"
    if kind == "csv":
        frame.to_csv(path, index=False)
    elif kind == "parquet":
        pyarrow.parquet.write_table(arrow, path, row_group_size=7)
    elif kind == "feather":
        pyarrow.feather.write_feather(arrow, path, chunksize=7)
    else:
        return {"pandas": frame, "polars": pl.from_arrow(arrow), "arrow": arrow}[kind]
    return path


@pytest.mark.parametrize("limit", [STREAMED, 1 << 29])
@pytest.mark.parametrize("kind", ["polars' text", "dates"])
def test_labels_of_other_types_are_numbered_alike_in_all_parts(tmp_path, kind, limit):
    path, labels = tmp_path / "table.arrow", pl.Series(["no", "yes", "maybe"] * 20)
    names = ("maybe", "no", "yes")
    if kind == "dates":
        dates = pd.to_datetime(["2026-02-01", "2026-03-01", "2026-01-01"] * 20)
        labels, names = pl.Series(dates), tuple(f"2026-0{month}-01 00:00:00" for month in (1, 2, 3))
    table = pl.DataFrame({"a": np.arange(60.0), "y": labels})
    table.write_ipc(path, record_batch_size=7)
    for source in (path, table):
        batches = open_batches(source, 60, target="y", memory_limit=limit, **PLACE)
        assert batches.class_names == names
        assert torch.cat([y for _, y in batches])[:3].tolist() == [1, 2, 0]
    assert classes_of(path, limit)[0] == names


SIZES = ["small", "medium", "large", "never"]


def sizes(ordered=True):
    values = np.array(["medium", "small", "large"] * 20)
    return pd.DataFrame({"a": np.arange(60.0), "y": pd.Categorical(values, SIZES, ordered=ordered)})


@pytest.mark.parametrize("limit", [STREAMED, 1 << 29])
@pytest.mark.parametrize("kind", ["pandas", "polars", "arrow", "parquet", "feather"])
def test_a_declared_order_is_kept_in_memory_and_streamed(tmp_path, kind, limit):
    table = table_of(sizes(), kind, tmp_path)
    if kind == "polars":
        table = table.with_columns(table["y"].cast(pl.String).cast(pl.Enum(SIZES)))
    batches = open_batches(table, 60, target="y", memory_limit=limit, **PLACE)
    assert batches.class_names == ("small", "medium", "large")
    assert batches.class_names.ordered
    assert torch.cat([y for _, y in batches])[:3].tolist() == [1, 0, 2]
    if kind in ("parquet", "feather"):
        names, _ = classes_of(table, limit)
        assert names == ("small", "medium", "large")
        assert names.ordered


@pytest.mark.parametrize("limit", [STREAMED, 1 << 29])
def test_words_without_a_declared_order_are_sorted_and_say_so(tmp_path, limit):
    for path in (table_of(sizes(ordered=False), "parquet", tmp_path), csv(tmp_path, SIZES)):
        names, _ = classes_of(path, limit)
        assert names == tuple(sorted(names))
        assert not names.ordered
    assert classes_of(csv(tmp_path, ["3", "1", "2"]), limit)[0].ordered


def test_a_series_as_y_keeps_its_declared_order():
    frame = sizes()
    for y in (frame["y"], frame[["y"]], pa.array(frame["y"])):
        assert open_batches((frame[["a"]], y), 60, **PLACE).class_names == tuple(SIZES[:3])


def test_an_order_of_numbers_is_kept_too():
    grades = pd.Categorical([1, 2, 3] * 20, [3, 2, 1], ordered=True)
    batches = open_batches(sizes().assign(y=grades), 60, target="y", **PLACE)
    assert batches.class_names == ("3", "2", "1")
    assert next(iter(batches))[1][:3].tolist() == [2, 1, 0]


def test_two_orders_in_one_file_are_refused(tmp_path):
    (tmp_path / "parts").mkdir()
    for number, order in enumerate((SIZES, SIZES[::-1])):
        frame = sizes().assign(y=lambda each, order=order: each["y"].cat.reorder_categories(order))
        frame.to_parquet(tmp_path / "parts" / f"{number}.parquet")
    with pytest.raises(ValueError, match="must have one order in all parts of a column"):
        open_batches(tmp_path / "parts", 60, target="y", **PLACE)


@pytest.mark.parametrize(
    ("y", "names", "expected"),
    [
        ([1, 2, 1], [1, 2], [0, 1, 0]),
        ([-1, 1, 1], [-1, 1], [0, 1, 1]),
        ([1.0, 2.0, 1.0], ["1", "2"], [0, 1, 0]),
        ([2, 1, 2], ["2", "1"], [0, 1, 0]),
    ],
)
def test_class_names_that_are_numbers_say_what_stands_in_y(tmp_path, y, names, expected):
    X = np.arange(3.0)[:, None]
    frame = pd.DataFrame({"a": X[:, 0], "y": y})
    frame.to_csv(tmp_path / "y.csv", index=False)
    tables = {"target": "y"}
    for data, options in (
        ((X, np.array(y)), {}),
        ((X, torch.tensor(y)), {}),
        (frame, tables),
        (tmp_path / "y.csv", tables),
        (table_of(frame, "parquet", tmp_path), tables),
    ):
        batches = open_batches(data, 3, class_names=names, **options, **PLACE)
        assert next(iter(batches))[1].tolist() == expected
        assert batches.class_names == tuple(map(str, names))


@pytest.mark.parametrize("y", [[1, 2] * 4, [-1, 1] * 4, [1.0, 2.0] * 4])
def test_labels_that_are_no_class_numbers_are_refused_with_what_takes_them(y):
    X, model = np.zeros((8, 1)), be.Single(nn.Linear(1, 2))
    with pytest.raises((ValueError, TypeError), match=r"give class_names=\["):
        be.fit(model, (X, np.array(y)), epochs=1)
    history = be.fit(model, (X, np.array(y)), epochs=1, class_names=sorted(set(y)))
    assert history.class_names == [str(each) for each in sorted(set(y))]
    names = history.class_names
    scores = [
        be.evaluate(model, data, class_names=names)
        for data in ((X, np.array(y)), (X, pd.Series(y)))
    ]
    assert scores[0] == scores[1]


@pytest.mark.parametrize("kind", ["pandas", "arrow", "csv", "parquet"])
def test_words_are_no_targets_of_a_loss_of_numbers(tmp_path, kind):
    frame = pd.DataFrame({"a": np.arange(60.0), "y": ANIMALS})
    model = be.Single(nn.Linear(1, 1))
    with pytest.raises(ValueError, match=r"'y' must hold a number in every row, got ' ?no ?'"):
        be.fit(model, table_of(frame, kind, tmp_path), target="y", loss="mse", epochs=1)


def test_codes_are_numbers_where_numbers_are_asked_for(tmp_path):
    path = csv(tmp_path, ["007", "1e1", "-.5"])
    for limit in (STREAMED, 1 << 29):
        batches = open_batches(path, 3, target="y", memory_limit=limit, numbers=True, **PLACE,
                               read=as_loss("mse").read)  # fmt: skip
        assert next(iter(batches))[1].tolist() == [7, 10, -0.5]


def test_class_numbers_in_arrays_stay_where_other_data_name_the_classes():
    frame = pd.DataFrame({"a": np.arange(8.0), "y": ["10", "9"] * 4})
    model = be.Single(nn.Linear(1, 2))
    validation = np.arange(8.0)[:, None], np.array([1, 0] * 4)  # 9 is class 0
    history = be.fit(model, frame, target="y", validation=validation, epochs=1, lr=0.1)
    expected = be.evaluate(model, frame, target="y", class_names=history.class_names)["nll"]
    assert history.validation_nll == pytest.approx([expected], abs=1e-6)


def test_models_saved_before_match_labels_by_value():
    assert numbers_of(["007", "7.0", "true"], ["7", "True"]) == [-1, 0, -1]
    assert numbers_of(["007", "7.0", "true"], ["7", "True"], by_value=True) == [0, 0, 1]
    assert numbers_of(["007", "7", "07"], ["7", "007"], by_value=True) == [1, 0, -1]


def test_class_names_stay_ordered_when_copied():
    names = ClassNames(["b", "a"], ordered=True)
    assert pickle.loads(pickle.dumps(names)).ordered
    assert ClassNames(names).ordered
    assert not class_names_in({"b", "a"}).ordered


def test_dates_of_parquet_are_called_as_written_whole_and_streamed(tmp_path):
    days = ["2026-02-01", "2026-01-01"]
    labels = pa.array(pd.to_datetime(days * (ROWS // 2)), pa.date32())
    table = pa.table({"a": np.arange(ROWS, dtype=float), "y": labels})
    pyarrow.parquet.write_table(table, tmp_path / "table.parquet")
    for limit in (1 << 29, STREAMED):
        names, _ = classes_of(tmp_path / "table.parquet", limit)
        assert names == ("2026-01-01", "2026-02-01")
