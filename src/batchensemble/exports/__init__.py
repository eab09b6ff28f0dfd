"""From a trained ensemble to one file that predicts with its uncertainty, without this library."""

from __future__ import annotations

from batchensemble.exports.export import export
from batchensemble.exports.result import Exported

__all__ = ["Exported", "export"]
