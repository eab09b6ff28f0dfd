"""``fit(compile=True)`` trains the same, and tells what it gained."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import batchensemble as be

X, Y = torch.randn(120, 4), torch.randint(2, (120,))


@pytest.fixture(scope="module")
def results():
    script = Path(__file__).parents[2] / "support" / "compiled_training.py"
    run = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def fit(**options):
    return be.fit(be.BatchEnsemble(nn.Linear(4, 2), 3), (X, Y), batch_size=10, epochs=1, **options)


def test_the_weights_are_those_of_a_training_without(results):
    assert results["difference"] < 1e-4
    assert results["difference of one member"] < 1e-4
    plain, compiled = results["losses"]
    assert compiled == pytest.approx(plain, rel=1e-4)


def test_the_history_tells_what_it_gained(results):
    found = results["history"]["compilation"]
    assert found["gain"] == found["eager"] / found["compiled"] > 0
    assert found["compiling"] > found["compiled"]
    assert f"{found['gain']:.2f} times as fast" in results["message"]


def test_a_training_too_short_to_compile_tells_nothing(results):
    assert results["short"]


def test_without_it_the_history_says_nothing():
    history = fit()
    assert history.compilation is None
    assert "compilation" not in history.to_dict()


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="compile must be one of default, reduce-overhead"):
        fit(compile="fast")


def test_what_cannot_be_compiled_says_so(monkeypatch):
    def failing(function, mode):
        def compiled(*args):
            raise torch._inductor.exc.InductorError(RuntimeError("no C++ compiler"), None)

        return compiled

    monkeypatch.setattr(torch, "compile", failing)
    with pytest.raises(RuntimeError, match=r"cannot compile this .* no C\+\+ compiler"):
        fit(compile=True)
