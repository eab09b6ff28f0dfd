"""``batchensemble report``: the page of what compare and train left, without training again."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from batchensemble.cli.app import app
from batchensemble.cli.workflows.report import subject_from_folder


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    rng = np.random.default_rng(0)
    kinds = np.arange(80) % 2
    numbers = rng.normal(size=(80, 2)) + 2 * kinds[:, None]
    names = np.array(["no", "yes"])[kinds]
    rows = [f"{a:.4f},{b:.4f},{name}" for (a, b), name in zip(numbers, names, strict=True)]
    path = tmp_path_factory.mktemp("data") / "plants.csv"
    path.write_text("\n".join(["length,width,grows", *rows]) + "\n")
    return path


@pytest.fixture(scope="module")
def compared(table, tmp_path_factory):
    out = tmp_path_factory.mktemp("compared")
    quick = ("--methods", "single,deep", "--epochs", 1, "--members", 2, "--hidden", 4)
    done = run("compare", "--data", table, "--target", "grows", *quick, "--out", out, "--quiet")
    assert done.exit_code == 0, done.output
    return out


@pytest.fixture(scope="module")
def trained(table, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained")
    quick = ("--epochs", 2, "--members", 2, "--hidden", 4, "--quiet")
    done = run("train", "--data", table, "--target", "grows", *quick, "--out", out)
    assert done.exit_code == 0, done.output
    return out


def words(path):
    return " ".join(re.sub(r"<[^>]+>", " ", path.read_text()).split())


def test_the_page_of_a_comparison_is_written_again_without_training(compared, table):
    page = compared / "report.html"
    before = page.read_text()
    page.unlink()
    done = run("report", compared, "--data", table)
    assert done.exit_code == 0, done.output
    assert "report.html" in done.output.replace("\n", "")
    again = page.read_text()
    for text in (before, again):
        assert "Deep ensemble" in text
    assert re.findall(r"\d\.\d{4}", again) == re.findall(r"\d\.\d{4}", before)


def test_the_runs_that_are_gone_are_said(compared, table, tmp_path):
    (compared / "runs" / "deep-seed-0.npz").rename(tmp_path / "kept.npz")
    try:
        found = subject_from_folder(compared, str(table)).comparison
        assert found.methods == ["single"]
        assert found.failures == [
            f"deep, seed 0: no file of it in {compared / 'runs'}, or one of other data, settings "
            "or versions"
        ]
    finally:
        (tmp_path / "kept.npz").rename(compared / "runs" / "deep-seed-0.npz")


def test_markdown_goes_to_the_output_or_a_file(compared, table, tmp_path):
    done = run("report", compared, "--data", table, "--format", "md")
    assert done.exit_code == 0, done.output
    assert done.output.startswith("### plants.csv\n")
    assert "| Deep ensemble |" in done.output
    out = tmp_path / "new" / "verdict.md"
    assert run("report", compared, "-d", table, "--format", "md", "--out", out).exit_code == 0
    assert out.read_text() == done.output


def test_a_model_has_a_page_with_its_scores_history_and_settings(trained):
    done = run("report", trained)
    assert done.exit_code == 0, done.output
    assert not done.stderr  # what it does meanwhile is for terminals
    said = words(trained / "report.html")
    scores = json.loads(run("evaluate", trained, "--json").stdout)
    assert f"{scores['nll']:.4f}" in said
    assert "BatchEnsemble, 2 members, 2 epochs; scored on 12 examples" in said
    assert f"batchensemble train --config {trained / 'run.toml'}" in said
    assert "weight decay" in said
    assert "miscalibration detected" in said
    assert (trained / "figures" / "loss_curves.svg").exists()


def test_a_model_is_scored_on_new_rows(trained, table, tmp_path):
    out = tmp_path / "new"
    done = run("report", trained, "--data", table, "--target", "grows", "--out", out)
    assert done.exit_code == 0, done.output
    said = words(out / "report.html")
    assert "scored on 80 examples" in said
    assert "Training examples" not in said
    assert f"batchensemble report {trained} --data {table} --target grows" in said


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["/nowhere/at/all"], "there is no folder /nowhere/at/all"),
        (["DIR", "--format", "pdf"], "format must be one of html, md"),
    ],
)
def test_what_is_no_report_is_refused_in_a_sentence(arguments, sentence, trained):
    done = run("report", *(str(trained) if each == "DIR" else each for each in arguments))
    assert done.exit_code == 2
    assert sentence in " ".join(done.output.split())


def test_a_comparison_knows_where_its_file_was(compared, table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run("report", compared)
    assert done.exit_code == 0, done.output
    assert f"batchensemble compare --data {table} --target grows" in words(compared / "report.html")
    moved = table.rename(tmp_path / "plants.csv")
    try:
        done = run("report", compared)
        assert done.exit_code == 2
        said = " ".join(done.output.split())
        assert "plants.csv, which does not exist; give --data PATH" in said
        assert run("report", compared, "--data", moved).exit_code == 0
    finally:
        moved.rename(table)


def test_folders_without_what_is_needed_are_refused(compared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run("report", tmp_path)
    assert done.exit_code == 2
    assert "holds neither results.json of a comparison nor config.json" in done.output
    (tmp_path / "results.json").write_text(
        '{"recipe": "notebook", "settings": {}, "data": {"name": "moons"}, "runs": []}'
    )
    done = run("report", tmp_path)
    assert "stores no files of its runs" in " ".join(done.output.split())
    (tmp_path / "results.json").write_text("[]")
    done = run("report", tmp_path)
    assert done.exit_code == 2
    assert "is not of a comparison" in " ".join(done.output.split())


def test_help_teaches_with_examples():
    done = run("report", "--help")
    assert done.exit_code == 0
    assert "batchensemble report runs/moons --format md" in " ".join(done.output.split())


def test_a_model_of_numbers_has_a_page_too(tmp_path):
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(80, 2)), columns=["a", "b"])
    frame["price"] = 1000 * frame["a"] + 50
    frame.to_csv(tmp_path / "houses.csv", index=False)
    asked = ["--data", tmp_path / "houses.csv", "--target", "price", "--task", "regression"]
    asked += ["--epochs", "2", "--hidden", "8", "--out", tmp_path / "model", "--quiet"]
    done = run("train", *asked)
    assert done.exit_code == 0, done.output
    assert run("report", tmp_path / "model").exit_code == 0
    page = words(tmp_path / "model" / "report.html")
    assert "RMSE" in page
    assert "12 examples, 2 features, a number to predict" in page
    told = run("report", tmp_path / "model", "--data", tmp_path / "houses.csv", "--format", "md")
    assert "scored on 80 examples" in told.output
    assert "CRPS" in told.output
