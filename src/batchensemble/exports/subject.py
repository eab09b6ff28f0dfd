"""What is exported: an ensemble, an estimator for tables, or an ensemble that knows its columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from batchensemble.data.tables.columns import Array, ColumnarTable, as_table
from batchensemble.data.tables.encoding.encoding import TableEncoding
from batchensemble.exports.prediction_graph import AnswerRule
from batchensemble.exports.table_columns import (
    ColumnGraph,
    column_arrays,
    column_duties,
    columns_as_json,
)

NO_TEXT = (
    "a .pt2 file has no text: it takes the encoded columns, and its metadata tell how they are "
    "encoded; an .onnx file takes the columns themselves"
)


@dataclass(frozen=True)
class TableExample:
    """Rows of a table that a file is checked on.

    Attributes:
        encoding: what becomes of the columns.
        table: the rows.
    """

    encoding: TableEncoding
    table: ColumnarTable

    def encoded(self) -> Array:
        """Return the rows as the network takes them."""
        return self.encoding.encode_table(self.table, "example")

    def put_before(self, proto: Any, input_name: str) -> None:
        """Let a graph take the columns instead of encoded rows."""
        ColumnGraph(self.encoding).joined_to(proto, input_name)

    def rows(self, count: int) -> tuple[dict[str, Array], Array]:
        """Return some rows, again and again if there are fewer: as columns, and encoded."""
        chosen = np.arange(count) % self.table.rows
        columns = column_arrays(self.encoding, self.table)
        return {name: each[chosen] for name, each in columns.items()}, self.encoded()[chosen]


@dataclass(frozen=True)
class ExportSubject:
    """What is exported.

    Attributes:
        model: the ensemble.
        example: what its network takes.
        table: the rows that the example is made of, if the file takes columns.
        rule: the threshold that the estimator decided on.
        extra: further metadata.
    """

    model: Any
    example: Any
    table: TableExample | None = None
    rule: AnswerRule | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def notes(self, suffix: str) -> tuple[str, ...]:
        """Return what the file does not do, in sentences."""
        if self.table is None:
            return ()
        return column_duties(self.table.encoding) if suffix == ".onnx" else (NO_TEXT,)


def subject_of(model: Any, example: Any) -> ExportSubject:
    """Return what is exported for what a user gives.

    Args:
        model: an ensemble, or an estimator for tables.
        example: inputs of the network, or rows of a table.

    Raises:
        ValueError: the estimator is not fitted, or the example lacks a column.
    """
    encoding, rule, ensemble = None, None, model
    extra: dict[str, Any] = {}
    if hasattr(model, "get_params"):
        ensemble = getattr(model, "model_", None)
        if ensemble is None:
            raise ValueError(f"this {type(model).__name__} is not fitted yet: call fit first")
        encoding, rule = model.encoding_, getattr(model, "threshold_", None)
        if hasattr(model, "classes_"):
            extra["class_names"] = [str(each) for each in model.classes_.tolist()]
    elif getattr(model, "encoding", None) is not None and as_table(example) is not None:
        encoding = TableEncoding.from_dict(model.encoding)
    if encoding is None:
        return ExportSubject(ensemble, example)
    rows = TableExample(encoding, _table(example))
    extra |= {"columns": columns_as_json(encoding), "encoding": encoding.to_dict()}
    return ExportSubject(ensemble, rows.encoded(), rows, rule, extra)


def _table(example: Any) -> ColumnarTable:
    found = as_table(example)
    if found is not None:
        return found
    values = np.asarray(example)
    if values.ndim != 2 or not len(values):
        raise ValueError(
            f"example must be rows of a table [examples, columns], got {list(values.shape)}"
        )
    names = tuple(map(str, range(values.shape[1])))
    return ColumnarTable(names, len(values), lambda name: values[:, int(name)])
