"""Finished runs as files, which are read again if nothing they depend on has changed.

Each is an ``.npz`` of NumPy: the arrays, and JSON with the rest. It holds a fingerprint of
everything that the run depends on; nothing in it is a pickle. Files are written atomically.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from batchensemble.core.atomic_files import open_regular, write_whole, writing
from batchensemble.core.strict_json import LARGE_LIMITS, read_json

JSON_PART = "run"
DAMAGED = (
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    RecursionError,
    MemoryError,
    zipfile.BadZipFile,
)


class RunFiles:
    """A folder of finished runs, one file each.

    Args:
        folder: the folder; it is created with the first file.
        fingerprint: checksum of everything that the runs depend on, see :func:`fingerprint_of`.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> files = RunFiles(folder, "a1b2")
        >>> files.write("batch-seed-0", {"nll": 0.5}, {"probs": np.zeros(3)})
        >>> values, arrays = files.read("batch-seed-0")
        >>> values, arrays["probs"].shape, RunFiles(folder, "other data").read("batch-seed-0")
        ({'nll': 0.5}, (3,), None)
    """

    def __init__(self, folder: str | Path, fingerprint: str) -> None:
        self.folder, self.fingerprint = Path(folder), fingerprint

    def path(self, name: str) -> Path:
        """Return the path of a run's file."""
        return self.folder / f"{name}.npz"

    def read(self, name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
        """Return a run's values and arrays, or ``None`` where it has to be trained.

        That is, there is no file, it is damaged, or it is of other data or settings.
        """
        try:
            # NumPy leaves a file open that is no archive.
            with open_regular(self.path(name)) as opened:
                _check_not_packed(opened)
                with np.load(opened, allow_pickle=False) as file:
                    described = json.loads(str(file[JSON_PART]))
                    if described["fingerprint"] != self.fingerprint:
                        return None
                    arrays = {part: file[part] for part in described["arrays"]}
            return described["values"], arrays
        except (FileNotFoundError, *DAMAGED):
            return None

    def write(self, name: str, values: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Write a run; an existing file is replaced.

        Raises:
            WriteError: it cannot be written; an existing file stays.
        """
        described = json.dumps(
            {"fingerprint": self.fingerprint, "values": dict(values), "arrays": list(arrays)}
        )
        path, content = self.path(name), io.BytesIO()
        np.savez(content, allow_pickle=False, **{JSON_PART: np.array(described)}, **arrays)
        with writing(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(path, content.getvalue())


def _check_not_packed(opened: BinaryIO) -> None:
    """Check that no part of an archive is compressed, as in those that are written here.

    Raises:
        ValueError: it is compressed, and may be a thousand times larger.
    """
    with zipfile.ZipFile(opened) as archive:
        if any(each.compress_type != zipfile.ZIP_STORED for each in archive.infolist()):
            raise ValueError("a part of it is compressed")
    opened.seek(0)


def fingerprint_of(values: Mapping[str, Any], arrays: Iterable[np.ndarray]) -> str:
    """Return a checksum that changes with any value, and with the arrays' numbers, type and shape.

    Example:
        >>> one, two = np.zeros(2), np.ones(2)
        >>> fingerprint_of({"lr": 0.1}, [one]) == fingerprint_of({"lr": 0.1}, [two])
        False
    """
    found = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
    for array in arrays:
        found.update(f"{array.dtype.str}{array.shape}".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


RESULTS = "results.json"


def read_results(folder: Path) -> dict[str, Any]:
    """Return the content of ``results.json``, with at least its settings, data and runs.

    Args:
        folder: a folder that ``compare`` wrote.

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
        found = read_json(path, **LARGE_LIMITS, nan=True)
        kinds = (found["settings"], dict), (found["data"], dict), (found["runs"], list)
        fitting = all(isinstance(each, kind) for each, kind in kinds)
        names = found["data"]["name"], found["data"].get("path") or ""
        if not fitting or not all(isinstance(each, str) for each in names):
            raise TypeError("settings and data must be objects, and runs a list")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not of a comparison: {error!r}; run it again") from None
    checked: dict[str, Any] = found
    return checked
