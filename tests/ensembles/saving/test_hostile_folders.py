"""Folders that a stranger made: none runs anything, hangs or takes memory; each gets a sentence."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import batchensemble as be
from batchensemble.cli.app import app
from bounds import bounded
from hostile import CODE, FOLDERS, KEYS, TEXTS, WEIGHTS, hostile

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="it takes pipes, links and limits"),
    pytest.mark.usefixtures("as_users_run_it"),
]

CANARY = "open('ran', 'w').close()\n\ndef make():\n    open('ran', 'w').close()\n"


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("good") / "model"
    torch.manual_seed(0)
    X, y = torch.randn(90, 2), torch.arange(90) % 3
    net = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3))
    model = be.BatchEnsemble(net, 3)
    be.fit(model, (X[:60], y[:60]), epochs=1, progress=False)
    columns = {
        "feature_names": ["age", "dose"],
        "class_names": ["a", "b", "c"],
        "mean": [0.0, 0.0],
        "scale": [1.0, 1.0],
        "target": "kind",
    }
    be.save(be.calibrate(model, (X[60:], y[60:]), method="vector").eval(), folder, data=columns)
    rows = (f"{a:.3f},{b:.3f},{'abc'[c]}" for (a, b), c in zip(X.tolist(), y.tolist(), strict=True))
    (folder.parent / "rows.csv").write_text("age,dose,kind\n" + "\n".join(rows) + "\n")
    return folder


@pytest.fixture(autouse=True)
def _beside_a_canary(tmp_path, monkeypatch) -> Iterator[None]:
    """Work where a module lies that says so when it is imported."""
    (tmp_path / "evilnet.py").write_text(CANARY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")  # as ``python -m`` has it
    yield
    assert not (tmp_path / "ran").exists()


def is_a_sentence(text: str) -> bool:
    return 20 < len(text) < 1_000 and "\n" not in text.strip() and "Traceback" not in text


def test_there_are_many_of_them():
    assert len(FOLDERS) >= 150


def test_the_good_one_loads(good):
    with bounded():
        model = be.load(good)
    assert be.predict(model, torch.randn(5, 2)).probs.shape == (5, 3)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_hostile_folder_is_refused_in_a_sentence(name, good, tmp_path):
    folder = hostile(name, good, tmp_path / "model")
    with bounded(), pytest.raises((ValueError, OSError)) as refused:
        be.load(folder)
    assert is_a_sentence(str(refused.value))
    assert type(refused.value) in (ValueError, FileNotFoundError, OSError)


@pytest.mark.parametrize("name", [*CODE, *TEXTS, *[*KEYS][::6], *[*WEIGHTS][::6]])
def test_the_command_line_refuses_it_too(name, good, tmp_path):
    folder = hostile(name, good, tmp_path / "model")
    rows = good.parent / "rows.csv"
    asked = ["evaluate", str(folder), "--data", str(rows), "--target", "kind"]
    with bounded():
        done = CliRunner().invoke(app, asked)
    assert done.exit_code == 2, done.output
    assert done.output.startswith("Error: ")
    assert not isinstance(done.exception, Exception)
    assert is_a_sentence(done.output)
