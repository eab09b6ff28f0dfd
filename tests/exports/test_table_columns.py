"""A file takes the columns of a table by name, and makes of them what the model makes of them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest

import batchensemble as be
from batchensemble.data.tables.blocks import Block
from batchensemble.data.tables.columns import as_table
from batchensemble.data.tables.encoding.encoding import fit_encoding, values_of
from batchensemble.exports.example_rows import example_rows
from batchensemble.exports.table_columns import ColumnGraph, column_arrays

pytestmark = pytest.mark.usefixtures("as_users_run_it")

EXAMPLE = Path(__file__).parents[2] / "examples" / "serve_onnx.py"


def people(rows: int, seed: int = 0) -> pd.DataFrame:
    """Numbers with gaps, words, truth values, dates over leap years, and prices."""
    rng = np.random.default_rng(seed)
    age = np.where(rng.random(rows) < 0.1, np.nan, rng.normal(40, 9, rows))
    days = rng.integers(0, 40_000, rows)
    when = pd.to_datetime("1890-12-20") + pd.to_timedelta(days * 86_400 + 3600 * (days % 24), "s")
    return pd.DataFrame(
        {
            "age": age,
            "job": rng.choice(["cook", "smith", None, "7"], rows),
            "married": rng.choice([True, False], rows),
            "when": when.where(rng.random(rows) > 0.1),
            "pay": [f"${each}" for each in rng.integers(1, 999, rows)],
        }
    )


def outcome(frame: pd.DataFrame) -> np.ndarray:
    return np.where((frame["age"].fillna(40) > 40) == (frame["job"] == "cook"), "yes", "no")


def encoding_of(frame: pd.DataFrame, layout: str):
    table = as_table(frame)
    return fit_encoding(
        lambda: [Block(table.rows, values_of(table))], table.names, "people", layout=layout
    )


def encoded_by_graph(encoding, arrays) -> np.ndarray:
    helper = onnx.helper
    out = helper.make_tensor_value_info("out", 1, ["batch", encoding.inputs.width])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["out"])], "g", [], [out])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    ColumnGraph(encoding).joined_to(proto, "x")
    onnx.checker.check_model(proto)
    return onnxruntime.InferenceSession(proto.SerializeToString()).run(None, arrays)[0]


@pytest.mark.parametrize("layout", ["codes", "plain"])
def test_the_graph_encodes_what_the_table_holds(layout):
    encoding, new = encoding_of(people(400), layout), people(900, seed=1)
    new.loc[:3, "age"] = [-1e9, 1e9, 0.0, np.nan]
    new.loc[:1, "job"] = ["unseen", " cook "]
    wanted = encoding.encode_table(as_table(new), "people")
    given = encoded_by_graph(encoding, column_arrays(encoding, as_table(new)))
    np.testing.assert_allclose(given, wanted, rtol=0, atol=1e-6)


def test_words_are_levels_however_a_gap_is_written():
    encoding = encoding_of(people(400)[["job"]], "codes")
    words = np.array(["cook", "7", "7.0", "", "NA", "unseen"], dtype=object)
    found = encoded_by_graph(encoding, {"job": words})[:, 0]
    levels = [*encoding.used[0].levels, "gap"]
    names = ["unknown" if not code else levels[int(code) - 1] for code in found]
    assert names == ["cook", "7", "7", "gap", "gap", "unknown"]


def test_rows_are_made_up_from_the_encoding_alone():
    encoding = encoding_of(people(400), "codes")
    made = encoding.encode_table(as_table(example_rows(encoding)), "made up")
    assert np.isfinite(made).all()
    assert (made.std(0) > 0).all()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    frame = people(600)
    model = be.BatchEnsembleClassifier(members=3, hidden=(16,), epochs=4, random_state=0)
    model.fit(frame, outcome(frame))
    model.decide(risk=0.5)
    path = tmp_path_factory.mktemp("table") / "people.onnx"
    return model, be.export(model, path, frame[:40])


def test_an_estimator_becomes_a_file_that_takes_its_columns(exported):
    model, found = exported
    assert list(found.inputs) == list(model.encoding_.names)
    assert found.largest_difference < 1e-5
    assert any("seconds since 1970" in note for note in found.notes)
    new = people(50, seed=2)
    session = onnxruntime.InferenceSession(found.path)
    given = dict(
        zip(
            found.outputs,
            session.run(None, column_arrays(model.encoding_, as_table(new))),
            strict=True,
        )
    )
    np.testing.assert_allclose(given["mean"], model.predict_proba(new), atol=1e-5)
    np.testing.assert_allclose(
        given["epistemic"], model.predict_uncertainty(new)["epistemic"], atol=1e-5
    )
    assert (given["answer"] == model.accepts(new)).all()
    entry = session.get_modelmeta().custom_metadata_map["batchensemble"]
    assert json.loads(entry)["class_names"] == ["no", "yes"]


def test_the_example_serves_it_without_torch_or_this_library(exported, tmp_path):
    model, found = exported
    new = people(20, seed=3)
    table = new.assign(pay=new["pay"].str.lstrip("$"))
    table.to_csv(tmp_path / "rows.csv", index=False)
    code = (
        "import sys, runpy\n"
        "class Blocked:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'batchensemble', 'pandas', 'onnx'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Blocked())\n"
        f"sys.argv = ['serve', {str(found.path)!r}, {str(tmp_path / 'rows.csv')!r}]\n"
        f"runpy.run_path({str(EXAMPLE)!r}, run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 20
    answers, labels = model.accepts(new), model.predict(new)
    for line, answered, label in zip(lines, answers, labels, strict=True):
        assert (f": {label} (" if answered else ": no answer") in line


def test_an_estimator_must_be_fitted(tmp_path):
    with pytest.raises(ValueError, match="not fitted yet: call fit first"):
        be.export(be.BatchEnsembleClassifier(), tmp_path / "m.onnx", people(3))


@pytest.mark.parametrize("method", ["mimo", "masksembles", "mc_dropout", "tabm_mini", "last_layer"])
def test_every_method_of_tables_can_be_exported(method, tmp_path):
    frame = people(200)[["age", "job"]]
    classifier = be.BatchEnsembleClassifier(
        method=method, members=3, hidden=(64,), epochs=3, random_state=0
    ).fit(frame, outcome(people(200)))
    file = be.export(classifier, tmp_path / "m.onnx", frame, "mean")
    session = onnxruntime.InferenceSession(file.path)
    for rows in (1, 7):
        columns = {"age": frame["age"].to_numpy()[:rows], "job": frame["job"].to_numpy()[:rows]}
        columns["job"] = np.array(["" if each is None else each for each in columns["job"]], object)
        [given] = session.run(None, columns)
        np.testing.assert_allclose(given, classifier.predict_proba(frame[:rows]), atol=1e-5)
