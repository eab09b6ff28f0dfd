"""Estimators come back from folders and from the Hub, and their rows stay at home."""

import re
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError

import batchensemble as be

QUICK = {"members": 2, "hidden": (8,), "epochs": 3, "random_state": 0}


def people(rows=300, seed=0):
    rng = np.random.default_rng(seed)
    jobs = np.array(["cook", "smith", None], dtype=object)
    frame = pd.DataFrame({"age": rng.normal(40, 9, rows), "job": rng.choice(jobs, rows)})
    return frame, np.where(frame["age"] > 40, "yes", "no").astype(object)


@pytest.fixture(scope="module")
def fitted():
    frame, y = people()
    model = be.BatchEnsembleClassifier(**QUICK).fit(frame, y)
    model.decide(risk=0.5)
    return model, frame


def test_an_estimator_comes_back_with_a_card_of_its_kept_rows(fitted, tmp_path):
    model, frame = fitted
    folder = model.save_pretrained(tmp_path)
    again = be.BatchEnsembleClassifier.from_pretrained(folder)
    assert again.predict_proba(frame).tolist() == model.predict_proba(frame).tolist()
    assert again.predict_set(frame).tolist() == model.predict_set(frame).tolist()
    card = (folder / "README.md").read_text()
    assert "On 30 rows kept from training;" in card
    assert "| age | number |" in card
    assert re.search(r"\| job \| category \| (cook, smith|smith, cook); may be missing \|", card)
    assert "2 classes: no, yes" in card
    assert "- Error rate at most 50.00% with 95% confidence" in card
    assert "model = BatchEnsembleClassifier.from_pretrained('path/to/this/folder')" in card
    assert 'pipeline_tag: "tabular-classification"' in card
    scores = be.evaluate(model.model_, (model.kept_.inputs, model.kept_.targets))
    assert f"| NLL ↓ (nats) | {scores['nll']:.4f} |" in card


def test_without_its_rows_an_estimator_keeps_its_threshold(fitted, tmp_path):
    model, frame = fitted
    folder = model.save_pretrained(tmp_path, rows=False)
    assert not (folder / "kept_rows.safetensors").exists()
    again = be.BatchEnsembleClassifier.from_pretrained(folder)
    assert again.accepts(frame).tolist() == model.accepts(frame).tolist()
    with pytest.raises(ValueError, match="no rows were kept"):
        again.predict_set(frame)
    assert model.kept_ is not None


def test_push_uploads_no_rows_unless_asked(fitted, tmp_path, monkeypatch):
    model, frame = fitted
    files = {}

    class Api:
        def __init__(self, token=None):
            pass

        def create_repo(self, name, **options):
            return SimpleNamespace(repo_id=name)

        def upload_folder(self, *, repo_id, folder_path, **options):
            files.clear()
            files.update({path.name: path.read_bytes() for path in folder_path.iterdir()})
            return SimpleNamespace(commit_url=f"https://huggingface.co/{repo_id}", pr_url=None)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    assert model.push_to_hub("ann/people") == "https://huggingface.co/ann/people"
    assert set(files) == {"README.md", "config.json", "model.safetensors"}
    assert b"BatchEnsembleClassifier.from_pretrained('ann/people')" in files["README.md"]

    def download(name, **options):
        for each, content in files.items():
            (tmp_path / each).write_bytes(content)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    again = be.BatchEnsembleClassifier.from_pretrained("ann/people")
    assert again.predict(frame).tolist() == model.predict(frame).tolist()
    assert be.from_pretrained("ann/people").members == 2
    model.push_to_hub("ann/people", rows=True)
    assert "kept_rows.safetensors" in files


def test_a_regressor_comes_back(tmp_path):
    frame, _ = people(120)
    model = be.BatchEnsembleRegressor(**QUICK).fit(frame[["age"]], frame["age"] ** 2 % 90)
    folder = model.save_pretrained(tmp_path)
    again = be.BatchEnsembleRegressor.from_pretrained(folder)
    assert again.predict(frame[["age"]]).tolist() == model.predict(frame[["age"]]).tolist()
    card = (folder / "README.md").read_text()
    assert "| RMSE ↓ (unit of the target) |" in card
    assert "90% intervals contain" in card
    with pytest.raises(ValueError, match="call the load of that class"):
        be.BatchEnsembleClassifier.from_pretrained(folder)


def test_what_is_not_fitted_has_no_card(tmp_path):
    for call in ("save_pretrained", "push_to_hub"):
        with pytest.raises(NotFittedError):
            getattr(be.BatchEnsembleClassifier(), call)("ann/people")
    assert list(tmp_path.iterdir()) == []
