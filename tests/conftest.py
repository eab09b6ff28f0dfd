"""What all tests share."""

import importlib
import os
import sys
from pathlib import Path

import pytest
import torch
from jaxtyping import config

# Before torchmetrics, transformers or timm: they import torchvision where it is installed.
sys.path.append(str(Path(__file__).parent / "zoo"))
import torchvision_operators  # noqa: F401

# The networks of the tests are so small that a second thread only waits for the first, for seconds
# where the machine is busy with something else. The same holds in the processes that tests start.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def as_users_run_it():
    """Switch off the type checker of the tests, which would speak before our sentences."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


@pytest.fixture
def benchmark(monkeypatch):
    """Import a benchmark by name, and forget it after the test: some share names with tests."""
    folder = str(Path(__file__).parent.parent / "benchmarks")
    before = set(sys.modules)
    monkeypatch.syspath_prepend(folder)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(folder):
            del sys.modules[name]
