"""Which rows are trained on, which stop the training, and which are kept for decisions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split
from sklearn.utils.validation import _check_sample_weight

from batchensemble.data.tables.columns import Array
from batchensemble.data.tables.split import strata
from batchensemble.predictions import AnyPrediction

FEWEST_ROWS = 20  # below which no rows are kept for stopping and for decisions


@dataclass(frozen=True)
class RowParts:
    """The rows of each part, as positions.

    Attributes:
        training: rows that weights are trained on.
        stopping: rows that tell when to stop; empty: a fixed number of epochs is trained.
        calibration: rows that intervals, sets and thresholds are fitted on.
    """

    training: Array
    stopping: Array
    calibration: Array


@dataclass(frozen=True)
class KeptRows:
    """Rows that were kept from training.

    Attributes:
        inputs: of the network ``[rows, inputs]``.
        prediction: on these rows.
        targets: class numbers or numbers ``[rows]``.
    """

    inputs: Array
    prediction: AnyPrediction
    targets: Array


def known_rows(rows: int, targets: Array, sample_weight: Any = None) -> tuple[Array, Array | None]:
    """Return the rows with a target and a weight above 0, and the weights.

    Args:
        rows: number of examples.
        targets: ``[examples, ...]``, NaN where there is none.
        sample_weight: how much each example counts, ``[examples]``.

    Raises:
        ValueError: lengths differ, a weight is below 0 or not finite, or no row is left.

    Example:
        >>> known_rows(3, np.array([1.0, np.nan, 2.0]), [1, 1, 0])
        (array([0]), array([1., 1., 0.]))
    """
    if rows != len(targets):
        raise ValueError(
            f"Found input variables with inconsistent numbers of samples: [{rows}, {len(targets)}]"
        )
    known, weights = ~np.isnan(targets.reshape(len(targets), -1)).any(1), None
    if sample_weight is not None:
        weights = _check_sample_weight(sample_weight, np.empty((rows, 1)), ensure_non_negative=True)
        known &= weights > 0
    if not known.any():
        raise ValueError("y has no values; there is nothing to learn")
    return np.flatnonzero(known), weights


def part_rows(
    targets: Array,
    known: Array,
    *,
    stopping: float,
    calibration: float,
    classes: bool,
    seed: int,
) -> RowParts:
    """Part rows at random; classes keep their shares where each has enough rows.

    Args:
        targets: of all rows: class numbers, or numbers.
        known: the rows to part.
        stopping: the share that stops the training.
        calibration: the share that is kept for decisions.
        classes: whether the targets are classes.
        seed: of the draw.

    Example:
        >>> parts = part_rows(
        ...     np.zeros(100), np.arange(100), stopping=0.1, calibration=0.2, classes=False, seed=0
        ... )
        >>> len(parts.training), len(parts.stopping), len(parts.calibration)
        (70, 10, 20)
    """
    nothing, rest, found = known[:0], known, []
    for share in (calibration, stopping):
        count = round(share * len(known)) if len(known) >= FEWEST_ROWS else 0
        kept = nothing
        if count:
            by = strata(targets[rest], count) if classes else None
            rest, kept = train_test_split(rest, test_size=count, random_state=seed, stratify=by)
        found.append(np.sort(kept))
    return RowParts(np.sort(rest), found[1], found[0])
