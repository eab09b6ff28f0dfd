"""Members that all name one class for every example look certain, and are said to."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import batchensemble as be
from batchensemble.cli.app import app
from batchensemble.metrics.streaming import score_blocks

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 2)).astype(np.float32)
Y = (np.arange(60) % 4 == 0).astype(int)  # a quarter


def majority(members=3):
    """Return a model whose members lean to class 0 whatever they see."""
    model = be.DeepEnsemble(nn.Linear(2, 2), members)
    with torch.no_grad():
        model.network.weight.mul_(0.01)
        model.network.bias.copy_(torch.tensor([2.0, 0.0]))
    return model


def test_scores_say_that_one_class_is_named_for_all():
    scores = be.evaluate(majority(), (X, Y))
    assert scores["accuracy"] == 0.75
    assert scores["disagreement"] == 0
    assert scores.one_class == 0
    assert "predict class 'no' for every example; the accuracy, 0.7500" in scores.remark(
        ["no", "yes"]
    )
    streamed = score_blocks(majority(), [(X[:30], Y[:30]), (X[30:], Y[30:])])
    assert streamed.remark(["no", "yes"]) == scores.remark(["no", "yes"])


@pytest.mark.parametrize("y", [Y, 1 - Y])
def test_nothing_is_said_of_others(y):
    torch.manual_seed(0)
    model = be.BatchEnsemble(nn.Linear(2, 2), 3)
    data = (X, (X[:, 0] > 0).astype(int))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a first epoch may name one class, and no warning nags
        warnings.filterwarnings(
            "ignore", "member . diverged from the others"
        )  # by its random start
        history = be.fit(model, data, epochs=40, lr=0.02)
    assert be.evaluate(model, data).remark() == ""
    assert "one_class" not in history.diagnostics[-1]
    all_of_it = be.evaluate(majority(), (X, 0 * y))
    assert (all_of_it.one_class, all_of_it.remark()) == (0, "")
    blocks = [(X[:30], y[:30]), (X[30:], y[30:])]
    assert score_blocks(model, blocks).one_class is None


def test_the_history_has_it():
    history = be.fit(majority(), (X, Y), epochs=1, lr=1e-30, optimizer="sgd")
    assert history.diagnostics[-1]["one_class"] == 0


def run(*arguments):
    found = CliRunner().invoke(app, list(map(str, arguments)))
    assert found.exit_code == 0, found.output
    return " ".join(found.output.split())


def test_the_command_line_and_the_report_say_it(tmp_path):
    """Noise of which nine tenths are one class teaches its share, and nothing else."""
    rare = np.arange(60) % 10 == 0
    rows = [f"{a:.3f},{b:.3f},{'yes' if y else 'no'}" for (a, b), y in zip(X, rare, strict=True)]
    table = tmp_path / "noise.csv"
    table.write_text("\n".join(["a,b,ill", *rows]))
    data = ["--data", table, "--target", "ill", "--epochs", 30, "--lr", 0.02]
    data += ["--architecture", "perceptron"]
    note = "all members predict class 'no' for every example; the accuracy, 0."
    assert note in run("train", *data, "--hidden", 4, "--out", tmp_path / "model")
    assert note in run("evaluate", tmp_path / "model")
    assert note in run("evaluate", tmp_path / "model", "--data", table)
    options = ["--methods", "batch", "--hidden", "4", "--out", tmp_path / "compared"]
    assert note in run("compare", *data, *options)
    page = (tmp_path / "compared" / "report.html").read_text()
    assert "Predicted classes" in page
