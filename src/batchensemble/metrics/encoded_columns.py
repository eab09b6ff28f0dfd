"""What the prediction of a model on an encoded table depends on, column by column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from batchensemble.data.tables.columns import Array
from batchensemble.data.tables.encoding.decoding import positions_of, shown_value
from batchensemble.data.tables.encoding.encoding import TableEncoding
from batchensemble.ensembles import Ensemble
from batchensemble.metrics.importance import ColumnEffect, ColumnImportance, column_importance
from batchensemble.predictions import Prediction, RegressionPrediction
from batchensemble.predictions.predict import predict

MOST_STUDIED_ROWS = 500
REPEATS = 3
MOST_EFFECTS = 4
MOST_EFFECT_VALUES = 12  # of a column that an effect is computed at


@dataclass(frozen=True)
class ColumnDependence:
    """What a prediction depends on.

    Attributes:
        importance: of each column.
        effects: of the most important columns, the first one first.
    """

    importance: ColumnImportance
    effects: tuple[ColumnEffect, ...]


def column_dependence(
    model: Ensemble,
    encoding: TableEncoding,
    inputs: Array,
    targets: Array,
    class_names: tuple[str, ...] = (),
) -> ColumnDependence:
    """Return what the prediction depends on, from encoded rows that were not trained on.

    All inputs that a column becomes are changed together. Of more than 500 rows, the first 500 are
    used.

    Args:
        model: a model of classes or of one number.
        encoding: of the table.
        inputs: encoded rows ``[rows, inputs]``.
        targets: class numbers, or numbers ``[rows]``.
        class_names: of the classes; the effects are on the probability of the last one.
    """
    inputs, targets = inputs[:MOST_STUDIED_ROWS], targets[:MOST_STUDIED_ROWS]
    asked = _Rows(model, encoding, inputs)
    found = column_importance(
        asked.of_kind(bool(class_names)), asked.frame(), targets, repeats=REPEATS
    )
    order = np.argsort(-found.ensemble.mean(1), kind="stable")[:MOST_EFFECTS]
    of = class_names[-1] if class_names else None
    effects = tuple(asked.effect(found.names[number], of) for number in order)
    return ColumnDependence(found, effects)


class _Rows:
    """Encoded rows as a table: each cell holds the number of the row that its inputs come from."""

    def __init__(self, model: Ensemble, encoding: TableEncoding, inputs: Array) -> None:
        self.model, self.encoding, self.inputs = model, encoding, inputs
        self.positions = positions_of(encoding)

    def frame(self) -> pd.DataFrame:
        """Return the rows as they are."""
        rows = np.arange(len(self.inputs))
        return pd.DataFrame(dict.fromkeys(self.encoding.names, rows))

    def members(self, frame: pd.DataFrame) -> Array:
        """Return the members' outputs ``[rows, members, ...]`` for rows mixed from others."""
        mixed = np.empty((len(frame), self.inputs.shape[1]), self.inputs.dtype)
        for name, positions in self.positions.items():
            mixed[:, positions] = self.inputs[frame[name].to_numpy()][:, positions]
        return _member_outputs(self.model, mixed)

    def of_kind(self, classes: bool) -> Any:
        """Return the rows as an estimator of classes or of numbers."""
        return _Classes(self) if classes else _Numbers(self)

    def effect(self, name: str, of: str | None) -> ColumnEffect:
        """Return how the mean prediction changes with a column."""
        positions = self.positions[name]
        shown = {
            row: shown_value(self.encoding, name, self.inputs[row])
            for row in self._rows_of_values(positions)
        }
        if any(isinstance(value, float) for value in shown.values()):
            # A gap has no place among numbers.
            shown = {row: value for row, value in shown.items() if isinstance(value, float)}
        rows, means = list(shown), []
        for row in rows:
            changed = self.inputs.copy()
            changed[:, positions] = self.inputs[row, positions]
            found = _member_outputs(self.model, changed)
            means.append((found if of is None else found[..., -1]).mean(0))
        members = np.stack(means)
        numbers = all(isinstance(each, float) for each in shown.values())
        values = np.array(list(shown.values()), np.float64 if numbers else object)
        return ColumnEffect(name, values, members.mean(1), members, of)

    def _rows_of_values(self, positions: list[int]) -> list[int]:
        """Return rows with different values of a column, in their order, evenly spread."""
        values, rows = np.unique(self.inputs[:, positions], axis=0, return_index=True)
        if len(values) > MOST_EFFECT_VALUES:
            order = np.argsort(self.inputs[:, positions[0]], kind="stable")
            places = np.linspace(0.02, 0.98, MOST_EFFECT_VALUES) * (len(order) - 1)
            chosen = order[places.round().astype(np.int64)]
            _, first = np.unique(self.inputs[chosen][:, positions], axis=0, return_index=True)
            rows = chosen[np.sort(first)]
        found: list[int] = rows.tolist()
        return found


class _Classes:
    """Encoded rows as an estimator of classes."""

    def __init__(self, rows: _Rows) -> None:
        self.rows = rows
        self.classes_ = np.arange(self.member_proba(rows.frame()[:1]).shape[-1])

    def member_proba(self, X: pd.DataFrame) -> Array:
        """Return ``[rows, members, classes]``."""
        return self.rows.members(X)


class _Numbers:
    """Encoded rows as an estimator of numbers."""

    def __init__(self, rows: _Rows) -> None:
        self.rows = rows

    def member_predict(self, X: pd.DataFrame) -> Array:
        """Return ``[rows, members]``."""
        return self.rows.members(X)


def _member_outputs(model: Ensemble, inputs: Array) -> Array:
    found = predict(model, inputs)
    if isinstance(found, Prediction):
        return found.member_probs
    assert isinstance(found, RegressionPrediction)
    return found.member_means
