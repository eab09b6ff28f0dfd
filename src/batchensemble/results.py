"""What ``results.json`` of a comparison says, checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from batchensemble.strict_json import LARGE, read_json

RESULTS = "results.json"


def read_results(folder: Path) -> dict[str, Any]:
    """Return what a comparison wrote, with at least its settings, data and runs.

    Args:
        folder: that ``compare`` wrote.

    Raises:
        ValueError: the file is not of a comparison.
        OSError: it cannot be read.

    Example:
        >>> import tempfile
        >>> read_results(Path(tempfile.mkdtemp()))
        Traceback (most recent call last):
        FileNotFoundError: ... has no results.json; give a folder that batchensemble compare wrote
    """
    path = folder / RESULTS
    if not folder.exists():
        raise FileNotFoundError(f"there is no folder {folder}; give one that compare wrote")
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} has no {RESULTS}; give a folder that batchensemble compare wrote"
        )
    try:
        found = read_json(path, **LARGE, nan=True)
        kinds = (found["settings"], dict), (found["data"], dict), (found["runs"], list)
        fitting = all(isinstance(each, kind) for each, kind in kinds)
        if not fitting or not isinstance(found["data"]["name"], str):
            raise TypeError("settings and data must be objects, and runs a list")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not of a comparison: {error!r}; run it again") from None
    checked: dict[str, Any] = found
    return checked
