"""Ensembles as folders of safetensors and JSON, never a pickle; what a folder says is checked."""

from __future__ import annotations

from batchensemble.ensembles.saving.config import CONFIG, read_config
from batchensemble.ensembles.saving.folder import WEIGHTS, load, save, versions

__all__ = ["CONFIG", "WEIGHTS", "load", "read_config", "save", "versions"]
