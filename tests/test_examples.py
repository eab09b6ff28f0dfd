"""The examples run, and what they train is good."""

import importlib.util
import runpy
import warnings
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.parametrize(
    ("name", "needs", "options", "accuracy"),
    [
        ("bare_loop", "torch", {"examples": 1000}, 0.93),
        ("transformers_trainer", "accelerate", {}, 0.9),
        ("lightning_module", "lightning", {"epochs": 8}, 0.93),
    ],
)
def test_an_ensemble_is_trained_by_another_loop(name, needs, options, accuracy):
    if importlib.util.find_spec(needs) is None:
        pytest.skip(f"needs {needs}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other libraries about themselves
        main = runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]
        assert main(**options) > accuracy
