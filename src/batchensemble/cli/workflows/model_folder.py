"""The folder of a saved model: its settings, its columns, and the rows held out from training.

Every command on a saved model uses this class, so that all evaluate the same rows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from batchensemble.cli.workflows.scored_rows import ScoredRows, held_out_rows, table_rows
from batchensemble.cli.workflows.settings import SETTINGS_FILE, read_settings
from batchensemble.core.atomic_files import file_checksum
from batchensemble.data.datasets import NAMED
from batchensemble.data.sources import MEMORY_LIMIT, open_batches
from batchensemble.data.tables.blocks import Block
from batchensemble.data.tables.dialects import Dialect
from batchensemble.data.tables.files import Files
from batchensemble.data.tables.formats import table_files
from batchensemble.data.tables.schema import Columns
from batchensemble.data.tables.split import Rule, Split
from batchensemble.data.train_test import TrainingData, labelled_table, open_data
from batchensemble.ensembles import Ensemble
from batchensemble.ensembles.checks import place_of
from batchensemble.ensembles.saving import load as load_model
from batchensemble.ensembles.saving import read_config
from batchensemble.ensembles.saving.trust import Trust
from batchensemble.predictions.predict import model_loss

TRAINED_ON = (
    "The model was trained on all or most of these rows, so the results do not hold for new rows: "
    "leave out --data to use the held-out rows."
)
EARLY_STOPPING_NOTE = (
    "Training stopped where it was best on these held-out examples (patience), so the results are "
    "slightly optimistic; give unseen rows with --data for unbiased ones."
)
CALIBRATED = (
    "The model is calibrated. If it was calibrated on these held-out examples, the results are "
    "slightly optimistic; give unseen rows with --data for unbiased ones."
)
# The part of a fingerprint of training data that identifies the rows: without the name of the file,
# and without the targets, which another version may store with more digits.
ROWS = re.compile(r"(\d+) (?:examples of shape (.*) \((\w+), \w+\)|rows of .*\(checksum (\w+)\))")


HeldOut = Literal["scoring", "calibration"]


class ModelFolder:
    """A folder written by ``train`` or :func:`batchensemble.save`.

    Args:
        path: of the folder.
        dialect: how CSV files are written; what it leaves open is detected.

    Attributes:
        config: the configuration of the model.
        columns: the columns that it takes, and their scaling.

    Raises:
        FileNotFoundError: there is no model in the folder.
        ValueError: a file is damaged, or does not name the columns of the model.
    """

    def __init__(self, path: str | Path, dialect: Dialect | None = None) -> None:
        self.path = Path(path)
        self.config = read_config(self.path)
        self.columns = Columns.from_config(self.config, dialect)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The settings of its training; empty if the folder has none.

        Raises:
            ValueError: the file of settings is damaged.
        """
        path = self.path / SETTINGS_FILE
        return read_settings(path) if path.is_file() else {}

    @cached_property
    def split(self) -> Split | None:
        """How rows were held out from training; ``None`` if unknown.

        Raises:
            ValueError: the stored split is damaged.
        """
        return Split.from_dict((self.config.get("data") or {}).get("split"))

    @property
    def parts(self) -> bool:
        """Whether rows to stop by, to calibrate with and to score were held out separately."""
        return self.split is not None and self.split.parts

    def load(
        self,
        device: str | torch.device | None = None,
        network: nn.Module | None = None,
        trust: Trust = False,
    ) -> Ensemble:
        """Return the model, see :func:`batchensemble.load`."""
        return load_model(self.path, network=network, device=device, trust=trust)

    def rows(
        self,
        model: Ensemble,
        source: str | None = None,
        target: str | None = None,
        part: HeldOut = "scoring",
    ) -> ScoredRows:
        """Return the rows with targets to evaluate the model on.

        Args:
            model: what :meth:`load` returned.
            source: a file or a folder of Parquet files (all rows), or a named data set (its
                held-out rows); by default the rows held out from training.
            target: the column of targets; by default that of the training.
            part: which of the rows held out from training: those kept to score the model, or to
                calibrate it and to fit decisions. They are the same where :attr:`parts` is false.

        Raises:
            ValueError: the data do not fit the model, or which rows it was trained on is not known.
            OSError: there is no such file.
        """
        trained = self.settings.get("target")
        if source is None and target not in (None, trained):
            raise ValueError(
                f"target names a column of --data FILE, got {target!r} without --data; the rows "
                f"held out from training have the target {trained!r}"
            )
        its_own = source in NAMED and source == self.settings.get("data") and target is None
        if source is None or its_own:
            return self._held_out(model, part)
        if source in NAMED:
            return self._named_rows(model, source, target)
        path, target = Path(source), target or self.columns.target
        if target is None:
            raise ValueError(f"target is missing: name the column of {path} that holds them")
        return table_rows(model, path, self.columns, target, notes=self._notes(path))

    def _held_out(self, model: Ensemble, part: HeldOut) -> ScoredRows:
        """Return exactly the rows that training held out for a purpose.

        The folder stores the rule and a checksum of the table. If it does not, the table is split
        as ``train`` splits it by the stored settings, and the fingerprint of the other rows must be
        that of the training data.
        """
        source, validation = self.settings.get("data"), self.settings.get("validation")
        if source is None:
            raise ValueError(
                f"{self.path} does not name its training data; give --data FILE --target COLUMN"
            )
        rule, table, held_out = self._remembered
        if rule is not None and (rule == "file") != (validation is not None):
            raise ValueError(self._unknown(f"{self.path / SETTINGS_FILE} is of another training"))
        target, limit = self.settings.get("target"), self.settings.get("memory_limit", MEMORY_LIMIT)
        notes, columns = self._notes(None), self.columns
        calibration = part == "calibration" and self.parts
        if validation is not None and not calibration:
            path = Path(validation)
            self._check(path, held_out)
            rows = labelled_table(path, columns, target or str(columns.target), limit)
            return held_out_rows(model, rows, Path(source).name, columns, limit, notes=notes)
        if source not in NAMED:
            self._check(Path(source), table)
        data = open_data(
            source,
            target,
            loss=model_loss(model),
            validation=validation,
            memory_limit=limit,
            columns=columns,
            split=self.split or Split("file"),  # whose rows are read whole or streamed by size
        )
        self._check_training(model, data, limit)
        in_memory = not isinstance(data.train, Files)
        return held_out_rows(
            model, data.calibration if calibration else data.held_out, data.name, columns, limit,
            kind="calibration examples" if calibration else "held-out examples",
            training=data.train if in_memory else None, notes=notes,
        )  # fmt: skip

    @property
    def _remembered(self) -> tuple[Rule | None, str | None, str | None]:
        """The rule, and the checksums of the table and of a separate held-out file."""
        split = self.split
        return (None, None, None) if split is None else (split.rule, split.table, split.held_out)

    def _check(self, path: Path, known: str | None) -> None:
        """Raise if a file is missing, or has changed since the model was trained."""
        if not path.exists():
            raise FileNotFoundError(
                f"there is no file {path}, of which rows were held out from the training of "
                f"{self.path}; run this command where it is, correct its path in "
                f"{self.path / SETTINGS_FILE}, or give rows that the model has not seen with --data"
            )
        if known is not None and file_checksum(table_files(path)) != known:
            raise ValueError(self._unknown(f"{path} is not as it was when the model was trained"))

    def _check_training(self, model: Ensemble, data: TrainingData, limit: int) -> None:
        """Raise if the remaining rows are not those that the model was trained on."""
        if data.columns.class_names != self.columns.class_names:
            raise ValueError(self._unknown(f"{data.name} has other classes than the model"))
        then = str(self.config.get("trained_on"))
        if isinstance(data.train, Files) and " rows of " in then:
            now: str | None = data.train.describe()
        elif isinstance(data.train, Files) and self.split is not None:
            if then.startswith(f"{data.train.rows} "):
                return  # they were read whole then; the checksum of the file is enough
            now = None
        else:
            place = place_of(model)
            read = model_loss(model).read
            now = open_batches(data.train, 1, memory_limit=limit, read=read, **place).fingerprint
        if _rows_of(then) is None or _rows_of(then) != _rows_of(now):
            raise ValueError(self._unknown(f"{data.name} holds other rows than it was trained on"))

    def _unknown(self, reason: str) -> str:
        return (
            f"{reason}, so which rows the model in {self.path} was trained on is not known; "
            "restore the file, or give rows that the model has not seen with --data"
        )

    def _named_rows(self, model: Ensemble, source: str, target: str | None) -> ScoredRows:
        """Return the held-out rows of a named data set, in the units and classes of the model."""
        data = open_data(source, target, loss=model_loss(model))
        own, columns, part = data.columns, self.columns, data.held_out
        if _numbering(own) != _numbering(columns):
            columns.check(source, own.feature_names)
            known = None if own.encoding is None else own.encoding.scaling
            mean, scale = (np.array(each) for each in (known or (0.0, 1.0)))
            X, y = part[0].astype(np.float64) * scale + mean, part[1]
            names = np.array(own.class_names, dtype=object)
            values = dict(zip(own.feature_names, X.T, strict=True))
            labels = {"target": names[y] if own.class_names else y}
            part = (
                columns.inputs(source, Block(len(X), values)),
                columns.targets(source, Block(len(X), labels), "target"),
            )
        return held_out_rows(model, part, source, columns, MEMORY_LIMIT)

    def _notes(self, path: Path | None) -> tuple[str, ...]:
        """Return caveats about rows that are not independent of the model."""
        _, table, held_out = self._remembered
        if path is not None and not _same(path, self.settings.get("validation"), held_out):
            return (TRAINED_ON,) if _same(path, self.settings.get("data"), table) else ()
        steered = bool(self.settings.get("patience")) and not self.parts
        notes = [EARLY_STOPPING_NOTE] if steered else []
        return (*notes, *([CALIBRATED] if self.config.get("calibration") is not None else []))


def _numbering(columns: Columns) -> tuple[Any, ...]:
    """Return what determines the numbers that a network takes and returns."""
    return columns.feature_names, columns.class_names, columns.encoding


def _same(path: Path, other: str | None, known: str | None) -> bool:
    """Return whether two files are the same, by path or by content."""
    if not path.exists():
        return False
    if other is not None and Path(other).exists() and path.samefile(other):
        return True
    return known is not None and file_checksum(table_files(path)) == known


def _rows_of(fingerprint: str | None) -> Sequence[str | None] | None:
    found = ROWS.fullmatch(fingerprint or "")
    return None if found is None else found.groups()
