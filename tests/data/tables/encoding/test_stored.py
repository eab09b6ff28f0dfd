"""An encoding is stored as JSON, to the last bit, and read with suspicion."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import batchensemble as be
from batchensemble.data.tables.column_names import encoding_of as encoding_of_model
from batchensemble.data.tables.encoding.encoding import TableEncoding
from batchensemble.data.tables.schema import Columns
from tables import block_of, encoding_of, everything


@pytest.mark.parametrize("layout", ["codes", "plain"])
def test_an_encoding_comes_back_from_json_bit_by_bit(layout):
    frame = everything()
    encoding = encoding_of(frame, layout)
    written = json.dumps(encoding.to_dict(), allow_nan=False)
    found = TableEncoding.from_dict(json.loads(written))
    assert found == encoding
    assert json.dumps(found.to_dict()) == written
    block = block_of(frame)
    np.testing.assert_array_equal(found.encode(block, "t"), encoding.encode(block, "t"))


NUMBER = {"name": "a", "kind": "number"}
COLUMNS = {
    "no list": {"layout": "codes", "columns": {}},
    "no columns": {"layout": "codes", "columns": []},
    "no dictionary": [NUMBER],
    "another layout": {"layout": "odd", "columns": [NUMBER]},
    "a setting beside": {"layout": "codes", "columns": [NUMBER], "more": 1},
    "two of a name": {"layout": "codes", "columns": [NUMBER, NUMBER]},
    "none that is used": {"layout": "codes", "columns": [{"name": "a", "kind": "left out"}]},
}
COLUMN = {
    "text": "a",
    "no kind": {"name": "a"},
    "another kind": {"name": "a", "kind": "odd"},
    "a name that is no text": {"name": 1, "kind": "number"},
    "a setting beside": {**NUMBER, "__class__": "os"},
    "a scale of 0": {**NUMBER, "scale": 0},
    "a negative scale": {**NUMBER, "scale": -1.0},
    "a scale that is none": {**NUMBER, "scale": float("nan")},
    "an infinite mean": {**NUMBER, "mean": float("inf")},
    "a mean of text": {**NUMBER, "mean": "0"},
    "a truth value as mean": {**NUMBER, "mean": True},
    "gaps of text": {**NUMBER, "gaps": "no"},
    "knots alone": {**NUMBER, "knots": [0.0, 1.0]},
    "knots that fall": {**NUMBER, "knots": [1.0, 0.0], "normal": [0.0, 1.0]},
    "knots of text": {**NUMBER, "knots": ["0", "1"], "normal": [0.0, 1.0]},
    "knots that are none": {**NUMBER, "knots": [float("nan"), 1.0], "normal": [0.0, 1.0]},
    "infinite quantiles": {**NUMBER, "knots": [0.0, 1.0], "normal": [0.0, float("inf")]},
    "knots that are no list": {**NUMBER, "knots": 7},
    "a level twice": {"name": "a", "kind": "category", "levels": ["b", "b"]},
    "levels that are numbers": {"name": "a", "kind": "category", "levels": [1, 2]},
    "a date without a form": {"name": "a", "kind": "date"},
    "a date of another form": {"name": "a", "kind": "date", "form": "%Q"},
    "parts that are none": {"name": "a", "kind": "date", "form": "ISO8601", "parts": ["era"]},
    "a unit that is none": {**NUMBER, "form": "(a+)+#"},
    "a long unit": {**NUMBER, "form": "#" + "k" * 99},
    "a unit of a category": {"name": "a", "kind": "category", "levels": ["b"], "form": "$"},
}
WRONG = {
    **COLUMNS,
    **{name: {"layout": "codes", "columns": [each]} for name, each in COLUMN.items()},
}


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize("written", WRONG.values(), ids=WRONG.keys())
def test_what_cannot_be_an_encoding_is_refused(written):
    with pytest.raises(
        ValueError, match=r"^(an encoding|a column|the treatment of column)"
    ) as error:
        TableEncoding.from_dict(written)
    assert len(str(error.value)) < 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    encoding = encoding_of(everything(), "plain")
    torch.manual_seed(0)
    model = be.Single(nn.Sequential(nn.Linear(encoding.inputs.width, 2)))
    columns = Columns(encoding.names, ("no", "yes"), encoding, "y")
    columns.store_in(model)
    be.save(model.eval(), folder, data=columns.to_dict())
    return folder


def test_a_saved_model_encodes_frames_and_files(folder, tmp_path):
    frame = everything()
    frame.to_csv(tmp_path / "rows.csv", index=False)
    model = be.load(folder)
    inputs = encoding_of(frame, "plain").encode(block_of(frame), "table")
    expected = be.predict(model, inputs).probs
    for data in (frame, frame[frame.columns[::-1]], tmp_path / "rows.csv"):
        np.testing.assert_allclose(be.predict(model, data).probs, expected, atol=1e-6)
    config = json.loads((folder / "config.json").read_text())
    assert Columns.from_config(config).encoding == encoding_of(frame, "plain")


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize("place", ["model", "data"])
@pytest.mark.parametrize("written", WRONG.values(), ids=WRONG.keys())
def test_a_folder_with_what_cannot_be_is_refused(written, place, folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    assert columns_of(folder).encoding is not None
    if place == "model":
        config["encoding"] = written
    else:
        config["data"]["encoding"] = written
    copy = tmp_path / "model"
    copy.mkdir()
    for each in folder.iterdir():
        if each.is_file():
            (copy / each.name).write_bytes(each.read_bytes())
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"encoding|treatment|a column|is damaged"):
        columns_of(copy)


def columns_of(folder):
    """Return the columns of a saved model, as its own predictions and the commands read them."""
    encoding_of_model(be.load(folder))
    return Columns.from_config(json.loads((folder / "config.json").read_text()))
