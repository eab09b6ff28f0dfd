"""``batchensemble card``: the model card of a folder, with its scores and its decision."""

import huggingface_hub
import pytest

import batchensemble as be
from batchensemble.cli.workflows.evaluate import evaluate_folder
from command_line import run, write_csv


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("card")
    table = write_csv(folder / "plants.csv", rows=200)
    quick = ("--epochs", 2, "--members", 2, "--hidden", 4, "--quiet")
    done = run("train", "--data", table, "--target", "kind", *quick, "--out", folder / "m")
    assert done.exit_code == 0, done.output
    assert run("decide", folder / "m", "--risk", 0.6).exit_code == 0
    return folder / "m"


def test_the_card_has_the_scores_of_evaluate_and_the_decision(trained):
    done = run("card", trained, "--license", "mit", "--name", "ann/plants", "--title", "Plants")
    assert done.exit_code == 0, done.output
    text = (trained / "README.md").read_text()
    rows, scores = evaluate_folder(trained)
    found = huggingface_hub.ModelCard(text).data
    results = {each.metric_type: each for each in found.eval_results}
    assert results["nll"].metric_value == pytest.approx(scores["nll"], rel=1e-5)
    assert results["nll"].dataset_name == "plants.csv"
    assert found.license == "mit"
    assert f"On {rows.rows} held-out examples of plants.csv;" in text
    assert "# Plants\n" in text
    assert "be.from_pretrained('ann/plants')" in text
    assert "## When it may answer\n\n- Answer: " in text
    assert "Fitted on 30 calibration examples of plants.csv" in text
    assert "| width | number |" in text
    assert str(trained.parent) not in text  # no path of the author's machine
    assert be.from_pretrained(trained).members == 2


def test_a_card_of_the_author_is_kept(trained, tmp_path):
    card = trained / "README.md"
    card.write_text("# Mine")
    done = run("card", trained)
    assert (done.exit_code, card.read_text()) == (2, "# Mine")
    assert "--overwrite replaces it" in done.output
    done = run("card", trained, "--no-scores", "--out", tmp_path / "new" / "card.md")
    assert done.exit_code == 0, done.output
    text = (tmp_path / "new" / "card.md").read_text()
    assert "## Scores" not in text
    assert "This card has no scores" in text
    assert run("card", trained, "--no-scores", "--overwrite").exit_code == 0
    assert card.read_text().startswith("---\nlibrary_name")


def test_data_may_be_given(trained, tmp_path):
    table = write_csv(tmp_path / "others.csv", rows=60)
    out = tmp_path / "card.md"
    done = run("card", trained, "--data", table, "--target", "kind", "--out", out)
    assert done.exit_code == 0, done.output
    assert "On 60 rows of others.csv;" in out.read_text()


def test_a_folder_of_an_estimator_is_loaded_as_one(tmp_path):
    import pandas as pd

    frame = pd.read_csv(write_csv(tmp_path / "plants.csv", rows=60))
    quick = {"members": 2, "hidden": (4,), "epochs": 2, "random_state": 0}
    model = be.BatchEnsembleClassifier(**quick).fit(frame.drop(columns="kind"), frame["kind"])
    model.save(tmp_path / "m")
    out = tmp_path / "card.md"
    done = run("card", tmp_path / "m", "--no-scores", "--out", out)
    assert done.exit_code == 0, done.output
    assert "model = BatchEnsembleClassifier.from_pretrained(" in out.read_text()


def test_a_folder_without_a_model_is_refused(tmp_path):
    done = run("card", tmp_path)
    assert done.exit_code == 2
    assert "there is no model" in done.output
