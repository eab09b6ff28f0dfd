"""An ordinal loss is told the order of its classes, or asks for it."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import batchensemble as be
from batchensemble.cli.app import app

RNG = np.random.default_rng(0)
N, ORDER = 120, ["low", "mid", "high"]
X = RNG.normal(size=(N, 2))
SIZES = np.digitize(X[:, 0], [-0.5, 0.5])
WORDS = pd.Series([ORDER[size] for size in SIZES], name="size")
FRAME = pd.DataFrame(X, columns=["a", "b"])


def build(classes=3):
    torch.manual_seed(0)
    return be.BatchEnsemble(nn.Linear(2, classes - 1), members=2)


def in_forms(tmp_path):
    table = FRAME.assign(size=WORDS)
    table.to_csv(tmp_path / "sizes.csv", index=False)
    return {
        "pair": ((X, WORDS), {}),
        "frame": (table, {"target": "size"}),
        "file": (tmp_path / "sizes.csv", {"target": "size"}),
        "streamed": (tmp_path / "sizes.csv", {"target": "size", "memory_limit": 400}),
    }


@pytest.mark.parametrize("form", ["pair", "frame", "file", "streamed"])
def test_words_without_an_order_are_refused_and_with_one_are_numbered_by_it(form, tmp_path):
    data, options = in_forms(tmp_path)[form]
    options = {"loss": "ordinal", "epochs": 1, "shuffle": False, "batch_size": 8, **options}
    model = build()
    with pytest.raises(
        ValueError, match="none but the alphabet's, got high, low, mid; give class_n"
    ):
        be.fit(model, data, **options)
    assert all(map(torch.equal, model.parameters(), build().parameters()))
    history = be.fit(model, data, class_names=ORDER, **options)
    assert list(history.class_names) == ORDER
    expected = be.fit(build(), (X, SIZES), loss="ordinal", epochs=1, shuffle=False, batch_size=8)
    assert history.losses == pytest.approx(expected.losses, rel=1e-4)


@pytest.mark.parametrize("labels", [SIZES, SIZES > 0, 1 * SIZES.astype(np.uint8)])
def test_numbers_order_themselves(labels):
    be.fit(build(3), (X, labels), loss="ordinal", epochs=1)


def test_the_order_is_asked_for_where_the_other_losses_need_none():
    be.fit(be.Single(nn.Linear(2, 3)), (X, WORDS), epochs=1)


def test_folders_of_images_are_asked_for_names_that_sort(tmp_path):
    image = pytest.importorskip("PIL.Image")
    for name in ORDER:
        (tmp_path / name).mkdir()
        image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(tmp_path / name / "one.png")
    model = be.Single(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)))
    with pytest.raises(ValueError, match="give names to the folders that sort from the lowest"):
        be.fit(model, tmp_path, loss="ordinal", epochs=1)
    with pytest.raises(ValueError, match="give names to the folders that sort"):
        be.fit(model, tmp_path, loss="ordinal", epochs=1, class_names=ORDER)
    for number, name in enumerate(ORDER):
        (tmp_path / name).rename(tmp_path / f"{number}-{name}")
    names = [f"{number}-{name}" for number, name in enumerate(ORDER)]
    be.fit(model, tmp_path, loss="ordinal", epochs=1, class_names=names)


def run(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.mark.parametrize("limit", ["1GB", "3KB"])
def test_the_command_line_asks_for_the_order_and_keeps_it(tmp_path, limit):
    FRAME.assign(size=WORDS).to_csv(tmp_path / "sizes.csv", index=False)
    out = tmp_path / "model"
    train = ["train", "--data", tmp_path / "sizes.csv", "--target", "size", "--loss", "ordinal"]
    train += ["--memory-limit", limit, "--epochs", 24, "--lr", 0.05, "--hidden", 8, "--out", out]
    found = run(*train)
    assert found.exit_code == 2
    assert "give --classes from the lowest to the highest" in found.output.replace("\n", " ")
    assert not out.exists()
    for wrong in ("low,mid", "low,mid,high,more", "low,low,mid,high"):
        found = run(*train, "--classes", wrong)
        assert found.exit_code == 2
        assert "classes must name each class of the data once" in found.output.replace("\n", " ")
    found = run(*train, "--classes", "low,mid,high")
    assert found.exit_code == 0, found.output
    assert json.loads((out / "config.json").read_text())["data"]["class_names"] == ORDER
    assert "classes" in (out / "run.toml").read_text()
    scores = run("evaluate", out, "--json")
    assert json.loads(scores.stdout)["accuracy"] > 0.8
    again = run(*train[:-2], "--config", out / "run.toml", "--out", tmp_path / "again")
    assert again.exit_code == 0, again.output


@pytest.mark.parametrize("more", [["--data", "digits"], ["--task", "regression"]])
def test_an_order_is_for_the_classes_of_a_file(tmp_path, more):
    FRAME.assign(y=X[:, 0]).to_csv(tmp_path / "numbers.csv", index=False)
    data = ["--data", tmp_path / "numbers.csv", "--target", "y"]
    found = run("train", *data, *more, "--classes", "a,b", "--out", tmp_path / "out")
    assert found.exit_code == 2
    assert "classes is for a file of classes, got a, b" in found.output.replace("\n", " ")
