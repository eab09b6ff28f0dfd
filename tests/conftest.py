"""What all tests share."""

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
