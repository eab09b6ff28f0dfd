"""What all tests share."""

import os
import sys
from pathlib import Path

import pytest
import torch
from jaxtyping import config, install_import_hook

# Before torchmetrics, transformers or timm: they import torchvision where it is installed.
sys.path.append(str(Path(__file__).parent / "zoo"))
import torchvision_operators  # noqa: F401

SOURCE = Path(__file__).parent.parent / "src"


def modules_with_shapes():
    """Return the modules that write shapes of arrays as types."""
    for path in sorted(SOURCE.rglob("*.py")):
        if "from jaxtyping import" in path.read_text():
            parts = path.relative_to(SOURCE).with_suffix("").parts
            yield ".".join(parts if parts[-1] != "__init__" else parts[:-1])


# Shapes are checked while the tests run, where they are written. Plain types are mypy's to check:
# at each call of each function they would take four times as long as what is tested.
install_import_hook([*modules_with_shapes()], "beartype.beartype")

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
