"""Data sets of comparisons: named ones and tables in memory, split and standardised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from sklearn import datasets
from sklearn.preprocessing import StandardScaler

from batchensemble.core.arguments import nearest, one_of
from batchensemble.data.tables.columns import Array
from batchensemble.data.tables.dialects import FOUND, Dialect
from batchensemble.data.tables.encoding.encoding import (
    ColumnChoices,
    InputLayout,
    TableEncoding,
)
from batchensemble.data.tables.in_memory import read_table
from batchensemble.data.tables.split import last_rows_split, random_split, table_parts
from batchensemble.data.tables.targets import TASKS, Task, task_of_file

# "_examples": the two parts of a data set differ in length, so the name binds no size.
Features = Float[np.ndarray, "_examples features"]
DataLabels = Int[np.ndarray, "_examples"] | Float[np.ndarray, "_examples"]


@dataclass(frozen=True)
class Data:
    """A data set in memory, with rows held out.

    Attributes:
        name: for reports.
        train: features ``[rows, columns]`` (float32) and targets ``[rows]``: class numbers (int64)
            or numbers (float64).
        held_out: the same for the held-out rows.
        feature_names: one per column.
        class_names: in the order of the class numbers; empty for regression.
        standardised: whether the features have mean 0 and standard deviation 1 over the training
            rows.
        target: the column of targets, for a file.
        encoding: what was done with the columns; ``None``: nothing.
        scored: what reports call the rows of ``held_out``.
        dialect: of the CSV file.
        stopping: features and targets of the rows that tell when to stop a training; ``None``:
            there are none.
        choices: what the user said about the columns of a file.
        path: of the file, as it was given.
    """

    name: str
    train: tuple[Features, DataLabels]
    held_out: tuple[Features, DataLabels]
    feature_names: tuple[str, ...]
    class_names: tuple[str, ...]
    standardised: bool
    target: str | None = None
    encoding: TableEncoding | None = None
    scored: str = "held-out examples"
    dialect: Dialect = FOUND
    stopping: tuple[Features, DataLabels] | None = None
    choices: ColumnChoices = field(default_factory=ColumnChoices)
    path: str | None = None

    @property
    def features(self) -> int:
        """Number of features."""
        return len(self.feature_names)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the features are made of; several features may be of one column."""
        return self.feature_names if self.encoding is None else self.encoding.names

    @property
    def classes(self) -> int:
        """Number of classes; 0 for regression."""
        return len(self.class_names)

    @property
    def task(self) -> Task:
        """``"classification"`` or ``"regression"``."""
        return "classification" if self.class_names else "regression"


def load_dataset(
    source: str,
    target: str | None = None,
    task: str | None = None,
    dialect: Dialect | None = None,
    choices: ColumnChoices | None = None,
    *,
    layout: InputLayout = "plain",
    stopping: bool = False,
) -> Data:
    """Return a named data set, or a table in a file.

    Args:
        source: one of :data:`NAMED`, or the path of a file or of a folder of Parquet files.
        target: the column of labels or numbers, for a file.
        task: ``"classification"`` or ``"regression"``; by default told from the target, see
            :func:`~batchensemble.data.tables.targets.task_of`.
        dialect: how a CSV file is written; what it leaves open is detected.
        choices: what the user says about the columns of a file.
        layout: of the encoding of a file.
        stopping: whether rows of a file are kept to stop a training by, see :func:`load_table`.

    Raises:
        ValueError: unknown name, a ``target`` for a named data set, the wrong task, or a table that
            cannot be used.
        FileNotFoundError: there is no such file.

    Example:
        >>> data = load_dataset("moons")
        >>> data.train[0].shape, data.held_out[0].shape
        ((24000, 2), (6000, 2))
    """
    if task is not None:
        one_of("task", task, TASKS)
    if source in NAMED:
        if target is not None:
            raise ValueError(f"target is for a file; {source} has its own labels, got {target!r}")
        found = NAMED[source]()
        if task not in (None, found.task):
            raise ValueError(f"{source} is for {found.task}, got task {task!r}; leave it out")
        return found
    path = Path(source)
    if not path.suffix and not path.exists():
        one_of("data", source, [*NAMED, "FILE.csv"])
    if not path.exists():
        raise FileNotFoundError(
            f"there is no file {source}{nearest(source, NAMED)}; give a CSV file or one of "
            f"{', '.join(NAMED)}"
        )
    if target is None:
        raise ValueError(f"target is missing: name the column of {source} that holds the labels")
    found_task = task or task_of_file(path, target, dialect).task
    return load_table(
        path,
        target,
        numbers=found_task == "regression",
        dialect=dialect,
        choices=choices,
        layout=layout,
        stopping=stopping,
    )


def load_table(
    path: Path,
    target: str,
    *,
    numbers: bool = False,
    dialect: Dialect | None = None,
    choices: ColumnChoices | None = None,
    layout: InputLayout = "plain",
    stopping: bool = False,
) -> Data:
    """Return a table in files, with a random fifth of its rows held out.

    Where rows are kept to stop by, the parts are those of
    :func:`~batchensemble.data.tables.split.table_parts`, with the calibration part trained on.

    Args:
        path: of a file or of a folder of Parquet files.
        target: the column of targets.
        numbers: whether the targets are numbers to predict, not labels.
        dialect: how a CSV file is written; what it leaves open is detected.
        choices: what the user says about columns.
        layout: of the encoding.
        stopping: whether rows are kept to stop a training by.

    Raises:
        ValueError: it cannot be used; the message says why.
    """
    table = read_table(path, target, numbers=numbers, dialect=dialect)
    training, held_out, stop = _rows_of_parts(table.labels, len(table.class_names), stopping)
    encoding, X = table.encoded(path, table.rows[training], None, choices, layout)
    y = table.labels
    return Data(
        path.name,
        (X[training], y[training]),
        (X[held_out], y[held_out]),
        encoding.input_names,
        table.class_names,
        True,
        target,
        encoding,
        dialect=table.dialect,
        stopping=None if stop is None else (X[stop], y[stop]),
        choices=choices or ColumnChoices(),
        path=str(path),
    )


def _rows_of_parts(y: DataLabels, classes: int, stopping: bool) -> tuple[Array, Array, Any]:
    """Return the rows to train on, to score, and to stop by if there are some."""
    if not stopping:
        training, held_out, _, _ = random_split(np.arange(len(y)), y, classes=classes)
        return training, held_out, None
    parts = table_parts(y, classes=classes)
    training = np.sort(np.concatenate([parts["training"], parts["calibration"]]))
    return training, parts["scoring"], parts["stopping"]


def _moons() -> Data:
    """30,000 points on two noisy half circles; the last fifth is held out, as in the notebook."""
    return plane_data("moons", *datasets.make_moons(30_000, noise=0.2, random_state=42))


def _circles() -> Data:
    """30,000 points on two noisy circles, one in the other."""
    points = datasets.make_circles(30_000, noise=0.1, factor=0.6, random_state=42)
    return plane_data("circles", *points)


def _digits() -> Data:
    """1,797 handwritten digits of 8 by 8 pixels."""
    return _bunch("digits", datasets.load_digits())


def _breast_cancer() -> Data:
    """569 tumours, 30 measurements each."""
    return _bunch("breast_cancer", datasets.load_breast_cancer())


def _cubic() -> Data:
    """2,000 points of x³ with normal noise of deviation 3, and none for x from -1 to 1.

    The toy of Hernández-Lobato and Adams 2015, arXiv 1502.05336, with a gap.
    """
    generator = np.random.default_rng(42)
    x = generator.uniform(1, 4, 2000) * generator.choice([-1, 1], 2000)
    return _split("cubic", x[:, None], x**3 + generator.normal(0, 3, 2000), ("x",), ())


def _diabetes() -> Data:
    """442 patients, ten measurements each; the target is disease progression after a year."""
    return _bunch("diabetes", datasets.load_diabetes(scaled=False))


NAMED: dict[str, Callable[[], Data]] = {
    "moons": _moons,
    "circles": _circles,
    "digits": _digits,
    "breast_cancer": _breast_cancer,
    "cubic": _cubic,
    "diabetes": _diabetes,
}


def plane_data(name: str, X: Features, y: DataLabels) -> Data:
    """Return points of the plane, the last fifth of them held out; they need no scaling."""
    train_X, test_X, train_y, test_y = last_rows_split(X.astype(np.float32), y.astype(np.int64))
    return Data(name, (train_X, train_y), (test_X, test_y), ("x1", "x2"), ("0", "1"), False)


def _bunch(name: str, bunch: Any) -> Data:
    names = tuple(str(column) for column in bunch.feature_names)
    classes = tuple(map(str, bunch.get("target_names", ())))
    return _split(name, bunch.data, bunch.target, names, classes)


def _split(
    name: str,
    X: Features,
    y: DataLabels,
    feature_names: tuple[str, ...],
    class_names: tuple[str, ...],
) -> Data:
    """Return a table with a random fifth held out, standardised."""
    targets = y.astype(np.int64 if class_names else np.float64)
    train_X, test_X, train_y, test_y = random_split(X, targets, classes=len(class_names))
    scaler = StandardScaler().fit(train_X)
    scaling = tuple(scaler.mean_.tolist()), tuple(scaler.scale_.tolist())
    mean, scale = (np.array(each) for each in scaling)
    train, held_out = (((X - mean) / scale).astype(np.float32) for X in (train_X, test_X))
    encoding = TableEncoding.of_scaling(feature_names, scaling)
    parts = (train, train_y), (held_out, test_y)
    return Data(name, *parts, feature_names, class_names, True, encoding=encoding)
