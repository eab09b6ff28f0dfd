"""Save ensembles as folders of safetensors and JSON, without pickles; loading checks all of it."""

from __future__ import annotations

from batchensemble.ensembles.saving.config import CONFIG, read_config
from batchensemble.ensembles.saving.folder import WEIGHTS, load, save, versions

__all__ = ["CONFIG", "WEIGHTS", "load", "read_config", "save", "versions"]
