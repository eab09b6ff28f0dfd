"""A table with words, gaps, dates and ids goes through every command with its target alone."""

import json
import re
import warnings

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from batchensemble.cli.notes import MOST_NOTES, table_notes
from batchensemble.cli.workflows.report import subject_from_folder
from batchensemble.cli.workflows.settings import fit_defaults, resolve
from batchensemble.data.tables.columns import TableWarning
from batchensemble.data.tables.encoding.encoding import TableEncoding
from batchensemble.data.tables.encoding.leaks import copies_of_target
from batchensemble.data.tables.targets import task_of
from command_line import run
from hostile_tables import (
    HOSTILE_PREDICTION,
    HOSTILE_TRAINING,
    TARGET,
    features,
    good_table,
)

QUICK = ["--epochs", 2, "--hidden", 8, "--members", 2]


def words(done) -> str:
    assert "Traceback" not in done.output
    return " ".join(done.output.split())


def passed(*arguments: object) -> str:
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    return words(done)


def refused(*arguments: object) -> str:
    done = run(*arguments)
    assert done.exit_code == 2, done.output
    assert done.stderr.startswith("Error: ")
    return words(done)


def write(folder, frame: pd.DataFrame, name: str = "people.csv"):
    frame.to_csv(folder / name)  # with the numbers of the rows, as pandas writes it
    return folder / name


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a table, a model of it in ``m``, and what the training printed."""
    folder = tmp_path_factory.mktemp("any")
    frame = good_table().assign(country="DE", name=[f"n{row}" for row in range(240)])
    table = write(folder, frame)
    said = passed("train", "--data", table, "--target", TARGET, *QUICK, "--out", folder / "m")
    return folder, said


def test_training_says_the_task_and_what_it_leaves_out(trained):
    folder, said = trained
    assert said.startswith(f"task: classification (target '{TARGET}' holds words) Note: column")
    for reason in (
        "column 'Unnamed: 0' is left out: its values are all different",
        "column 'name' is left out: its values are all different, so that it only identifies the",
        "column 'country' is left out: it has one value only",
    ):
        assert said.count(f"Note: {reason}") == 1
    assert "36 held-out examples" in said or "held-out examples of" in said
    config = json.loads((folder / "m" / "config.json").read_text())
    assert config["data"]["feature_names"] == ["age", "income", "job", "member", "since"]
    assert {"table": 1, **config["network"]}["table"]["hidden"] == [8]


def test_every_command_goes_on_from_there(trained, tmp_path):
    folder, _ = trained
    model = folder / "m"
    assert "36 held-out examples of people.csv" in passed("evaluate", model)
    said = passed("decide", model, "--risk", 0.4)
    assert "36 calibration examples of people.csv" in said
    assert "Check: on the 36 held-out examples" in said
    assert "patience" not in said
    said = passed("decide", model, "--risk", 0.001)
    assert "Answer: none" in said
    assert "answered" not in said.partition("Check:")[2].partition("written:")[0]
    new = features(50)[["since", "job", "member", "income", "age"]].assign(more="x")
    new.loc[3, "age"], new.loc[4, "job"] = np.nan, "pilot"
    out = tmp_path / "out.csv"
    said = passed("predict", model, "--data", write(tmp_path, new), "--out", out)
    assert "Note: people.csv: column 'age' has gaps, and had none in the training data" in said
    assert len(pd.read_csv(out)) == 50
    assert "### people.csv" in passed("report", model, "--format", "md")
    assert subject_from_folder(model).comparison.plane is None
    assert "has no feature 'age'" in refused(
        "predict", model, "--data", write(tmp_path, new.drop(columns="age")), "--out", out
    )


@pytest.mark.parametrize(("long", "told"), [(-1.0, True), (1e9, False)])
def test_long_work_says_its_rate(long, told, trained, tmp_path, monkeypatch):
    monkeypatch.setattr("batchensemble.cli.notes.LONG", long)
    folder, _ = trained
    data, out = ("--data", folder / "people.csv"), tmp_path / "out.csv"
    said = passed("train", *data, "--target", TARGET, *QUICK, "--out", tmp_path / "m")
    assert bool(re.search(r"trained: 2 epochs of 144 rows, [\d,]+ rows a second", said)) is told
    said = passed("predict", folder / "m", *data, "--out", out)
    assert bool(re.search(r"out\.csv \([\d,]+ rows a second\)", said)) is told


def test_the_settings_that_are_left_train_the_same(trained, tmp_path):
    folder, _ = trained
    settings = (folder / "m" / "run.toml").read_text()
    for line in ('architecture = "table"', "batch_size = 64", "patience = 12", "hidden = [8]"):
        assert line in settings.splitlines()
    passed("train", "--config", folder / "m" / "run.toml", "--quiet", "--out", tmp_path / "again")
    for name in ("run.toml", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / "m" / name).read_bytes()


def test_the_columns_are_shown_before_and_after(trained, tmp_path):
    folder, _ = trained
    after = passed("inspect", folder / "m")
    before = passed("inspect", folder / "people.csv", "--target", TARGET)
    assert f"target '{TARGET}': classes no, yes" in after
    assert f"task: classification (target '{TARGET}' holds words)" in before
    for said in (before, after):
        assert "written as ISO8601" in said
        assert "4 levels:" in said
        assert "left out" in said
        assert "truth value" in said
    assert "target is missing" in refused("inspect", folder / "people.csv")
    assert "has no column 'bougt'; did you mean 'bought'?" in refused(
        "inspect", folder / "people.csv", "--target", "bougt"
    )


def test_columns_are_named_by_options(trained, tmp_path):
    folder, _ = trained
    named = [
        "--drop",
        "age, since",
        "--drop",
        "name",
        "--keep",
        "country",
        "--categorical",
        "member",
    ]
    data = ["--data", folder / "people.csv", "--target", TARGET]
    passed("train", *data, *named, *QUICK, "--out", tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    kinds = {each["name"]: each["kind"] for each in config["data"]["encoding"]["columns"]}
    assert [name for name, kind in kinds.items() if kind == "left out"] == [
        "Unnamed: 0", "age", "since", "country", "name",
    ]  # fmt: skip
    assert kinds["member"] == "category"
    settings = (tmp_path / "m" / "run.toml").read_text()
    assert 'drop = ["age", "since", "name"]' in settings
    asked = ["train", *data, *QUICK, "--out", tmp_path / "not"]
    assert "did you mean 'age'?" in refused(*asked, "--drop", "agee")
    assert "drop is for the columns of a file, and moons is none" in refused(
        "train", "--data", "moons", "--drop", "x1", "--out", tmp_path / "not"
    )
    assert "keep is for the columns of a file" in refused(
        "compare", "--keep", "x1", "--out", tmp_path / "not"
    )
    assert "architecture table is for files" in refused(
        "train", "--architecture", "table", "--out", tmp_path / "not"
    )
    assert "did you mean 'perceptron'?" in refused(*asked, "--architecture", "perceptro")
    assert "architecture is for the network that is made here" in refused(
        "train", *data, "--network", "a:b", "--architecture", "table", "--out", tmp_path / "not"
    )
    assert not (tmp_path / "not").exists()


def test_a_perceptron_can_be_asked_for(trained, tmp_path):
    folder, _ = trained
    data = ["--data", folder / "people.csv", "--target", TARGET]
    passed("train", *data, *QUICK, "--set", "architecture=perceptron", "--out", tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert config["data"]["encoding"]["layout"] == "plain"
    assert config["network"]["mlp"][1:] == [8, 2]
    assert "dropout" not in (tmp_path / "m" / "run.toml").read_text()
    passed("evaluate", tmp_path / "m")


def test_a_streamed_table_is_trained_and_decided_about_alike(tmp_path):
    pytest.importorskip("pyarrow")
    good_table(400).to_parquet(tmp_path / "t.parquet", row_group_size=50)
    data = ["--data", tmp_path / "t.parquet", "--target", TARGET, "--memory-limit", "4KB"]
    said = passed("train", *data, *QUICK, "--out", tmp_path / "m")
    assert "task: classification" in said
    split = json.loads((tmp_path / "m" / "config.json").read_text())["data"]["split"]
    assert (split["rule"], split["parts"]) == ("hashed", True)
    assert "60 held-out examples of t.parquet" in passed("evaluate", tmp_path / "m")
    assert "60 calibration examples" in passed("decide", tmp_path / "m", "--risk", 0.5)


def test_methods_are_compared_on_the_rows_and_columns_that_train_takes(trained, tmp_path):
    folder, _ = trained
    data = ["--data", folder / "people.csv", "--target", TARGET, "--drop", "age"]
    done = run("compare", *data, *QUICK, "--out", tmp_path / "c")
    assert done.exit_code == 0, done.output
    assert "task: classification" in done.stderr
    assert "column 'country' is left out" in " ".join(done.stderr.split())
    results = json.loads((tmp_path / "c" / "results.json").read_text())
    assert [each["method"] for each in results["runs"]] == ["single", "deep", "batch", "mimo"]
    assert results["settings"]["architecture"] == "table"
    assert results["settings"]["patience"] == 12
    assert results["data"]["held_out_examples"] == 36
    assert results["data"]["training_examples"] == 240 - 36 - 24
    assert results["data"]["choices"]["drop"] == ["age"]
    page = passed("report", tmp_path / "c", "--data", folder / "people.csv", "--format", "md")
    assert f"--target {TARGET} --task classification --drop age" in page


@pytest.mark.parametrize("table", HOSTILE_TRAINING, ids=str)
def test_a_hostile_table_is_trained_on_or_refused_in_a_sentence(table, tmp_path):
    path, out = table.csv(tmp_path), tmp_path / "out"
    done = run("train", "--data", path, "--target", TARGET, *QUICK, "--epochs", 1, "--out", out)
    assert done.exit_code == (0 if table.expected_of_file == "works" else 2), done.output
    if table.in_file is None:  # what is said of a file may be said of nothing
        assert table.says.lower() in words(done).lower()
    if done.exit_code:
        assert done.output.startswith("Error: ")
        assert done.output.count("\n") == 1
        assert not out.exists()


@pytest.mark.parametrize("table", HOSTILE_PREDICTION, ids=str)
def test_a_hostile_table_is_predicted_or_refused_in_a_sentence(table, tmp_path, good):
    out = tmp_path / "out" / "out.csv"
    done = run("predict", good, "--data", table.csv(tmp_path), "--out", out)
    said = words(done)
    assert table.says.lower() in said.lower() or table.expected_of_file == "works"
    if done.exit_code == 0:
        # A file without rows has predictions without rows, and words that are all new a note.
        fits = table.expected_of_file == "works" or str(table) == "columns without rows"
        assert fits or "Note: " in said
        assert out.exists()
    else:
        assert done.exit_code == 2
        assert table.expected_of_file == "sentence"
        assert done.output.startswith("Error: ")
        assert not out.exists()


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A model of the good table."""
    folder = tmp_path_factory.mktemp("good")
    good_table().to_csv(folder / "t.csv", index=False)
    data = ["--data", folder / "t.csv", "--target", TARGET]
    passed("train", *data, *QUICK, "--out", folder / "m")
    return folder / "m"


def test_a_copy_of_the_target_is_named(tmp_path):
    frame = good_table().assign(again=lambda each: each[TARGET].map({"yes": "j", "no": "n"}))
    frame.to_csv(tmp_path / "t.csv", index=False)
    data = ["--data", tmp_path / "t.csv", "--target", TARGET]
    said = passed("train", *data, *QUICK, "--out", tmp_path / "m")
    assert "Note: column 'again' tells the target exactly" in said
    assert said.count("tells the target exactly") == 1


def test_two_columns_of_numbers_are_no_copies_by_chance():
    rng = np.random.default_rng(0)
    numbers, target = rng.normal(size=(2, 100))
    encoding = TableEncoding.of_scaling(["a", "b"], ((0.0, 0.0), (1.0, 1.0)))
    X = np.stack([numbers, -3 * target**3], 1)
    assert copies_of_target(encoding, X, target) == ("b",)


def test_a_date_and_a_constant_are_no_targets():
    days = pd.date_range("2024-01-01", periods=40).strftime("%Y-%m-%d").to_numpy(object)
    with pytest.raises(ValueError, match="holds dates, which cannot be predicted"):
        task_of([days], "t.csv: the target column 'y'")
    with pytest.raises(ValueError, match=r"has the value 1\.5 only; there is nothing to learn"):
        task_of([np.full(40, 1.5)], "t.csv: the target column 'y'")


def test_settings_of_an_earlier_version_keep_their_defaults():
    earlier = {name: value for name, value in fit_defaults().items() if value is not None}
    before = {**earlier, "data": "t.csv", "target": "y", "members": 4, "hidden": [128, 128]}
    del before["memory_limit"]
    found = resolve(before)
    assert found["architecture"] == "perceptron"
    assert (found["lr"], found["epochs"]) == (1e-3, 10)
    assert "patience" not in found
    assert "dropout" not in found


def test_notes_are_said_once_and_not_too_many(capsys):
    console = Console(width=200)
    with table_notes(console, "look there") as notes:
        for count in (3, 1):  # two blocks of a table
            warnings.warn(
                f"t.csv: column 'a' has {count} gaps, and had none", TableWarning, stacklevel=1
            )
        notes.add([f"column {number} is odd" for number in range(MOST_NOTES + 4)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == MOST_NOTES + 1
    assert lines[0] == "Note: t.csv: column 'a' has 3 gaps, and had none"
    assert lines[-1] == "Note: and 5 more: look there"
    with pytest.raises(UserWarning, match="another"), table_notes(None):
        warnings.warn("another", UserWarning, stacklevel=1)
