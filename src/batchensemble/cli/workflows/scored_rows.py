"""Rows with targets that a saved model is evaluated on, block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from batchensemble.data.sources import open_batches
from batchensemble.data.tables.files import Files
from batchensemble.data.tables.schema import Columns
from batchensemble.ensembles import Ensemble
from batchensemble.ensembles.checks import place_of
from batchensemble.losses import MSE, EnsembleLoss, Huber
from batchensemble.metrics import Scores, evaluate
from batchensemble.metrics.streaming import score_blocks
from batchensemble.predictions.predict import model_loss

MOST_BLOCK_ROWS = 65_536
MOST_NUMBERS = 2**23  # of the members' probabilities of a block: 64 MB

NO_NOISE = (
    "The loss models no noise, so intervals (lower, upper, coverage, width) show only how far the "
    "members differ and are too narrow; --task regression without --loss models the noise, and "
    "batchensemble decide computes intervals with guaranteed coverage."
)

LabelledBlock = tuple[Any, Any]


class ScoredRows:
    """Rows with targets, in the form that a model takes, block by block.

    Args:
        name: of the data.
        blocks: returns an iterator over blocks ``(features, targets)``.
        kind: what the rows are called where they are held out from training; ``None``: they are
            not known to be.
        whole: all rows ``(features, targets)``, if they are in memory.
        training: the training data ``(features, targets)``, if they are in memory.
        notes: caveats about scores on these rows, a sentence each.

    Attributes:
        rows: number of rows; known after one iteration.
        held_out: whether they are known to be held out from training.
        kind: what they are called.
    """

    def __init__(
        self,
        name: str,
        blocks: Callable[[], Iterator[LabelledBlock]],
        *,
        kind: str | None = None,
        whole: LabelledBlock | None = None,
        training: LabelledBlock | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.name, self.held_out, self.whole, self.notes = name, kind is not None, whole, notes
        self.kind = kind or f"rows of {name}"
        self.training, self._blocks = training, blocks
        self.rows = 0 if whole is None else len(whole[0])

    @property
    def title(self) -> str:
        """The title of their scores; complete after one iteration."""
        return f"{self.rows:,} {self.kind}{f' of {self.name}' if self.held_out else ''}"

    def __iter__(self) -> Iterator[LabelledBlock]:
        """Yield blocks ``(features, targets)``.

        Raises:
            ValueError: there are no rows, or they do not fit the model.
        """
        rows = 0
        for X, targets in self._blocks():
            yield X, targets
            rows += len(X)
        if not rows:
            raise ValueError(f"{self.name} has no rows; there is nothing to score")
        self.rows = rows

    def arrays(self) -> LabelledBlock:
        """Return all features and targets as arrays."""
        if self.whole is None:
            parts = [(np.asarray(X), np.asarray(targets)) for X, targets in self]
            X, targets = (np.concatenate(each) for each in zip(*parts, strict=True))
            return X, targets
        return self.whole


def scores_of(model: Ensemble, rows: ScoredRows) -> Scores:
    """Return the scores of a model; rows that are not in memory are scored block by block."""
    return score_blocks(model, rows) if rows.whole is None else evaluate(model, rows.whole)


def notes_on(loss: EnsembleLoss | None) -> tuple[str, ...]:
    """Return caveats about the predictions of a model trained by a loss.

    Example:
        >>> from batchensemble.losses import MSE, GaussianNLL
        >>> notes_on(GaussianNLL()), len(notes_on(MSE()))
        ((), 1)
    """
    return (NO_NOISE,) if isinstance(getattr(loss, "loss", loss), (MSE, Huber)) else ()


def held_out_rows(
    model: Ensemble,
    part: Any,
    name: str,
    columns: Columns,
    memory_limit: int,
    *,
    kind: str = "held-out examples",
    **known: Any,
) -> ScoredRows:
    """Return held-out rows of the training data, to be scored.

    Args:
        model: the model to be evaluated.
        part: arrays ``(X, y)``, or files, in the form that the model takes.
        name: of the data.
        columns: of the model.
        memory_limit: in bytes; larger files are streamed.
        kind: what the rows are called.
        known: see :class:`ScoredRows`.
    """
    size = block_rows(model.members, len(columns.class_names))

    def blocks() -> Iterator[LabelledBlock]:
        if isinstance(part, Files):
            options: dict[str, Any] = {"memory_limit": memory_limit, **place_of(model)}
            yield from open_batches(part, size, read=model_loss(model).read, **options)
            return
        X, targets = part
        for start in range(0, len(X), size):
            yield X[start : start + size], targets[start : start + size]

    whole = None if isinstance(part, Files) else part
    return ScoredRows(name, blocks, kind=kind, whole=whole, **known)


def table_rows(
    model: Ensemble, path: Path, columns: Columns, target: str, **known: Any
) -> ScoredRows:
    """Return all rows of a table of any size, to be scored.

    Args:
        model: the model to be evaluated.
        path: of a file or of a folder of Parquet files.
        columns: of the model.
        target: the column of targets.
        known: see :class:`ScoredRows`.
    """
    size = block_rows(model.members, len(columns.class_names))

    def blocks() -> Iterator[LabelledBlock]:
        return columns.labelled_blocks(path, size, target)

    return ScoredRows(path.name, blocks, **known)


def block_rows(members: int, classes: int) -> int:
    """Return the number of rows to predict at a time.

    Args:
        members: of the ensemble.
        classes: number of classes; 0 for regression.

    Example:
        >>> block_rows(4, 10), block_rows(4, 1000)
        (65536, 2097)
    """
    return min(MOST_BLOCK_ROWS, max(MOST_NUMBERS // (members * max(classes, 1)), 1))
