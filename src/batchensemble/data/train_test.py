"""Data of ``batchensemble train``: a named data set, or a table, split and standardised.

A small table is read whole and split at random, as in a comparison. A large one is streamed: one
pass finds the classes, one the means and standard deviations, and a :class:`HashSplit` splits it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.preprocessing import StandardScaler

from batchensemble.core.atomic_files import file_checksum
from batchensemble.data.datasets import NAMED, load_dataset, load_table
from batchensemble.data.sources import MEMORY_LIMIT
from batchensemble.data.tables.class_labels import ClassNames, class_names_in
from batchensemble.data.tables.columns import MAX_CLASSES, as_text
from batchensemble.data.tables.dialects import Dialect
from batchensemble.data.tables.files import Files
from batchensemble.data.tables.formats import is_csv, table_files
from batchensemble.data.tables.in_memory import check_class_count, check_rows
from batchensemble.data.tables.rows import BLOCK_ROWS
from batchensemble.data.tables.schema import Columns
from batchensemble.data.tables.split import HashSplit, Rule, Split
from batchensemble.losses import ClassLoss, EnsembleLoss

# A table is read whole if it takes at most this part of the memory limit as float32: several copies
# of it exist while it is read in double precision, split and standardised.
WHOLE_SHARE = 8


@dataclass(frozen=True)
class TrainingData:
    """Training data and held-out data, each in a form that ``fit`` takes.

    Attributes:
        name: for messages.
        train: arrays ``(X, y)``, or files, which are streamed.
        held_out: the same for the held-out rows.
        columns: their names, scaling and classes.
        split: how the rows were held out.
    """

    name: str
    train: Any
    held_out: Any
    columns: Columns
    split: Split

    @property
    def held_out_rows(self) -> int:
        """Number of held-out rows."""
        return self.held_out.rows if isinstance(self.held_out, Files) else len(self.held_out[0])

    def to_dict(self, loss: str) -> dict[str, Any]:
        """Return what the configuration of a model keeps about its data, as JSON can hold it."""
        split = self.split.to_dict()
        return {"name": self.name, "loss": loss, **self.columns.to_dict(), "split": split}


def open_data(
    source: str,
    target: str | None = None,
    *,
    loss: EnsembleLoss,
    validation: str | None = None,
    memory_limit: int = MEMORY_LIMIT,
    columns: Columns | None = None,
    rule: Rule | None = None,
    class_names: Sequence[str] = (),
    dialect: Dialect | None = None,
) -> TrainingData:
    """Return a named data set, or a table in files, with rows held out.

    Args:
        source: one of :data:`~batchensemble.data.datasets.NAMED`, or the path of a CSV, Parquet or
            Feather file or of a folder of Parquet files.
        target: the column of targets, for a table.
        loss: of the training; decides whether the targets are classes or numbers.
        validation: the path of a table of held-out rows; by default a fifth of ``source``.
        memory_limit: in bytes; larger tables are streamed, see :data:`WHOLE_SHARE`.
        columns: of a model that was trained on these data; by default they are detected.
        rule: the rule of that model's split; by default chosen by size and ``memory_limit``.
        class_names: the classes, in the order of their numbers; by default sorted.
        dialect: how CSV files are written; what it leaves open is detected.

    Raises:
        ValueError: the data cannot be used; the message says why.
        ImportError: pyarrow is needed and missing.
        OSError: a file is not there or cannot be read.
    """
    path = Path(source)
    if class_names and (source in NAMED or not isinstance(loss, ClassLoss)):
        raise ValueError(f"classes is for a file of classes, got {', '.join(class_names)}")
    if source in NAMED or target is None or not path.exists():
        if validation is not None and source in NAMED:
            raise ValueError(f"validation is for a file; {source} has its own held-out rows")
        return _named(source, target, loss)
    given = (dialect or Dialect()).over(Dialect() if columns is None else columns.given)
    found = _of_table(
        path,
        target,
        loss,
        memory_limit,
        all_rows=validation is not None,
        columns=columns,
        rule=rule,
        class_names=class_names,
        # What a model was trained on is read as it was then.
        dialect=given if columns is None else given.over(columns.dialect),
    )
    if validation is None:
        return found
    other = Path(validation)
    held_out = labelled_table(other, replace(found.columns, given=given), target, memory_limit)
    split = Split("file", found.split.table, file_checksum(table_files(other)))
    if split.table == split.held_out:
        raise ValueError(
            f"{other.name} has the rows that the model is trained on, which cannot test it; give "
            "validation another file, or leave it out to hold out a fifth of the rows"
        )
    if isinstance(held_out, Files):
        # An invalid row should fail now, not at the end of the first epoch.
        for _ in held_out.blocks(held_out.units, np.float32):
            pass
    return replace(found, held_out=held_out, split=split)


def _named(source: str, target: str | None, loss: EnsembleLoss) -> TrainingData:
    data = load_dataset(source, target)  # raises the error for anything but a named data set
    classes = isinstance(loss, ClassLoss)
    if classes and not data.class_names:
        raise ValueError(
            f"{source} has numbers, and loss={type(loss).__name__} is for classes; give "
            "--task regression"
        )
    if data.class_names and not classes:
        raise ValueError(
            f"{source} has classes, and loss={type(loss).__name__} is for numbers; give a file "
            "with a target of numbers, or leave --loss and --task out"
        )
    found = Columns(data.feature_names, data.class_names, data.mean, data.scale)
    return TrainingData(data.name, data.train, data.held_out, found, Split("named"))


def _of_table(
    path: Path,
    target: str,
    loss: EnsembleLoss,
    memory_limit: int,
    *,
    all_rows: bool,
    columns: Columns | None,
    rule: Rule | None,
    class_names: Sequence[str],
    dialect: Dialect,
) -> TrainingData:
    """Return a table with rows held out; with ``all_rows`` all of them are for training."""
    classes, files = isinstance(loss, ClassLoss), None
    if (rule is None and not _surely_small(path, memory_limit)) or rule == "hashed":
        files = Files(table_files(path), target, numbers=not classes, dialect=dialect)
        if rule is None and files.bytes_as_float32 <= memory_limit // WHOLE_SHARE:
            files = None
    known = file_checksum(table_files(path))
    if files is None:
        split: dict[str, Any] = {
            "numbers": not classes,
            "all_rows": all_rows,
            "scaling": None if columns is None else (columns.mean, columns.scale),
            "dialect": dialect,
        }
        names = ClassNames() if columns is None else columns.class_names
        if class_names:
            names = checked_order(class_names, load_table(path, target, **split).class_names)
        by_value = columns is not None and columns.by_value
        # The stratified split depends on the numbers of the classes, so they come first.
        data = load_table(path, target, class_names=names, by_value=by_value, **split)
        scaling = data.mean, data.scale
        found = Columns(data.feature_names, data.class_names, *scaling, target, data.dialect)
        return TrainingData(path.name, data.train, data.held_out, found, Split("drawn", known))
    check_rows(path.name, files.rows)
    rows = None if all_rows else HashSplit(held_out=False)
    found = columns or _columns_of(files, rows, classes=classes)
    if class_names:
        found = replace(found, class_names=checked_order(class_names, found.class_names))
    train, held_out = found.view(files, rows), found.view(files, HashSplit(held_out=True))
    return TrainingData(path.name, train, held_out, found, Split("hashed", known))


def checked_order(given: Sequence[str], found: Sequence[str]) -> ClassNames:
    """Return the given order of classes.

    Raises:
        ValueError: it does not have each class exactly once.

    Example:
        >>> checked_order(["low", "high"], ("high", "low"))
        ('low', 'high')
    """
    if sorted(given) != sorted(found):
        raise ValueError(
            f"classes must name each class of the data once, which are {', '.join(found)}, got "
            f"{', '.join(given)}"
        )
    return ClassNames(given, ordered=True)


def labelled_table(path: Path, columns: Columns, target: str, memory_limit: int) -> Any:
    """Return all rows of a table as a model takes them: arrays ``(X, y)``, or files to stream.

    Raises:
        ValueError: the table is empty, or does not fit the model.
        OSError: there is no such file.
    """
    files = None
    if not _surely_small(path, memory_limit):
        files = Files(
            table_files(path),
            target,
            columns.class_names,
            numbers=not columns.class_names,
            dialect=columns.given,
            known=columns.dialect,
        )
    if files is not None and files.bytes_as_float32 > memory_limit // WHOLE_SHARE:
        return columns.view(files)
    blocks = list(columns.labelled_blocks(path, BLOCK_ROWS, target))
    if not blocks:
        raise ValueError(f"{path.name} has no rows; there is nothing to score")
    features, targets = (np.concatenate(each) for each in zip(*blocks, strict=True))
    return features, targets


def _surely_small(path: Path, memory_limit: int) -> bool:
    """Return whether a table is a CSV file so small that its rows need not be counted."""
    paths = table_files(path)
    # A number and its comma take at least two bytes, and four as float32.
    small = 2 * paths[0].stat().st_size <= memory_limit // WHOLE_SHARE
    return small and is_csv(paths[0])


def _columns_of(files: Files, rows: HashSplit | None, *, classes: bool) -> Columns:
    """Return the columns of files, with the means and standard deviations of the training rows."""
    assert files.target is not None
    scaler = StandardScaler()
    for features, _ in files.view(rows=rows, to_be_scaled=True).blocks(files.units, np.float64):
        scaler.partial_fit(features)
    names = _class_names(files) if classes else ClassNames()
    mean, scale = tuple(scaler.mean_.tolist()), tuple(scaler.scale_.tolist())
    return Columns(files.names, names, mean, scale, files.target, files.dialect)


def _class_names(files: Files) -> ClassNames:
    """Return the classes of the target column, in order."""
    file, target = files.paths[0].name, str(files.target)
    names = files.found
    if not names:
        found: set[Any] = set()
        for _, values in files.view(names=()).blocks(files.units, np.float32):
            found |= set(np.unique(values).tolist())
            if len(found) > MAX_CLASSES:
                break
        names = class_names_in(map(as_text, found))
    check_class_count(file, target, names, files.rows)
    return names
