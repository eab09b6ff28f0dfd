"""``train``, ``evaluate``, ``predict``: what they leave, and what they say of bad input."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

import batchensemble as be
from batchensemble.cli.app import app
from batchensemble.cli.workflows import predict as predict_file
from batchensemble.cli.workflows import scored_rows
from batchensemble.cli.workflows.report import subject_from_folder
from batchensemble.data.datasets import load_dataset
from batchensemble.ensembles.networks import multilayer_perceptron
from batchensemble.report.plots.training import loss_curves
from batchensemble.report.sections import figures

QUICK = ["--data", "breast_cancer", "--epochs", "2", "--hidden", "8", "--members", "2"]


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def sentence(done) -> str:
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output
    return " ".join(done.stderr.split())


def lines_of(folder: Path) -> list[dict]:
    """Return the lines of a history, without the seconds."""
    lines = (folder / "history.jsonl").read_text().splitlines()
    return [{**json.loads(line), "seconds": 0} for line in lines]


def write_csv(path: Path, rows: int = 60) -> Path:
    rng = np.random.default_rng(0)
    kinds = np.arange(rows) % 2
    frame = pd.DataFrame(rng.normal(kinds[:, None], 1, (rows, 3)) * [1, 50, 1] + [0, 900, 0])
    frame.columns = ["width", "height", "depth"]
    frame.insert(0, "name", [f"{index:03d}" for index in range(rows)])
    frame["kind"] = np.array(["a", "b"])[kinds]
    frame.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A model of a file; ``plants.csv`` beside it has its rows and their names."""
    folder = tmp_path_factory.mktemp("trained")
    table = write_csv(folder / "plants.csv")
    pd.read_csv(table).drop(columns="name").to_csv(folder / "train.csv", index=False)
    options = ["--epochs", 30, "--lr", 0.01, "--hidden", 8, "--members", 3, "--set", "rank=1"]
    done = run(
        "train", "--data", folder / "train.csv", "--target", "kind", *options, "--out", folder / "m"
    )
    assert done.exit_code == 0, done.output
    return folder


def test_train_leaves_all_that_belongs_to_a_model(tmp_path):
    done = run("train", *QUICK, "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert "accuracy" in done.output
    names = {each.name for each in (tmp_path / "run").iterdir()}
    files = {"model.safetensors", "config.json", "run.toml", "history.json", "history.jsonl"}
    assert names == files | {"checkpoints"}
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert len(history["losses"]) == len(history["validation_nll"]) == 2
    assert [line["event"] for line in lines_of(tmp_path / "run")] == ["evaluation", "epoch"] * 2 + [
        "end"
    ]
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["data"]["class_names"] == ["malignant", "benign"]
    assert {"batchensemble", "torch"} <= set(config["versions"])


def test_the_model_is_the_one_that_fit_trains(tmp_path):
    run("train", *QUICK, "--set", "mode=additive", "--set", "rank=2", "--out", tmp_path)
    loaded = be.load(tmp_path)
    data = load_dataset("breast_cancer")
    torch.manual_seed(0)
    model = be.BatchEnsemble(multilayer_perceptron(30, [8], 2), 2, mode="additive", rank=2)
    be.fit(model, data.train, validation=data.held_out, epochs=2)
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])


def test_the_configuration_that_is_left_repeats_the_run(tmp_path):
    run("train", *QUICK, "--lr", "0.01", "--set", "bias=shared", "--out", tmp_path / "one")
    done = run("train", "--config", tmp_path / "one" / "run.toml", "--out", tmp_path / "two")
    assert done.exit_code == 0, done.output
    for name in ("model.safetensors", "run.toml"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_flags_go_before_a_configuration_and_set_before_both(tmp_path):
    (tmp_path / "run.json").write_text('{"epochs": 5, "members": 3, "hidden": [4]}')
    flags = ["--data", "breast_cancer", "--members", 2, "--epochs", 4, "--set", "epochs=1"]
    run("train", "--config", tmp_path / "run.json", *flags, "--out", tmp_path / "run")
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert len(history["losses"]) == 1
    assert be.load(tmp_path / "run").members == 2
    assert be.load(tmp_path / "run").network[0].out_features == 4


@pytest.mark.parametrize("method", ["single", "deep", "mimo"])
def test_each_method_can_be_trained_and_scored(method, tmp_path):
    options = ["--data", "breast_cancer", "--epochs", 1, "--hidden", 8, "--method", method]
    assert run("train", *options, "--out", tmp_path, "--quiet").output == ""
    done = run("evaluate", tmp_path, "--json")
    assert done.exit_code == 0, done.output
    scores = be.evaluate(be.load(tmp_path), load_dataset("breast_cancer").held_out)
    assert json.loads(done.stdout) == dict(scores)


def test_a_network_of_ones_own_is_trained_and_loads_by_itself(tmp_path, monkeypatch):
    (tmp_path / "mine_of_train.py").write_text(
        "from torch import nn\n"
        "def make():\n    return nn.Sequential(nn.Linear(30, 6), nn.Tanh(), nn.Linear(6, 2))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    options = ["--data", "breast_cancer", "--epochs", 1, "--network", "mine_of_train:make"]
    done = run("train", *options, "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert type(be.load(tmp_path / "run", trust=True).network[1]).__name__ == "Tanh"
    again = ["train", "--config", tmp_path / "run" / "run.toml", "--out", tmp_path / "again"]
    refused = run(*again)
    assert refused.exit_code == 2
    assert "names the network 'mine_of_train:make'" in refused.output
    assert "--trust" in refused.output
    assert not (tmp_path / "again").exists()
    for word in (["--trust"], ["--network", "mine_of_train:make", "--resume"]):
        assert run(*again, *word).exit_code == 0


def test_resume_starts_afresh_then_goes_on_then_changes_nothing(tmp_path):
    command = ["train", *QUICK, "--resume", "--out", tmp_path]
    assert run(*command).exit_code == 0
    before = {name: (tmp_path / name).read_bytes() for name in ("model.safetensors", "run.toml")}
    assert run(*command).exit_code == 0
    for name, content in before.items():
        assert (tmp_path / name).read_bytes() == content
    assert "give --resume" in sentence(run("train", *QUICK, "--out", tmp_path))
    assert "number of members" in sentence(run(*command, "--members", 3))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--method", "bacth"], "did you mean 'batch'?"),
        (["--members", 0], "members must be at least 1, got 0"),
        (["--method", "single", "--members", 3], "method single has one member"),
        (["--epochs", 0], "epochs must be at least 1, got 0"),
        (["--hidden", "8,x"], "hidden must be whole numbers"),
        (["--set", "epoch=3"], "there is no setting 'epoch'; did you mean 'epochs'?"),
        (["--set", "rank"], "give settings as key=value"),
        (["--set", "stacked=true"], "there is no setting 'stacked'"),
        (["--set", "hidden=wide"], "hidden must be whole numbers"),
        (["--data", "nowhere.csv"], "there is no file nowhere.csv"),
        (["--data", "brest_cancer"], "brest_cancer"),
        (["--data", "diabetes", "--target", "sex"], "target is for a file"),
        (["--network", "nowhere:make"], "nowhere"),
        (["--network", "a:b", "--hidden", "8"], "drop it, or network"),
        (["--config", "nowhere.toml"], "nowhere.toml"),
        (["--lr", "fast"], "fast"),
        (["--memory-limit", "a lot"], "memory_limit must be bytes, such as 512MB"),
        (["--memory-limit", "0"], "memory_limit must be at least 1, got 0"),
        (["--loss", "mes"], "did you mean 'mse'?"),
        (
            ["--loss", "mse"],
            "give --task regression, which models it, or --task regression --loss",
        ),
        (["--loss", "huber"], "loss 'huber' models no noise, so that intervals are too narrow"),
        (["--loss", "quantile"], "breast_cancer has classes, and loss=Quantile is for numbers"),
        (["--task", "regression", "--loss", "mse"], "and loss=MSE is for numbers"),
        (["--validation", "x.csv"], "breast_cancer has its own held-out rows"),
        (["--trackers", "tensorbord"], "did you mean 'tensorboard'?"),
        (["--set", "optimizer=adamm"], "did you mean 'adam'?"),
        (["--set", "stop_on=f1"], "stop_on must be one of"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(arguments, expected, tmp_path):
    done = run("train", "--data", "breast_cancer", *arguments, "--out", tmp_path / "out")
    assert expected in sentence(done)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_target_leaves_nothing_but_what_was_there(tmp_path):
    table = write_csv(tmp_path / "plants.csv")
    there = tmp_path / "there"
    there.mkdir()
    for out in (there, tmp_path / "runs" / "new"):
        done = run("train", "--data", table, "--target", "knid", "--out", out)
        assert "did you mean 'kind'?" in sentence(done)
    assert sorted(tmp_path.iterdir()) == [table, there]
    assert list(there.iterdir()) == []


@pytest.mark.parametrize("trackers", [[], ["--trackers", "tensorboard"]])
@pytest.mark.parametrize("limit", ["10KB", "1GiB"])
def test_a_network_that_the_first_batch_does_not_fit_leaves_nothing(
    limit, trackers, tmp_path, monkeypatch
):
    pytest.importorskip("tensorboard")
    (tmp_path / "alone.py").write_text(
        "from torch import nn\n"
        "def make():\n"
        "    return nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (-1, 30)), nn.Linear(30, 2),\n"
        "        nn.Flatten(0), nn.Unflatten(0, (1, 2)))\n"  # takes one example alone
    )
    monkeypatch.syspath_prepend(tmp_path)
    frame = pd.DataFrame(load_dataset("breast_cancer").train[0]).add_prefix("x")
    frame.assign(y=load_dataset("breast_cancer").train[1]).to_csv(tmp_path / "t.csv", index=False)
    before = sorted(tmp_path.iterdir())
    data = ["--data", tmp_path / "t.csv", "--target", "y", "--memory-limit", limit, *trackers]
    done = run("train", *data, "--network", "alone:make", "--method", "single", "--out",
               tmp_path / "run")  # fmt: skip
    assert "does not take examples" in sentence(done)
    assert [each for each in sorted(tmp_path.iterdir()) if each.name != "__pycache__"] == before


def test_predict_leaves_no_folder_where_it_refuses(trained, tmp_path):
    out = tmp_path / "new" / "folder" / "out.csv"
    done = run("predict", trained / "m", "--data", tmp_path / "nowhere.csv", "--out", out)
    assert "there is no file" in sentence(done)
    assert list(tmp_path.iterdir()) == []


def test_evaluate_takes_a_file_with_other_columns_beside(trained):
    done = run("evaluate", trained / "m", "--data", trained / "plants.csv", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["accuracy"] > 0.6
    done = run("evaluate", trained / "m")
    assert "9 held-out examples of train.csv" in " ".join(done.output.split())


def test_predict_writes_ids_labels_probabilities_and_uncertainties(trained, tmp_path):
    out = tmp_path / "predictions.csv"
    done = run(
        "predict", trained / "m", "--data", trained / "plants.csv", "--id", "name", "--out", out
    )
    assert done.exit_code == 0, done.output
    frame = pd.read_csv(out, dtype={"name": str})
    names = ["name", "label", "prob_a", "prob_b", "total", "aleatoric", "epistemic"]
    assert list(frame) == names
    table = pd.read_csv(trained / "plants.csv", dtype={"name": str})
    assert frame["name"].tolist() == table["name"].tolist()
    said = be.predict(be.load(trained / "m"), table[["width", "height", "depth"]])
    np.testing.assert_allclose(frame[["prob_a", "prob_b"]], said.probs, atol=1e-6)
    np.testing.assert_allclose(frame["epistemic"], said.epistemic, atol=1e-6)
    assert frame["label"].tolist() == [("a", "b")[label] for label in said.labels]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_an_interrupted_prediction_gives_the_same_file(trained, tmp_path, monkeypatch, ending):
    pytest.importorskip("pyarrow")
    source = tmp_path / f"in.{ending}"
    frame = pd.read_csv(trained / "plants.csv", dtype={"name": str})
    frame.to_csv(source, index=False) if ending == "csv" else frame.to_parquet(source)
    monkeypatch.setattr(scored_rows, "MOST_BLOCK_ROWS", 7)
    whole, broken = tmp_path / f"whole.{ending}", tmp_path / f"broken.{ending}"
    command = ["predict", trained / "m", "--data", source, "--id", "name", "--out"]
    assert run(*command, whole).exit_code == 0
    right, calls = predict_file._predictions, []

    def ends_at_the_third(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return right(*arguments)

    monkeypatch.setattr(predict_file, "_predictions", ends_at_the_third)
    done = run(*command, broken)
    assert done.exit_code == 130
    assert not broken.exists()
    assert run(*command, broken).exit_code == 0
    assert len(calls) == 3 + 7  # 60 rows are 9 parts, of which 2 were done
    assert broken.read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_parts_of_another_file_are_not_gone_on_with(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(scored_rows, "MOST_BLOCK_ROWS", 7)
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    frame = pd.read_csv(trained / "plants.csv", dtype={"name": str})
    words = frame["width"].astype(object).mask(frame.index == 40, "wide")
    frame.assign(width=words).to_csv(source, index=False)
    command = ["predict", trained / "m", "--data", source, "--out", out]
    assert (
        "'width' must hold a number, as in the training data, got 'wide' in row 41 (line 42)"
        in (sentence(run(*command)))
    )
    assert not out.exists()
    frame[::-1].to_csv(source, index=False)
    assert run(*command).exit_code == 0
    assert run(*command[:-1], tmp_path / "fresh.csv").exit_code == 0
    assert out.read_bytes() == (tmp_path / "fresh.csv").read_bytes()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("width,depth\n1,2\n", "has no feature 'height'"),
        ("width,hight,depth\n1,2,3\n", "did you mean 'hight'?"),
        ("width,height,depth\n1,tall,3\n", "got 'tall' in row 1 (line 2)"),
        ("width,height,depth\n1,2,3\n1,inf,3\n", "must hold finite numbers, got inf in row 2"),
        ("width,height,depth\n1,2,3\n1,2,3,4\n", "is not a regular table"),
        ("width,width,height,depth\n1,1,2,3\n", "has two columns called 'width'"),
        ("", "is empty"),
    ],
)
def test_predict_refuses_files_that_do_not_fit(trained, tmp_path, content, expected):
    (tmp_path / "in.csv").write_text(content)
    done = run(
        "predict", trained / "m", "--data", tmp_path / "in.csv", "--out", tmp_path / "out.csv"
    )
    assert expected in sentence(done)
    assert not (tmp_path / "out.csv").exists()


def test_predict_and_evaluate_say_what_is_missing(trained, tmp_path):
    plants = trained / "plants.csv"
    out = tmp_path / "out.csv"
    assert "no model" in sentence(run("predict", tmp_path, "--data", plants, "--out", out))
    wrong = ["--data", plants, "--out", tmp_path / "out.txt"]
    assert "must end in .csv or .parquet" in sentence(run("predict", trained / "m", *wrong))
    ids = ["--data", plants, "--id", "nam", "--out", out]
    assert "did you mean 'name'?" in sentence(run("predict", trained / "m", *ids))
    target = ["--data", plants, "--target", "name"]
    assert "has the class '000' in row 1 (line 2)" in sentence(
        run("evaluate", trained / "m", *target)
    )


def test_a_file_without_rows_gives_a_header(trained, tmp_path):
    (tmp_path / "in.csv").write_text("width,height,depth\n")
    for name in ("out.csv", "out.parquet"):
        done = run(
            "predict", trained / "m", "--data", tmp_path / "in.csv", "--out", tmp_path / name
        )
        assert done.exit_code == 0, done.output
    assert (tmp_path / "out.csv").read_text().startswith("row,label,prob_a")


def test_a_killed_training_goes_on_to_the_same_weights(tmp_path):
    options = ["--data", "digits", "--hidden", "8", "--epochs", "30", "--members", "2"]
    command = [sys.executable, "-m", "batchensemble", "train", *options, "--resume", "--out"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, tmp_path / "run"], env=environment)
    while process.poll() is None and not list((tmp_path / "run").glob("checkpoints/step-*")):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 143
    assert not (tmp_path / "run" / "model.safetensors").exists()
    assert run("train", *options, "--resume", "--out", tmp_path / "run").exit_code == 0
    assert run("train", *options, "--out", tmp_path / "whole").exit_code == 0
    one, two = be.load(tmp_path / "run"), be.load(tmp_path / "whole")
    for name, value in one.state_dict().items():
        assert value.equal(two.state_dict()[name])
    assert lines_of(tmp_path / "run") == lines_of(tmp_path / "whole")


def test_named_sets_are_trained_as_they_always_were(tmp_path):
    # What the commit before files of any size left; weights vary in the last digits by machine.
    expected = {"moons": (0.5441871, 0.3636432), "breast_cancer": (0.7199979, 0.6963751)}
    for name, (loss, nll) in expected.items():
        options = ["--epochs", 1, "--hidden", 8, "--members", 2]
        assert run("train", "--data", name, *options, "--out", tmp_path / name).exit_code == 0
        history = json.loads((tmp_path / name / "history.json").read_text())
        assert history["losses"] == pytest.approx([loss], rel=1e-4)
        assert history["validation_nll"] == pytest.approx([nll], rel=1e-4)
        assert "class_names" not in history
        settings = (tmp_path / name / "run.toml").read_text()
        assert not {"memory_limit", "validation", "target"} & {
            line.split(" = ")[0] for line in settings.splitlines()
        }


def assert_close(found: dict, expected: dict) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6, atol=1e-9)


def write_parquet(path: Path, rows: int = 400) -> Path:
    frame = pd.read_csv(write_csv(path.with_suffix(".csv"), rows)).drop(columns="name")
    frame["price"] = frame["width"] * 2 - frame["depth"]
    frame.to_parquet(path, index=False, row_group_size=30)
    return path


STREAMED = ["--memory-limit", "3KB", "--batch-size", 16, "--hidden", 8, "--members", 2]


@pytest.mark.slow
def test_a_killed_training_of_a_streamed_file_goes_on_to_the_same_weights(tmp_path):
    pytest.importorskip("pyarrow")
    write_parquet(tmp_path / "rows.parquet")
    frame = pd.read_parquet(tmp_path / "rows.parquet").drop(columns="price")
    frame.to_parquet(tmp_path / "rows.parquet", row_group_size=30)
    # An epoch has 15 steps, so that checkpoints lie within one.
    options = ["--data", tmp_path / "rows.parquet", "--target", "kind", *STREAMED]
    options += ["--epochs", 60, "--patience", 60, "--checkpoint-every", 7]
    command = [sys.executable, "-m", "batchensemble", "train", *options, "--resume", "--out"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*map(str, command), tmp_path / "run"], env=environment)
    while process.poll() is None and not list((tmp_path / "run").glob("checkpoints/step-*")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "run" / "model.safetensors").exists()
    assert run("train", *options, "--resume", "--out", tmp_path / "run").exit_code == 0
    assert run("train", *options, "--out", tmp_path / "whole").exit_code == 0
    one, two = (tmp_path / name / "model.safetensors" for name in ("run", "whole"))
    assert one.read_bytes() == two.read_bytes()
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert history["class_names"] == ["a", "b"]
    assert len(history["losses"]) == 60


@pytest.mark.parametrize("limit", ["3KB", "1GiB"])
@pytest.mark.parametrize(("loss", "outputs"), [("mse", 1), ("gaussian_nll", 2), ("quantile", 3)])
def test_numbers_are_trained_on_and_scored_by_the_loss(loss, outputs, limit, tmp_path):
    pytest.importorskip("pyarrow")
    write_parquet(tmp_path / "rows.parquet")
    frame = pd.read_parquet(tmp_path / "rows.parquet").drop(columns="kind")
    frame.to_parquet(tmp_path / "rows.parquet", row_group_size=30)
    options = ["--data", tmp_path / "rows.parquet", "--target", "price", "--loss", loss, *STREAMED]
    options += ["--task", "regression"]
    options += ["--memory-limit", limit, "--epochs", 4, "--lr", 0.02]
    done = run("train", *options, "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert history["validation_nll"][-1] < history["validation_nll"][0]
    model = be.load(tmp_path / "run")
    assert model.network.head.out_features == outputs
    assert model.loss.deviation[0] == pytest.approx(frame["price"].std(), rel=0.2)
    evaluated = run("evaluate", tmp_path / "run", "--json")
    assert evaluated.exit_code == 0, evaluated.output
    scores = json.loads(evaluated.stdout)
    assert f"{scores['rmse']:.4f}" in done.output
    options = ["--data", tmp_path / "rows.parquet", "--out", tmp_path / "out.csv"]
    assert run("predict", tmp_path / "run", *options).exit_code == 0
    said = pd.read_csv(tmp_path / "out.csv")
    assert list(said)[:4] == ["row", "mean", "lower", "upper"]
    assert (said["lower"] <= said["upper"]).all()
    options = ["--data", tmp_path / "rows.parquet", "--target", "price", "--json"]
    evaluated = run("evaluate", tmp_path / "run", *options)
    assert "The model was trained on all or most of these rows" in evaluated.stderr
    scores = json.loads(evaluated.stdout)
    errors = said["mean"] - frame["price"]
    assert scores["rmse"] == pytest.approx(np.sqrt((errors**2).mean()), rel=1e-4)
    assert scores["r2"] == pytest.approx(1 - (errors**2).mean() / frame["price"].var(ddof=0))


def test_the_task_says_what_is_trained(tmp_path):
    asked = ["train", "--data", "cubic", "--epochs", 2, "--hidden", "8", "--out", tmp_path / "run"]
    assert "give --task regression" in sentence(run(*asked))
    other = ["--task", "regression", "--loss", "ordinal"]
    assert "not for regression" in sentence(run(*asked, *other))
    done = run(*asked, "--task", "regression")
    assert done.exit_code == 0, done.output
    assert "crps" in done.output
    settings = (tmp_path / "run" / "run.toml").read_text()
    assert 'loss = "gaussian_nll"' in settings
    assert "standardise_targets = true" in settings
    assert run("evaluate", tmp_path / "run").exit_code == 0


def test_what_a_large_file_left_is_scored_again_alike(tmp_path):
    pytest.importorskip("pyarrow")
    write_parquet(tmp_path / "rows.parquet")
    frame = pd.read_parquet(tmp_path / "rows.parquet").drop(columns="price")
    frame.to_parquet(tmp_path / "rows.parquet", row_group_size=30)
    frame[:200].to_feather(tmp_path / "other.feather")
    data = ["--data", tmp_path / "rows.parquet", "--target", "kind", *STREAMED, "--epochs", 2]
    held_out = ["--validation", tmp_path / "other.feather"]
    for name, more, rows in (("part", [], "60"), ("own", held_out, "200")):
        done = run("train", *data, *more, "--out", tmp_path / name)
        assert done.exit_code == 0, done.output
        again = run("evaluate", tmp_path / name)
        assert f"{rows} held-out examples of rows.parquet" in " ".join(again.output.split())
        cells = [
            [line.split()[-1] for line in each.output.splitlines() if "nll" in line]
            for each in (done, again)
        ]
        assert cells[0] == cells[1] != []
    whole = json.loads(run("evaluate", tmp_path / "own", "--json").stdout)
    of_file = run("evaluate", tmp_path / "own", "--data", tmp_path / "other.feather", "--json")
    assert_close(json.loads(of_file.stdout), whole)


def test_a_file_is_scored_in_blocks_as_in_one_go(trained, tmp_path, monkeypatch):
    command = ["evaluate", trained / "m", "--data", trained / "plants.csv", "--json"]
    whole = json.loads(run(*command).stdout)
    monkeypatch.setattr(scored_rows, "MOST_BLOCK_ROWS", 7)
    assert_close(json.loads(run(*command).stdout), whole)
    frame = pd.read_csv(trained / "plants.csv")
    frame.loc[40, "kind"] = "c"
    frame.to_csv(tmp_path / "in.csv", index=False)
    told = sentence(run("evaluate", trained / "m", "--data", tmp_path / "in.csv"))
    assert "has the class 'c' in row 41 (line 42); the model knows a, b" in told


def test_losses_are_in_the_unit_of_the_scores_beside_them(tmp_path):
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 3)), columns=[*"aby"])
    frame.assign(y=1000 * frame["y"]).to_csv(tmp_path / "t.csv", index=False)
    asked = ["--data", tmp_path / "t.csv", "--target", "y", "--task", "regression", "--hidden", 64]
    options = ["--lr", 0.05, "--epochs", 40, "--patience", 1]
    done = run("train", *asked, *options, "--out", tmp_path / "standard")
    said = " ".join(done.output.split())
    best = float(re.search(r"validation loss was best at step \d+ \((\S+)\)", said)[1])
    scores = json.loads(run("evaluate", tmp_path / "standard", "--json").stdout)
    history = json.loads((tmp_path / "standard" / "history.json").read_text())
    assert best == pytest.approx(min(history["validation_nll"]), rel=1e-3)
    # On other rows, but of targets in thousands as well.
    assert best == pytest.approx(scores["nll"], abs=1)
    assert best > 7
    own = ["--epochs", 1, "--set", "standardise_targets=false"]
    assert run("train", *asked, *own, "--out", tmp_path / "own").exit_code == 0
    for name, written in (("standard", None), ("own", None), ("own", True)):
        history = tmp_path / name / "history.json"
        if written:  # by an earlier version
            history.write_text(
                json.dumps({**json.loads(history.read_text()), "standardised": True})
            )
        comparison = subject_from_folder(tmp_path / name).comparison
        unit = "of standardised targets" if written else "in the unit of the targets"
        assert loss_curves(comparison)[0].get_ylabel() == f"gaussian_nll {unit}"
        found = figures._curves(comparison)
        assert ("losses of standardised targets" in found) == bool(written)


def write_numbers(path: Path) -> Path:
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(400, 3)), columns=[*"aby"])
    frame.assign(y=2 * frame["a"] + frame["y"]).to_csv(path, index=False)
    return path


@pytest.mark.parametrize("loss", ["mse", "huber"])
def test_numbers_without_noise_are_asked_for_and_called_so(loss, tmp_path):
    data = ["--data", write_numbers(tmp_path / "t.csv"), "--target", "y"]
    told = sentence(run("train", *data, "--loss", loss, "--out", tmp_path / "run"))
    assert f"give --task regression, which models it, or --task regression --loss {loss}" in told
    assert not (tmp_path / "run").exists()
    asked = ["--task", "regression", "--loss", loss, "--epochs", 5, "--lr", 0.02]
    printed = run("train", *data, *asked, "--out", tmp_path / "run").output
    scores = json.loads(run("evaluate", tmp_path / "run", "--json").stdout)
    assert scores["coverage"] < 0.5
    evaluated = run("evaluate", tmp_path / "run").output
    to = ["--out", tmp_path / "out.csv"]
    predicted = run("predict", tmp_path / "run", *data[:2], *to).output
    page = run("report", tmp_path / "run", "--format", "md").output
    for said in (printed, evaluated, predicted, page):
        assert "The loss models no noise" in " ".join(said.split())
    # An earlier version wrote no task.
    path = tmp_path / "run" / "run.toml"
    path.write_text(path.read_text().replace('task = "regression"\n', ""))
    done = run("train", "--config", path, "--epochs", 1, "--out", tmp_path / "again")
    assert done.exit_code == 0, done.output


def test_what_advises_numbers_for_classes_learns_intervals_that_hold(tmp_path):
    data = ["--data", write_numbers(tmp_path / "t.csv"), "--target", "y"]
    classes = ["--task", "classification"]
    told = sentence(run("train", *data, *classes, "--out", tmp_path / "run"))
    assert "predict the number itself with --task regression" in told
    assert "mse" not in told
    asked = ["--task", "regression", "--epochs", 20, "--lr", 0.01]
    assert "no noise" not in run("train", *data, *asked, "--out", tmp_path / "run").output
    scores = json.loads(run("evaluate", tmp_path / "run", "--json").stdout)
    assert scores["coverage"] > 0.75
