"""The commands read tables however they are written, and copy what stands in them."""

import csv

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from batchensemble.cli.app import app
from trained_before import part_as_before

QUICK = ["--epochs", "1", "--hidden", "4", "--members", "2", "--quiet"]
IDS = ["007", "NA", "1e5", "None", "a b", "nan"]


def run(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def table(rows=60):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(rows, 2)).round(3), columns=["größe", "b"])
    frame["y"] = np.array(["NA", "007", "süß"])[np.arange(rows) % 3]
    return frame.assign(id=np.array(IDS)[np.arange(rows) % len(IDS)])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a folder with a model of a file that does not say how it is encoded."""
    folder = tmp_path_factory.mktemp("trained")
    file = folder / "table.csv"
    table().drop(columns="id").to_csv(file, index=False, sep=";", decimal=",", encoding="cp1252")
    command = ["train", "--data", file, "--target", "y", *QUICK, "--encoding", "cp1252"]
    done = run(*command, "--out", folder / "m")
    assert done.exit_code == 0, done.output
    return folder


def test_training_without_the_option_names_it(trained, tmp_path):
    command = ["train", "--data", trained / "table.csv", "--target", "y", "--out", tmp_path / "m"]
    done = run(*command, *QUICK)
    assert done.exit_code == 2
    assert "is not text in UTF-8" in done.output
    assert "--encoding cp1252" in done.output
    assert not (tmp_path / "m").exists()


def test_what_the_model_was_told_is_remembered(trained, tmp_path):
    model = trained / "m"
    for command in (["evaluate", model], ["decide", model], ["report", model, "--format", "md"]):
        assert run(*command).exit_code == 0
    again = run("evaluate", model, "--data", trained / "table.csv", "--json")
    assert again.exit_code == 0, again.output
    (model / "decision.json").unlink()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
def test_ids_and_classes_come_back_as_they_stand(trained, tmp_path, encoding):
    frame = table()
    frame.to_csv(tmp_path / "new.csv", index=False, sep="\t", encoding=encoding)
    out = tmp_path / "out.csv"
    command = ["predict", trained / "m", "--data", tmp_path / "new.csv", "--out", out]
    done = run(*command, "--id", "id", "--quiet")
    assert done.exit_code == 0, done.output
    with out.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == frame["id"].tolist()
    assert [name for name in rows[0] if name.startswith("prob_")] == [
        "prob_007", "prob_NA", "prob_süß",
    ]  # fmt: skip
    assert {row["label"] for row in rows} <= {"007", "NA", "süß"}


@pytest.mark.parametrize("command", ["evaluate", "decide", "predict", "report"])
def test_every_command_takes_the_options(trained, tmp_path, command):
    file = tmp_path / "new.csv"
    table().to_csv(file, index=False, sep=":", encoding="latin-1")
    options = ["--data", file]
    if command == "predict":
        options += ["--out", tmp_path / "out.csv"]
    elif command == "report":
        options += ["--out", tmp_path / "page.md", "--format", "md"]
    assert run(command, trained / "m", *options).exit_code == 2
    done = run(command, trained / "m", *options, "--separator", ":", "--encoding", "latin-1")
    assert done.exit_code == 0, done.output
    wrong = run(command, trained / "m", *options, "--separator", "::")
    assert wrong.exit_code == 2
    assert "separator must be one character" in wrong.output
    (trained / "m" / "decision.json").unlink(missing_ok=True)


def test_compare_takes_them_and_its_report_remembers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table().drop(columns="id").to_csv("t.csv", index=False, sep=":", decimal=",")
    command = ["compare", "--data", "t.csv", "--target", "y", "--methods", "single", "--out", "c"]
    command += ["--epochs", "1", "--hidden", "4", "--quiet"]
    assert run(*command).exit_code == 2
    done = run(*command, "--separator", ":", "--decimal", ",")
    assert done.exit_code == 0, done.output
    assert run("report", "c", "--format", "md").exit_code == 0


def test_a_model_of_before_is_read_by_the_rule_of_before(tmp_path, monkeypatch):
    """It knows ``7``, which was ``007`` in its file, and a name with a blank at its end."""
    import json

    part_as_before(monkeypatch)
    numbers = np.random.default_rng(0).normal(size=(60, 2))
    frame = pd.DataFrame(numbers, columns=["a", "b"]).assign(y=["7", "8"] * 30)
    frame.to_csv(tmp_path / "t.csv", index=False)
    command = ["train", "--data", tmp_path / "t.csv", "--target", "y", *QUICK]
    done = run(*command, "--architecture", "perceptron", "--out", tmp_path / "m")
    assert done.exit_code == 0, done.output
    expected = run("evaluate", tmp_path / "m", "--json").stdout
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    encoding = config["data"].pop("encoding")
    for name in ("mean", "scale"):
        config["data"][name] = [each[name] for each in encoding["columns"]]
    for name in ("dialect", "ordered", "split"):
        del config["data"][name]
    config["encoding"] = None
    config["data"]["feature_names"] = ["a ", "b"]
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    frame.assign(y=["007", "8.0"] * 30).rename(columns={"a": "a "}).to_csv(
        tmp_path / "new.csv", index=False
    )
    of_file = run("evaluate", tmp_path / "m", "--data", tmp_path / "new.csv", "--json")
    assert of_file.exit_code == 0, of_file.output
    out = tmp_path / "out.csv"
    assert run("predict", tmp_path / "m", "--data", tmp_path / "new.csv", "--out", out,
               "--quiet").exit_code == 0  # fmt: skip
    assert pd.read_csv(out, dtype=str)["label"].isin(["7", "8"]).all()
    (tmp_path / "t.csv").write_bytes((tmp_path / "new.csv").read_bytes())
    again = run("evaluate", tmp_path / "m", "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout) == json.loads(expected)
