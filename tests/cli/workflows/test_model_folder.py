"""A model's folder: every command means the same held-out rows, and none that trained the model."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer
from typer.testing import CliRunner

import batchensemble as be
from batchensemble.cli.app import app
from batchensemble.cli.workflows.evaluate import evaluate_folder
from batchensemble.cli.workflows.model_folder import ModelFolder
from batchensemble.cli.workflows.report import subject_from_folder
from batchensemble.data.tables.columns import as_table
from batchensemble.data.tables.split import HashPart
from batchensemble.report.plots.regression import curve
from trained_before import part_as_before

pytest.importorskip("pyarrow")
ROWS = 500
QUICK = ["--hidden", 64, "--members", 2, "--lr", 0.02, "--epochs", 15, "--set", "cooldown=0.0"]
QUICK += ["--architecture", "perceptron", "--patience", 0]  # noise is to be learnt by heart
QUICK += ["--checkpoint-every", 1000]  # waiting for the disk takes longer than the training
STREAMED = ["--memory-limit", "20KB"]


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def passed(*arguments: object):
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    return done


def sentence(done) -> str:
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output
    return " ".join(done.stderr.split())


def noise(rows: int = ROWS) -> pd.DataFrame:
    """Features, and labels and numbers that have nothing to do with them."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(rows, 20)), columns=[f"x{each}" for each in range(20)])
    return frame.assign(label=rng.integers(2, size=rows), number=50 * rng.normal(size=rows))


def write(path: Path, frame: pd.DataFrame) -> Path:
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        frame.to_parquet(path, index=False, row_group_size=60)
    else:
        path.mkdir()
        for start in range(0, len(frame), 200):
            frame[start : start + 200].to_parquet(path / f"{start:04d}.parquet", index=False)
    return path


def trained(folder: Path, table: Path, *more: object) -> Path:
    target = ["--target", "label"] if "--task" not in more else ["--target", "number"]
    passed("train", "--data", table, *target, *QUICK, *more, "--out", folder)
    return folder


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> Path:
    """Tables of noise, and a model of each way of reading one."""
    place = tmp_path_factory.mktemp("folders")
    labels = noise().drop(columns="number")
    for name in ("t.csv", "t.parquet", "parts"):
        write(place / name, labels)
    trained(place / "drawn", place / "t.csv")
    trained(place / "hashed", place / "t.parquet", *STREAMED)
    return place


@pytest.fixture
def own(places, tmp_path, monkeypatch):
    """A copy of the tables and models of its own, whose paths are relative to it."""
    for each in places.iterdir():
        (shutil.copytree if each.is_dir() else shutil.copyfile)(each, tmp_path / each.name)
    for name, table in (("drawn", "t.csv"), ("hashed", "t.parquet")):
        settings = tmp_path / name / "run.toml"
        settings.write_text(settings.read_text().replace(str(places / table), table))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("more", [[], STREAMED], ids=["in memory", "streamed"])
@pytest.mark.parametrize("table", ["t.csv", "t.parquet", "parts"])
def test_every_command_scores_the_same_rows_and_none_that_trained(table, more, places, tmp_path):
    model = tmp_path / "model"
    ending = passed("train", "--data", places / table, "--target", "label", *QUICK, *more,
                    "--out", model).output  # fmt: skip
    scores = json.loads(passed("evaluate", model, "--json").stdout)
    assert abs(scores["accuracy"] - 0.5) < 0.24  # four deviations of 75 tosses of a coin
    loaded = be.load(model)
    everything = ModelFolder(model).rows(loaded, str(places / table)).arrays()
    assert be.evaluate(loaded, everything)["accuracy"] > 0.7  # three fifths were learnt
    reported = subject_from_folder(model).comparison
    assert dict(reported.runs[0].scores) == scores
    assert (reported.runs[0].classes.labels == reported.data.held_out[1]).mean() == scores[
        "accuracy"
    ]
    cells = [line.split() for line in ending.splitlines()]
    printed = {each[0]: each[1] for each in cells if len(each) > 1}
    assert printed["accuracy"] == f"{scores['accuracy']:.4f}"
    assert printed["nll"] == f"{scores['nll']:.4f}"
    decided = json.loads(passed("decide", model, "--risk", 0.9, "--json").stdout)
    assert (decided["examples"], decided["check"]["examples"]) == (75, 75)
    assert decided["threshold"]["coverage"] == decided["check"]["answered"] == 1
    assert abs(decided["threshold"]["risk"] - 0.5) < 0.24
    assert decided["check"]["risk"] == pytest.approx(1 - scores["accuracy"], abs=1e-12)


@pytest.mark.parametrize("more", [[], STREAMED], ids=["in memory", "streamed"])
def test_numbers_are_scored_on_the_same_rows_as_well(more, tmp_path):
    table = write(tmp_path / "t.parquet", noise().drop(columns="label"))
    model = trained(tmp_path / "model", table, "--task", "regression", *more)
    scores = json.loads(passed("evaluate", model, "--json").stdout)
    assert scores["r2"] < 0.1
    found = subject_from_folder(model).comparison.runs[0]
    assert dict(found.scores) == scores
    decided = passed("decide", model, "--risk", 0.99, "--tolerance", 30, "--json")
    check = json.loads(decided.stdout)["check"]
    truth = subject_from_folder(model).comparison.data.held_out[1]
    assert check["answered"] == 1
    assert check["risk"] == (np.abs(found.prediction.mean - truth) > 30).mean()


def test_rows_in_memory_and_streamed_are_those_of_the_rule_that_trained(places):
    folder = ModelFolder(places / "hashed")
    for name in ("scoring", "calibration"):
        X, y = folder.rows(folder.load(), part=name).arrays()
        frame = noise().iloc[HashPart(name).positions(0, ROWS)]
        assert y.tolist() == frame["label"].tolist()
        np.testing.assert_array_equal(X, folder.columns.encoding.encode_table(as_table(frame), "x"))
    folder = ModelFolder(places / "drawn")
    parts = [folder.rows(folder.load(), part=name) for name in ("scoring", "calibration")]
    rows = [
        {each.tobytes() for each in X} for X, _ in (*(p.whole for p in parts), parts[0].training)
    ]
    assert [len(each) for each in rows] == [75, 75, 300]
    assert not rows[0] & rows[1] | (rows[0] | rows[1]) & rows[2]


@pytest.mark.parametrize("name", ["drawn", "hashed"])
def test_a_folder_that_does_not_say_how_rows_were_split_is_split_as_training_did(
    name, own, monkeypatch
):
    part_as_before(monkeypatch)
    table, more = {"drawn": ("t.csv", []), "hashed": ("t.parquet", STREAMED)}[name]
    shutil.rmtree(own / name)
    folder = trained(own / name, Path(table), *more, "--architecture", "perceptron")
    expected = dict(evaluate_folder(folder)[1])
    path = folder / "config.json"
    config = json.loads(path.read_text())
    del config["data"]["split"]
    path.write_text(json.dumps(config))
    assert dict(evaluate_folder(folder)[1]) == dict(
        subject_from_folder(folder).comparison.runs[0].scores
    )
    assert dict(evaluate_folder(folder)[1]) == expected
    # With another limit training would have split otherwise, so it is not known what trained it.
    settings = (folder / "run.toml").read_text()
    other = (
        settings.replace("20000", "2000000") if name == "hashed" else f"{settings}memory_limit=9"
    )
    (folder / "run.toml").write_text(other)
    for command in ("evaluate", "decide", "report"):
        told = sentence(run(command, folder))
        assert "holds other rows than it was trained on, so which rows the model in" in told
        assert "give rows that the model has not seen with --data" in told


def test_the_rule_is_remembered_whatever_the_memory_limit_says_later(own):
    for name, old, new in (("hashed", "20000", "2000000"), ("drawn", "", "memory_limit = 9\n")):
        expected = dict(evaluate_folder(own / name)[1])
        settings = (own / name / "run.toml").read_text()
        (own / name / "run.toml").write_text(settings.replace(old, new) if old else settings + new)
        assert dict(evaluate_folder(own / name)[1]) == expected
        assert dict(subject_from_folder(own / name).comparison.runs[0].scores) == expected


@pytest.mark.parametrize(
    ("name", "table", "change"),
    [
        ("drawn", "t.csv", lambda frame: frame.sample(frac=1, random_state=0)),
        ("hashed", "t.parquet", lambda frame: frame.sort_values("x0")),
        ("hashed", "t.parquet", lambda frame: frame[1:]),
        ("drawn", "t.csv", lambda frame: pd.concat([frame, frame[:50]])),
    ],
    ids=["shuffled", "sorted", "cut", "longer"],
)
def test_a_table_that_has_changed_since_is_not_taken_for_what_was_held_out(
    name, table, change, own
):
    frame = noise().drop(columns="number")
    write(own / table, change(frame))
    for command in ("evaluate", "decide", "report"):
        told = sentence(run(command, own / name))
        assert f"{table} is not as it was when the model was trained, so which rows" in told
    assert not (own / name / "decision.json").exists()
    write(own / table, frame)
    passed("evaluate", own / name)


def test_a_folder_of_files_that_has_grown_is_not_taken_for_what_was_held_out(own):
    model = trained(own / "model", own / "parts", *STREAMED)
    passed("evaluate", model)
    shutil.copyfile(own / "parts" / "0000.parquet", own / "parts" / "9999.parquet")
    assert "parts is not as it was when the model was trained" in sentence(run("evaluate", model))


def test_folders_and_tables_may_move_and_paths_are_those_of_the_working_directory(own, monkeypatch):
    expected = dict(evaluate_folder(own / "hashed")[1])
    elsewhere = own / "elsewhere"
    shutil.copytree(own / "hashed", elsewhere / "copied")
    assert dict(evaluate_folder(elsewhere / "copied")[1]) == expected
    monkeypatch.chdir(elsewhere)
    told = sentence(run("evaluate", "copied"))
    assert (
        "there is no file t.parquet, of which rows were held out from the training of copied"
        in told
    )
    write(elsewhere / "t.parquet", noise().drop(columns="number").iloc[::-1])
    assert "t.parquet is not as it was" in sentence(run("report", "copied"))
    settings = elsewhere / "copied" / "run.toml"
    settings.write_text(settings.read_text().replace('"t.parquet"', '"../t.parquet"'))
    assert dict(evaluate_folder(Path("copied"))[1]) == expected


@pytest.mark.parametrize("command", ["evaluate", "decide", "report"])
def test_rows_that_trained_are_called_so_wherever_they_lie(command, own):
    shutil.copyfile(own / "t.csv", own / "copy.csv")
    new = write(own / "new.csv", noise().drop(columns="number")[::-1])
    asked = [command, own / "drawn", *(["--format", "md"] if command == "report" else [])]
    for data in ("t.csv", "copy.csv"):
        said = " ".join(passed(*asked, "--data", data).output.split())
        assert "The model was trained on all or most of these rows" in said
        assert "500 held-out examples" not in said
    for more in ([], ["--data", new]):
        assert "most of these rows" not in passed(*asked, *more).output


def test_held_out_rows_that_chose_the_model_are_called_so(own, monkeypatch):
    for command in (["evaluate"], ["report", "--format", "md"]):
        assert "patience" not in passed(command[0], own / "drawn", *command[1:]).output
    part_as_before(monkeypatch)
    model = trained(own / "model", own / "t.csv", "--patience", 9, "--epochs", 1)
    for command in (["evaluate"], ["report", "--format", "md"]):
        said = " ".join(passed(command[0], model, *command[1:]).output.split())
        assert "stopped where it was best on these held-out examples (patience)" in said.replace(
            "\\", ""
        )
    assert "patience" not in passed("evaluate", model, "--data", own / "t.parquet").output


@pytest.mark.parametrize("name", ["drawn", "hashed"])
def test_a_model_that_was_trained_on_since_is_not_scored_by_what_was_held_out_before(name, own):
    folder = ModelFolder(own / name)
    model = folder.load()
    X, y = folder.rows(model, str(own / "t.csv")).arrays()
    be.fit(model, (X, y), epochs=1)
    be.save(model, own / name, data=folder.config["data"])
    assert "holds other rows than it was trained on" in sentence(run("evaluate", name))


def test_rows_that_are_trained_on_are_not_held_out_as_well(own):
    shutil.copyfile(own / "t.csv", own / "copy.csv")
    for held_out in ("t.csv", "copy.csv"):
        done = run("train", "--data", "t.csv", "--target", "label", "--validation", held_out,
                   *QUICK, "--out", own / "new")  # fmt: skip
        assert f"{held_out} has the rows that the model is trained on" in sentence(done)
        assert not (own / "new").exists()


def test_a_file_of_its_own_is_held_out_whatever_became_of_the_other(own):
    frame = noise(700).drop(columns="number")
    write(own / "other.csv", frame[500:])
    model = trained(own / "model", own / "t.csv", "--validation", "other.csv")
    expected = json.loads(passed("evaluate", model, "--json").stdout)
    (own / "t.csv").unlink()
    assert json.loads(passed("evaluate", model, "--json").stdout) == expected
    assert dict(subject_from_folder(model).comparison.runs[0].scores) == expected
    write(own / "other.csv", frame)
    assert "other.csv is not as it was" in sentence(run("evaluate", model))


def test_a_held_out_row_that_cannot_be_scored_is_found_before_the_training(own):
    frame = noise(700).drop(columns="number")[500:]
    frame.iloc[-1, -1] = 7
    write(own / "other.parquet", frame)
    done = run("train", "--data", "t.csv", "--target", "label", "--validation", "other.parquet",
               *QUICK, *STREAMED, "--out", own / "new")  # fmt: skip
    assert "has the class '7' in row" in sentence(done)
    assert not (own / "new").exists()


def test_a_named_set_is_scored_by_the_columns_and_classes_of_the_model(tmp_path):
    bunch = load_breast_cancer(as_frame=True)
    frame = bunch.data.iloc[:, ::-1].assign(label=bunch.target_names[bunch.target])
    model = trained(tmp_path / "model", write(tmp_path / "t.csv", frame[::2]))
    assert ModelFolder(model).columns.class_names == ("benign", "malignant")  # the set's turned
    scores = json.loads(passed("evaluate", model, "--data", "breast_cancer", "--json").stdout)
    assert scores["accuracy"] > 0.9


@pytest.mark.parametrize("command", ["evaluate", "decide", "report"])
def test_a_target_without_data_is_not_passed_over(command, own):
    told = sentence(run(command, "drawn", "--target", "x0"))
    assert "target names a column of --data FILE, got 'x0' without --data" in told
    more = ["--format", "md"] if command == "report" else []
    passed(command, "drawn", "--target", "label", *more)


def test_a_line_of_new_rows_has_a_page(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.normal(size=200)}).assign(number=lambda each: each.x**2)
    model = trained(tmp_path / "model", write(tmp_path / "t.csv", frame), "--task", "regression")
    new = write(tmp_path / "new.csv", frame[::3])
    comparison = subject_from_folder(model, str(new)).comparison
    assert comparison.data.scored == "rows of new.csv"
    upper, _ = curve(comparison)
    assert len(upper.lines[-2].get_xdata()) > 0


@pytest.mark.parametrize("limit", ["1GB", "5KB"])
def test_a_loaded_model_takes_tables_in_the_units_that_they_have(tmp_path, limit):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"age": rng.normal(500, 100, 300), "dose": rng.normal(size=300)})
    frame["kind"] = np.where(frame["age"] > 500, "old", "young")
    path, out = write(tmp_path / "table.csv", frame), tmp_path / "model"
    kept = ["--memory-limit", limit, *QUICK, "--out", out]
    passed("train", "--data", path, "--target", "kind", *kept)
    expected = json.loads(passed("evaluate", out, "--data", path, "--json").stdout)
    passed("predict", out, "--data", path, "--out", tmp_path / "said.csv", "--quiet")
    said = pd.read_csv(tmp_path / "said.csv")["prob_old"]
    for model in (be.load(out), be.load(be.save(be.load(out), tmp_path / "again"))):
        scores = be.evaluate(model, frame[["kind", "dose", "age"]], target="kind")
        assert scores["nll"] == pytest.approx(expected["nll"], rel=1e-6)
        assert be.evaluate(model, path, target="kind")["nll"] == pytest.approx(scores["nll"])
        found = be.predict(model.select([0, 1]), frame[["dose", "age"]]).probs[:, 0]
        np.testing.assert_allclose(found, said, atol=1e-5)
        encoding = ModelFolder(out).columns.encoding
        inputs = encoding.encode_table(as_table(frame), "x")  # as the network takes them
        np.testing.assert_allclose(be.predict(model, inputs).probs[:, 0], said, atol=1e-5)
