"""``export``: from a folder to one file that takes the columns of the table."""

import json

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from typer.testing import CliRunner

from batchensemble.cli.app import app

pytestmark = pytest.mark.usefixtures("as_users_run_it")


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A quick model of a table of prices."""
    path = tmp_path_factory.mktemp("export")
    rng = np.random.default_rng(0)
    kind = rng.choice(["flat", "house"], 400)
    size = np.where(rng.random(400) < 0.1, np.nan, rng.normal(80, 20, 400)).round(2)
    price = np.where(kind == "house", 300, 150) + np.nan_to_num(size) + rng.normal(0, 5, 400)
    frame = pd.DataFrame({"size": size, "kind": kind, "price": price.round(3)})
    frame.to_csv(path / "prices.csv", index=False)
    done = run("train", "--data", path / "prices.csv", "--target", "price", "--members", 2,
               "--epochs", 3, "--hidden", 16, "--out", path / "run")  # fmt: skip
    assert done.exit_code == 0, done.output
    return path / "run"


def test_a_folder_becomes_a_file_that_predicts_as_predict_does(folder):
    done = run("export", folder, "--quantiles", "0.1,0.9")
    assert done.exit_code == 0, done.output
    assert "takes kind string [batch]" in done.output
    assert "largest difference" in done.output
    frame = pd.read_csv(folder.parent / "prices.csv")
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    names = [each.name for each in session.get_outputs()]
    columns = {"size": frame["size"].to_numpy(), "kind": frame["kind"].to_numpy(object)}
    given = dict(zip(names, session.run(None, columns), strict=True))
    out = folder.parent / "predictions.csv"
    done = run("predict", folder, "--data", folder.parent / "prices.csv", "--out", out)
    assert done.exit_code == 0, done.output
    wanted = pd.read_csv(out)
    np.testing.assert_allclose(given["mean"], wanted["mean"], rtol=1e-4)
    np.testing.assert_allclose(given["epistemic"], wanted["epistemic"], rtol=1e-3, atol=1e-3)
    assert given["quantiles"].shape == (400, 2)
    about = json.loads(session.get_modelmeta().custom_metadata_map["batchensemble"])
    assert [each["name"] for each in about["columns"]] == ["size", "kind"]


def test_other_formats_and_folders_are_refused_in_a_sentence(folder, tmp_path):
    done = run("export", folder, "--format", "h5")
    assert done.exit_code == 2
    assert "--format must be one of onnx, pt2" in done.stderr
    done = run("export", tmp_path)
    assert done.exit_code == 2
    assert "Traceback" not in done.output
