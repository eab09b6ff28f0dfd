"""Data of ``batchensemble train``: a named data set, or a table, encoded and parted.

A small table is read whole and parted at random. A large one is streamed: one pass finds the rows
with a target and the classes, one or two the encoding, and :class:`HashPart` parts it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from batchensemble.core.atomic_files import file_checksum
from batchensemble.data.datasets import NAMED, load_dataset
from batchensemble.data.sampled_rows import sampled_rows
from batchensemble.data.sources import MEMORY_LIMIT
from batchensemble.data.tables.class_labels import ClassNames, class_names_in
from batchensemble.data.tables.columns import MAX_CLASSES, Array, as_text
from batchensemble.data.tables.dialects import Dialect
from batchensemble.data.tables.encoding.encoding import (
    ColumnChoices,
    InputLayout,
    fit_encoding,
)
from batchensemble.data.tables.files import Files
from batchensemble.data.tables.formats import is_csv, table_files
from batchensemble.data.tables.in_memory import (
    LabelledTable,
    check_class_count,
    check_rows,
    read_table,
)
from batchensemble.data.tables.rows import BLOCK_ROWS
from batchensemble.data.tables.schema import Columns
from batchensemble.data.tables.split import (
    SHARES,
    ChosenRows,
    HashPart,
    HashSplit,
    Part,
    Split,
    random_split,
    table_parts,
)
from batchensemble.data.tables.targets import warn_of_missing
from batchensemble.losses import ClassLoss, EnsembleLoss

# A table is read whole if it takes at most this part of the memory limit as float32: several copies
# of it exist while it is read in double precision, parted and encoded.
WHOLE_SHARE = 8


@dataclass(frozen=True)
class TrainingData:
    """Training data and held-out data, each in a form that ``fit`` takes.

    Attributes:
        name: for messages.
        train: arrays ``(X, y)``, or files, which are streamed.
        held_out: the same for the rows that score the model.
        columns: their names, encoding and classes.
        split: how the rows were held out.
        stopping: the rows that tell when to stop the training; ``None``: those of ``held_out``.
        calibration: the rows that decisions are fitted on; ``None``: those of ``held_out``.
    """

    name: str
    train: Any
    held_out: Any
    columns: Columns
    split: Split
    stopping: Any = None
    calibration: Any = None

    @property
    def held_out_rows(self) -> int:
        """Number of held-out rows."""
        return self.held_out.rows if isinstance(self.held_out, Files) else len(self.held_out[0])

    @property
    def training_rows(self) -> int:
        """Number of rows to train on."""
        return self.train.rows if isinstance(self.train, Files) else len(self.train[0])

    @cached_property
    def sample(self) -> tuple[Array, Array]:
        """Some training rows ``(X, y)``, evenly spread; files are read once for it."""
        return sampled_rows(self.train)

    @property
    def validation(self) -> Any:
        """The rows that tell when to stop the training."""
        return self.held_out if self.stopping is None else self.stopping

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
    split: Split | None = None,
    class_names: Sequence[str] = (),
    dialect: Dialect | None = None,
    choices: ColumnChoices | None = None,
    layout: InputLayout = "plain",
) -> TrainingData:
    """Return a named data set, or a table in files, with rows held out.

    Args:
        source: one of :data:`~batchensemble.data.datasets.NAMED`, or the path of a CSV, Parquet or
            Feather file or of a folder of Parquet files.
        target: the column of targets, for a table.
        loss: of the training; decides whether the targets are classes or numbers.
        validation: the path of a table of held-out rows; by default a part of ``source``.
        memory_limit: in bytes; larger tables are streamed, see :data:`WHOLE_SHARE`.
        columns: of a model that was trained on these data; by default they are detected.
        split: of that model; by default its rule is chosen by size and ``memory_limit``.
        class_names: the classes, in the order of their numbers; by default sorted.
        dialect: how CSV files are written; what it leaves open is detected.
        choices: what the user says about columns.
        layout: of the encoding: ``"codes"`` for a table network, ``"plain"`` for others.

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
    table = _Table(
        path,
        target,
        classes=isinstance(loss, ClassLoss),
        memory_limit=memory_limit,
        scoring=validation is None,
        columns=columns,
        split=split,
        class_names=class_names,
        # What a model was trained on is read as it was then.
        dialect=given if columns is None else given.over(columns.dialect),
        choices=choices,
        layout=layout,
    )
    found = table.streamed() if table.files is not None else table.whole()
    if validation is None:
        return found
    other = Path(validation)
    held_out = labelled_table(other, replace(found.columns, given=given), target, memory_limit)
    checksum = file_checksum(table_files(other))
    if found.split.table == checksum:
        raise ValueError(
            f"{other.name} has the rows that the model is trained on, which cannot test it; give "
            "validation another file, or leave it out to hold out a part of the rows"
        )
    if isinstance(held_out, Files):
        # An invalid row should fail now, not at the end of the first epoch.
        for _ in held_out.blocks(held_out.units, np.float32):
            pass
    file_split = Split("file", found.split.table, checksum, found.split.parts)
    return replace(found, held_out=held_out, split=file_split)


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
    found = Columns(data.feature_names, data.class_names, data.encoding)
    return TrainingData(data.name, data.train, data.held_out, found, Split("named"))


@dataclass
class _Table:
    """A table on its way to training data."""

    path: Path
    target: str
    classes: bool
    memory_limit: int
    scoring: bool
    columns: Columns | None
    split: Split | None
    class_names: Sequence[str]
    dialect: Dialect
    choices: ColumnChoices | None
    layout: InputLayout

    def __post_init__(self) -> None:
        self.files: Files | None = None
        small = _surely_small(self.path, self.memory_limit)
        rule = None if self.split is None else self.split.rule
        if rule == "hashed" or (rule in (None, "file") and not small):
            self.files = Files(
                table_files(self.path),
                self.target,
                numbers=not self.classes,
                dialect=self.dialect,
                all_rows=False,
            )
            fits = self.files.bytes_as_float32 <= self.memory_limit // WHOLE_SHARE
            if rule != "hashed" and fits:
                self.files = None
        self.parts = self.split is None or self.split.parts

    @property
    def checksum(self) -> str:
        """Checksum of the files."""
        return file_checksum(table_files(self.path))

    def whole(self) -> TrainingData:
        """Return the table read whole."""
        table = self._read()
        parts = self._rows(table.labels, len(table.class_names))
        columns = self.columns
        if columns is None:
            training = table.rows[parts["training"]]
            encoding, X = table.encoded(self.path, training, None, self.choices, self.layout)
            columns = Columns(
                encoding.names, table.class_names, encoding, self.target, table.dialect
            )
        else:
            X = columns.inputs(self.path.name, table.block.take(table.rows))
        pairs = {part: (X[rows], table.labels[rows]) for part, rows in parts.items()}
        split = Split("drawn", self.checksum, parts=self.parts)
        nothing = X[:0], table.labels[:0]
        return TrainingData(
            self.path.name, pairs["training"], pairs.get("scoring", nothing), columns, split,
            pairs.get("stopping"), pairs.get("calibration"),
        )  # fmt: skip

    def _read(self) -> LabelledTable:
        """Return the rows with a target; the parts depend on the numbers of the classes."""
        columns = self.columns
        names = ClassNames() if columns is None else columns.class_names
        options: dict[str, Any] = {"numbers": not self.classes, "dialect": self.dialect}
        if columns is not None:
            options["by_value"] = columns.by_value
        if self.class_names:
            found = read_table(self.path, self.target, **options).class_names
            names = checked_order(self.class_names, found)
        return read_table(self.path, self.target, class_names=names, **options)

    def _rows(self, labels: Any, classes: int) -> dict[Part, Any]:
        """Return the rows of each part; versions before held out a fifth and had no other parts."""
        if self.parts:
            return table_parts(labels, classes=classes, scoring=self.scoring)
        everything = np.arange(len(labels))
        if not self.scoring:
            return {"training": everything}
        training, held_out, _, _ = random_split(everything, labels, classes=classes)
        return {"training": training, "scoring": held_out}

    def streamed(self) -> TrainingData:
        """Return views of the files."""
        files = self.files
        assert files is not None
        check_rows(self.path.name, files.rows)
        warn_of_missing(files.left_out, self.path.name)
        rows = self._hashed()
        columns = self.columns or self._columns_of(files, rows["training"])
        if self.class_names:
            order = checked_order(self.class_names, columns.class_names)
            columns = replace(columns, class_names=order)
        views = {part: columns.view(files, chosen) for part, chosen in rows.items()}
        if self.columns is None:
            # Rows that are not trained on should fail now, not when they are scored.
            everything = columns.view(files)
            for _ in everything.blocks(everything.units, np.float32):
                pass
        split = Split("hashed", self.checksum, parts=self.parts)
        return TrainingData(
            self.path.name, views["training"], views.get("scoring"), columns, split,
            views.get("stopping"), views.get("calibration"),
        )  # fmt: skip

    def _hashed(self) -> dict[Part, ChosenRows | None]:
        if self.parts:
            return {
                part: HashPart(part, self.scoring)
                for part in SHARES
                if self.scoring or part != "scoring"
            }
        if not self.scoring:
            return {"training": None}
        return {"training": HashSplit(held_out=False), "scoring": HashSplit(held_out=True)}

    def _columns_of(self, files: Files, rows: ChosenRows | None) -> Columns:
        """Return the columns of files, encoded by the training rows."""
        training, names = files.view(rows=rows), files.names
        with files.naming_lines():
            encoding = fit_encoding(
                lambda: training.raw_blocks(names),
                names,
                self.path.name,
                choices=self.choices,
                layout=self.layout,
            )
        classes = _class_names(files) if self.classes else ClassNames()
        return Columns(encoding.names, classes, encoding, files.target, files.dialect)


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
            all_rows=False,
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
