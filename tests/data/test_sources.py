"""Every kind of data gives the batches of the arrays in it, or a sentence that says why not."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import batchensemble as be
from batchensemble.data.batches import ArrayBatches
from batchensemble.data.sources import open_batches

PLACE = {"device": torch.device("cpu"), "dtype": torch.float32}
torch.manual_seed(0)
X, Y = torch.randn(50, 3), torch.randint(2, (50,))
LABELS = Y.numpy()
NAMES = ["a", "b", "c"]


def frame(target=LABELS):
    return pd.DataFrame(X.numpy(), columns=NAMES).assign(y=target)


def write(folder, kind, table=None):
    """Write a table as a file, or as a folder of them, and return its path."""
    table = pa.table(frame()) if table is None else table
    path = folder / f"table.{kind}"
    if kind == "csv":
        pyarrow.csv.write_csv(table, path)
    elif kind == "parquet":
        pyarrow.parquet.write_table(table, path, row_group_size=12)
    elif kind == "feather":
        pyarrow.feather.write_feather(table, path, chunksize=12)
    else:
        path = folder / "parts"
        path.mkdir()
        for number, start in enumerate(range(0, len(table), 20)):
            part = table.slice(start, 20)
            pyarrow.parquet.write_table(part, path / f"part-{number}.parquet", row_group_size=7)
    return path


class Pairs(Dataset):
    def __len__(self):
        return len(X)

    def __getitem__(self, index):
        return X[index], Y[index]


class Dictionaries(Pairs):
    def __getitem__(self, index):
        return {"a": X[index], "text": "left out", "labels": Y[index]}


class Iterable(IterableDataset):
    def __iter__(self):
        yield from zip(X, Y, strict=True)


TABLES = {
    "pandas": lambda folder: frame(),
    "pandas, nullable": lambda folder: frame().convert_dtypes(),
    "polars": lambda folder: pl.from_pandas(frame()),
    "arrow": lambda folder: pa.table(frame()),
    **{kind: lambda folder, kind=kind: write(folder, kind) for kind in ("csv", "parquet")},
    **{kind: lambda folder, kind=kind: write(folder, kind) for kind in ("feather", "folder")},
    "path as text": lambda folder: str(write(folder, "parquet")),
}
PAIRS = {
    "numpy": (X.numpy(), Y.numpy()),
    "pandas": (frame()[NAMES], frame()["y"]),
    "polars": (pl.from_pandas(frame())[NAMES], pl.from_pandas(frame())["y"]),
    "arrow": (pa.table(frame()).select(NAMES), pa.table(frame())["y"]),
    "one column": (frame()[NAMES], frame()[["y"]]),
    "a frame and an array": (frame()[NAMES], Y.numpy()),
    "an array and a series": (X.numpy(), pl.Series(Y.numpy())),
    "dataset": Pairs(),
    "iterable": Iterable(),
    "loader": DataLoader(TensorDataset(X, Y), 16),
}


def assert_the_same_batches(data, **options):
    found = list(open_batches(data, 16, **options, **PLACE))
    assert [len(targets) for _, targets in found] == [16, 16, 16, 2]
    assert torch.allclose(torch.cat([inputs for inputs, _ in found]), X, rtol=0, atol=1e-6)
    assert torch.equal(torch.cat([targets for _, targets in found]), Y)


@pytest.mark.parametrize("name", TABLES)
def test_a_table_gives_the_batches_of_its_arrays(tmp_path, name):
    assert_the_same_batches(TABLES[name](tmp_path), target="y")


@pytest.mark.parametrize("name", PAIRS)
def test_so_does_a_pair(name):
    assert_the_same_batches(PAIRS[name])


@pytest.mark.parametrize("name", ["parquet", "feather", "folder"])
def test_a_file_gives_bit_by_bit_the_training_of_its_arrays(tmp_path, name):
    def trained(data, **options):
        torch.manual_seed(1)
        model = be.BatchEnsemble(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), 3)
        history = be.fit(model, data, epochs=2, batch_size=16, validation=(X, Y), **options)
        return history.losses, history.validation_nll

    assert trained(TABLES[name](tmp_path), target="y") == trained((X, Y))


@pytest.mark.parametrize("name", TABLES)
def test_prediction_and_scores_take_tables_too(tmp_path, name):
    torch.manual_seed(1)
    model = be.BatchEnsemble(nn.Linear(3, 2), 3)
    data = TABLES[name](tmp_path)
    expected = be.predict(model, X)
    with_target = be.predict(model, data, target="y")
    np.testing.assert_allclose(with_target.member_probs, expected.member_probs, atol=1e-6)
    scores = be.evaluate(model, data, target="y")
    assert scores["nll"] == pytest.approx(be.evaluate(model, (X, Y))["nll"], abs=1e-6)


def test_a_file_without_targets_is_predicted(tmp_path):
    path = write(tmp_path, "csv", pa.table(frame()[NAMES]))
    model = be.Single(nn.Linear(3, 2))
    assert len(be.predict(model, path)) == len(be.predict(model, path, target="y")) == 50


ANIMALS = np.array(["dog", "cat"])[Y.numpy()]


@pytest.mark.parametrize("name", ["pandas", "category", "polars", "arrow", "dictionary", "csv"])
def test_classes_in_words_are_numbered_and_named(tmp_path, name):
    table = frame(ANIMALS)
    arrow = pa.table(table)
    if name == "dictionary":
        arrow = arrow.set_column(3, "y", arrow["y"].dictionary_encode())
    data = {
        "pandas": lambda: table,
        "category": lambda: table.astype({"y": "category"}),
        "polars": lambda: pl.from_pandas(table),
        "arrow": lambda: arrow,
        "dictionary": lambda: write(tmp_path, "parquet", arrow),
        "csv": lambda: write(tmp_path, "csv", arrow),
    }[name]()
    batches = open_batches(data, 50, target="y", **PLACE)
    assert batches.class_names == ("cat", "dog")
    assert torch.equal(next(iter(batches))[1], 1 - Y)
    other = open_batches(data, 50, target="y", class_names=["dog", "cat", "eel"], **PLACE)
    assert torch.equal(next(iter(other))[1], Y)


def test_the_history_names_the_classes_and_validation_has_them_in_the_same_order():
    torch.manual_seed(1)
    model = be.Single(nn.Linear(3, 2))
    dogs = frame(ANIMALS).query("y == 'dog'")
    history = be.fit(model, frame(ANIMALS), target="y", validation=dogs, epochs=1)
    assert history.class_names == ["cat", "dog"]
    scores = be.evaluate(model, dogs, target="y", class_names=history.class_names)
    assert history.validation_nll == pytest.approx([scores["nll"]], abs=1e-6)
    assert be.History.from_dict(history.to_dict()).class_names == ["cat", "dog"]


class TwoInputs(nn.Module):
    """A small network with arguments by name."""

    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(11, 4), nn.Linear(4, 2)

    def forward(self, input_ids, attention_mask):
        mask = attention_mask.unsqueeze(-1)
        return self.head((self.embedding(input_ids) * mask).sum(1) / mask.sum(1))


class Sentences(Dataset):
    """Examples as a tokenizer gives them."""

    def __init__(self, form):
        generator = torch.Generator().manual_seed(0)
        self.ids = torch.randint(11, (24, 5), generator=generator)
        self.mask = (torch.rand(24, 5, generator=generator) < 0.8).float()
        self.mask[:, 0] = 1.0
        self.labels, self.form = self.ids[:, 0] % 2, form

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        ids, mask, label = self.ids[index], self.mask[index], self.labels[index]
        named = {"input_ids": ids, "attention_mask": mask}
        return {
            "dict": {**named, "labels": label, "text": "a sentence"},
            "dict in a pair": (named, label),
            "tuple in a pair": ((ids, mask), label),
        }[self.form]


@pytest.mark.parametrize("batches", ["shared", "independent", "split"])
@pytest.mark.parametrize("form", ["dict", "dict in a pair", "tuple in a pair"])
def test_a_network_gets_its_inputs_by_name_or_by_position(form, batches):
    torch.manual_seed(1)
    model = be.BatchEnsemble(TwoInputs(), members=3)
    data, target = Sentences(form), "labels" if form == "dict" else None
    options = {"batch_size": 8, "batches": batches, "validation": data, "target": target}
    history = be.fit(model, data, epochs=4, lr=0.05, clip=5.0, **options)
    assert history.losses[-1] < history.losses[0]
    loader = DataLoader(data, 7)
    scores = be.evaluate(model, loader, target=target)
    assert scores["nll"] == pytest.approx(history.validation_nll[-1], abs=1e-6)
    probs = be.predict(model, loader, target=target).member_probs
    for index in range(3):
        with torch.no_grad():
            alone = model.member(index).eval()(data.ids, data.mask).double().softmax(-1)
        np.testing.assert_allclose(probs[:, index], alone, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"micro_batch": 3}, {"average": 0.9}, {"patience": 2}])
def test_each_form_trains_to_the_same_weights(options):
    found = []
    for form in ("dict", "dict in a pair", "tuple in a pair"):
        torch.manual_seed(1)
        model = be.BatchEnsemble(TwoInputs(), members=3)
        target = "labels" if form == "dict" else None
        data = Sentences(form)
        be.fit(model, data, epochs=2, batch_size=8, validation=data, target=target, **options)
        found.append(torch.cat([each.flatten() for each in model.parameters()]))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


class HuggingFace:
    """What of ``datasets.Dataset`` is used."""

    def __init__(self):
        self.rows, self.format = Sentences("dict"), None
        self.features = {"labels": type("ClassLabel", (), {"names": ["even", "odd"]})()}

    def with_format(self, kind):
        self.format = kind
        return self

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        assert self.format == "torch"
        return self.rows[index]


HuggingFace.__module__ = "datasets.arrow_dataset"


def test_a_dataset_of_hugging_face_is_known_by_its_module():
    batches = open_batches(HuggingFace(), 8, target="labels", **PLACE)
    inputs, targets = next(iter(batches))
    assert list(inputs.values) == ["input_ids", "attention_mask"]
    assert targets.tolist() == Sentences("dict").labels[:8].tolist()
    assert batches.class_names == ("even", "odd")
    model = be.BatchEnsemble(TwoInputs(), members=2)
    be.fit(model, HuggingFace(), epochs=1, target="labels")
    assert len(be.predict(model, HuggingFace(), target="labels")) == 24


def test_all_splits_at_once_are_refused():
    kind = type("DatasetDict", (dict,), {"__module__": "datasets.dataset_dict"})
    with pytest.raises(TypeError, match=r"one split of a DatasetDict, .* 'train', 'test'"):
        open_batches(kind(train=1, test=2), 8, **PLACE)


@pytest.fixture
def images(tmp_path):
    from PIL import Image

    for name, value in (("cats", 0), ("dogs", 255)):
        (tmp_path / name).mkdir()
        for number in range(4):
            pixels = np.full((6, 6, 3), value, np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    return tmp_path


def test_class_folders_of_images_are_read(images):
    batches = open_batches(images, 8, **PLACE)
    [(inputs, targets)] = batches
    assert inputs.shape == (8, 3, 6, 6)
    assert torch.equal(inputs[:, 0, 0, 0], targets.float())
    assert batches.class_names == ("cats", "dogs")
    model = be.BatchEnsemble(nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(32, 2)), 2)
    assert be.fit(model, str(images), epochs=1).class_names == ["cats", "dogs"]
    assert len(be.predict(model, images)) == 8


def test_images_of_several_sizes_get_a_sentence(images):
    from PIL import Image

    Image.fromarray(np.zeros((5, 6, 3), np.uint8)).save(images / "cats" / "small.png")
    with pytest.raises(ValueError, match="must have the same shape; crop or pad them"):
        list(open_batches(images, 9, **PLACE))


@pytest.mark.parametrize("library", ["pyarrow", "torchvision.datasets"])
def test_a_missing_library_is_named_with_what_installs_it(images, monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    path = write(images, "parquet") if library == "pyarrow" else images
    with pytest.raises(ImportError, match=r"pip install (batchensemble\[files\]|torchvision)"):
        open_batches(path, 8, target="y", **PLACE)


def with_value(column, row, value):
    table = frame().astype({column: object})
    table.loc[row, column] = value
    return table


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (with_value("b", 7, "abc"), r"column 'b' must hold a .*got 'abc' in row 8( \(line 9\))?;"),
        (with_value("b", 7, None), "column 'b' must hold a .*got no value in row 8"),
        (with_value("y", 9, None), "column 'y' must hold a .*got no value in row 10"),
        (frame(ANIMALS).assign(y=[None, *ANIMALS[1:]]), "a class in every row, got no value in ro"),
        (frame().assign(b=np.inf), "column 'b' must hold a finite number .*got inf in row 1"),
        (
            frame().assign(b=1e300),
            r"'b' must hold numbers up to 3.4e\+38 \(float32\), got 1e\+300 in row 1",
        ),
        (frame().assign(b="x"), "column 'b' must hold a .*got 'x' in row 1"),
        (
            frame().assign(b=pd.Timestamp("2026-01-01")),
            "column 'b' must hold (numbers, got datetime64|a number .*2026)",
        ),
        (frame(Y.numpy() - 1), "y must hold class numbers from 0 on, got -1"),
        (frame()[["y"]], "at least one column of features"),
        (frame().rename(columns={"y": "label"}), r"has no column 'y'.*\(columns: a, b, c, label"),
        (frame().set_axis(["a", "a", "c", "y"], axis=1), "two columns"),
        (frame()[:0], "at least one"),
    ],
)
@pytest.mark.parametrize("kind", ["pandas", "csv", "parquet", "feather"])
def test_bad_tables_are_refused_in_a_sentence(tmp_path, table, sentence, kind):
    data = table
    if kind == "csv":
        data = tmp_path / "table.csv"
        table.to_csv(data, index=False)
    elif kind != "pandas":
        try:
            arrow = pa.Table.from_pandas(table, preserve_index=False)
        except (pa.ArrowInvalid, pa.ArrowTypeError, ValueError):
            pytest.skip("such a file cannot be written")
        data = write(tmp_path, kind, arrow)
    with pytest.raises((ValueError, TypeError), match=sentence):
        next(iter(open_batches(data, 50, target="y", **PLACE)))


@pytest.mark.parametrize("kind", ["csv", "parquet", "feather"])
@pytest.mark.parametrize("damage", ["empty", "cut", "other"])
def test_damaged_files_are_refused_by_name(tmp_path, kind, damage):
    path = write(tmp_path, kind)
    content = path.read_bytes()
    if damage == "cut":
        content = content[: len(content) // 2]
    path.write_bytes({"empty": b"", "cut": content, "other": b"\xff\xfe\x00PAR1"}[damage])
    with pytest.raises(ValueError, match=rf"table.{kind}"):
        next(iter(open_batches(path, 50, target="y", **PLACE)))


def test_a_row_with_more_fields_than_the_header_is_named(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("a,b,y\n1,2,0\n1,2,3,4\n")
    with pytest.raises(
        ValueError, match=r"table.csv is not a regular table: expected 3 fields in line 3, got 4"
    ):
        open_batches(path, 50, target="y", **PLACE)


def test_files_of_other_columns_in_one_folder_are_refused(tmp_path):
    path = write(tmp_path, "folder")
    pyarrow.parquet.write_table(pa.table({"a": [1.0], "y": [0]}), path / "part-9.parquet")
    with pytest.raises(ValueError, match=r"must have the columns of part-0.parquet .*in part-9"):
        open_batches(path, 50, target="y", **PLACE)


def test_the_order_of_columns_may_differ_between_files(tmp_path):
    path = write(tmp_path, "folder")
    last = path / "part-2.parquet"
    table = pyarrow.parquet.read_table(last)
    pyarrow.parquet.write_table(table.select(["y", "c", "a", "b"]), last)
    assert_the_same_batches(path, target="y")


def test_the_index_of_a_data_frame_is_no_feature(tmp_path):
    path = tmp_path / "table.parquet"
    frame().sample(frac=1.0, random_state=0).sort_index().iloc[::-1].iloc[::-1].to_parquet(path)
    assert_the_same_batches(path, target="y")


@pytest.mark.parametrize(
    ("data", "options", "error", "sentence"),
    [
        ("nowhere.csv", {"target": "y"}, FileNotFoundError, "no file or folder nowhere.csv"),
        (Path(__file__), {"target": "y"}, ValueError, r"format of .* is unknown: give .csv, .parq"),
        (Path(__file__).parent, {"target": "y"}, ValueError, "neither Parquet files nor images"),
        (frame(), {}, ValueError, "target is missing: name the column .* 'a', 'b', 'c', 'y'"),
        ((X, Y), {"target": "y"}, ValueError, r"a pair \(X, y\) has its own, got 'y'"),
        (X, {}, TypeError, "got Tensor"),
        (None, {}, TypeError, "got NoneType"),
        (Dictionaries(), {}, ValueError, "target is missing: .*'a', 'text', 'labels'"),
        (Dictionaries(), {"target": "label"}, ValueError, "there is no 'label': .*'labels'"),
        ((X, Y), {"memory_limit": 0}, ValueError, "memory_limit must be at least 1"),
        (frame(ANIMALS), {"target": "y", "class_names": ["cats", "dog"]}, ValueError, "did you"),
    ],
)
def test_what_cannot_be_data_is_refused(data, options, error, sentence):
    with pytest.raises(error, match=sentence):
        next(iter(open_batches(data, 50, **options, **PLACE)))


def test_a_file_without_target_names_the_argument(tmp_path):
    with pytest.raises(ValueError, match=r"target is missing: name the column of table.csv"):
        open_batches(write(tmp_path, "csv"), 50, **PLACE)


def test_small_files_lie_in_memory_as_arrays(tmp_path):
    batches = open_batches(write(tmp_path, "csv"), 50, target="y", **PLACE)
    assert isinstance(batches, ArrayBatches)


def test_several_inputs_are_refused_by_a_network_that_takes_one():
    model = be.MIMO(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), members=2)
    with pytest.raises(ValueError, match="MIMO takes one tensor of inputs"):
        be.fit(model, Dictionaries(), target="labels", epochs=1)


def test_an_unknown_input_is_named():
    model = be.BatchEnsemble(TwoInputs(), members=2)
    with pytest.raises(ValueError, match=r"does not take examples with a of shape \[3\]"):
        be.fit(model, Dictionaries(), target="labels", epochs=1)


def test_a_data_frame_with_weights_trains_as_its_arrays():
    weights = torch.linspace(0.5, 2.0, 50)

    def trained(data):
        torch.manual_seed(1)
        return be.fit(be.BatchEnsemble(nn.Linear(3, 2), 3), data, epochs=1, batch_size=16).losses

    assert trained((frame()[NAMES], frame()["y"], weights)) == trained((X, Y, weights))
