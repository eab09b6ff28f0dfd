"""What a trained model expects of a table: its columns, in the units that it was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from batchensemble.checks import nearest
from batchensemble.columns import Array, refuse_times
from batchensemble.files import Files
from batchensemble.row_split import Fifth

CLASSES = ("cross_entropy", "ordinal")  # losses whose targets are classes


@dataclass(frozen=True)
class Columns:
    """The columns of a saved model.

    Attributes:
        feature_names: in the order of the network's inputs.
        class_names: one a class number; empty where the targets are numbers.
        mean, scale: of each feature where the model was trained; empty where it took them as they
            are.
        target: the column of labels in the file it was trained on.
    """

    feature_names: tuple[str, ...]
    class_names: tuple[str, ...]
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    target: str | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Columns:
        """Return the columns that a saved configuration tells of.

        Raises:
            ValueError: it tells of none.
        """
        data = config.get("data") or {}
        classes = (config.get("loss") or {}).get("name", "cross_entropy") in CLASSES
        if not data.get("feature_names") or (classes and not data.get("class_names")):
            raise ValueError(
                "the model does not say which columns it takes; save it with "
                'data={"feature_names": [...], "class_names": [...]}, the latter for classes'
            )
        _check_network(config, len(data["feature_names"]), len(data.get("class_names", ())))
        return cls(
            tuple(data["feature_names"]),
            tuple(data.get("class_names", ())),
            tuple(data.get("mean", ())),
            tuple(data.get("scale", ())),
            data.get("target"),
        )

    def inputs(
        self, file: str, frame: pd.DataFrame, start: int = 0
    ) -> Float[np.ndarray, "rows features"]:
        """Return the features of rows of a file, standardised as in the training, float32.

        Args:
            file: what errors call it.
            frame: the rows, with all columns.
            start: how many rows of the file are before them.

        Raises:
            ValueError: a value is no finite number; the sentence says where.
        """
        columns = [numbers(file, frame[name], start) for name in self.feature_names]
        values = np.column_stack(columns)
        if self.mean:
            values = (values - np.asarray(self.mean)) / np.asarray(self.scale)
        return values.astype(np.float32)

    def targets(
        self, file: str, column: pd.Series[Any], start: int = 0
    ) -> Int[np.ndarray, "rows"] | Float[np.ndarray, "rows"]:
        """Return the class numbers of a column of labels, or numbers where there are no classes.

        Args:
            file: what errors call it.
            column: the labels of some rows.
            start: how many rows of the file are before them.

        Raises:
            ValueError: a value is none of the classes, or no number; the sentence says where.
        """
        if not self.class_names:
            return numbers(file, column, start)
        known = {_key(name): index for index, name in enumerate(self.class_names)}
        # Each different value is looked up once.
        codes, values = pd.factorize(column)
        places = np.array([known.get(_key(value), -1) for value in values] + [-1], np.int64)
        found: Int[np.ndarray, "rows"] = places[codes]
        if (found < 0).any():
            row = int((found < 0).argmax())
            value = column.iloc[row]
            what = "no value" if pd.isna(value) else f"the class {str(value)!r}"
            raise ValueError(
                f"{file}: column {column.name!r} has {what} in {_row(start + row)}; the model "
                f"knows {', '.join(self.class_names)}"
            )
        return found

    def view(self, files: Files, rows: Fifth | None = None) -> Files:
        """Return files read as the model takes them: its columns, standardised, its classes.

        Args:
            files: a table of any size, with a target.
            rows: those that belong; by default all.

        Raises:
            ValueError: a column is not there.
        """
        assert files.target is not None
        self.check(files.paths[0].name, (*files.names, files.target), files.target)

        def number(file: str, values: Array, start: int) -> Array:
            return self.targets(file, pd.Series(values, name=files.target), start)

        return files.view(
            rows=rows,
            names=self.feature_names,
            mean=self.mean,
            scale=self.scale,
            class_names=self.class_names,
            number=number if self.class_names else None,
        )

    def check(self, file: str, names: Sequence[str], *more: str) -> None:
        """Check that a file has the features, and columns beside them.

        Raises:
            ValueError: one is not there.
        """
        for name in (*self.feature_names, *more):
            if name not in names:
                kind = "column" if name in more else "feature"
                raise ValueError(
                    f"{file} has no {kind} {name!r}{nearest(name, names)}; the model was trained "
                    f"on {', '.join(self.feature_names)} (columns here: {', '.join(names)})"
                )


def _check_network(config: Mapping[str, Any], features: int, classes: int) -> None:
    """Check that a network of the library takes as many features, and tells as many classes.

    Raises:
        ValueError: it does not.
    """
    widths = (config.get("network") or {}).get("mlp")
    if widths is None:
        return
    name = (config.get("loss") or {}).get("name", "cross_entropy")
    told = widths[-1] + (name == "ordinal")
    if features != widths[0] or (name in CLASSES and classes != told):
        raise ValueError(
            f"the model's network takes {widths[0]} features and tells {told} classes, and its "
            f"data name {features} and {classes}; save it again with those of its own"
        )


def numbers(file: str, column: pd.Series[Any], start: int = 0) -> Float[np.ndarray, "rows"]:
    """Return a column as finite numbers.

    Raises:
        ValueError: a value is none; the sentence says where.
    """
    refuse_times(column, f"{file}: column {column.name!r}")
    values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    bad = ~np.isfinite(values)
    if bad.any():
        row = int(bad.argmax())
        value = column.iloc[row]
        what = "no value" if pd.isna(value) else f"{value!r}"
        raise ValueError(
            f"{file}: column {column.name!r} must hold a finite number in every row, got {what} in "
            f"{_row(start + row)}; fill it or drop the row"
        )
    return values


def _row(row: int) -> str:
    """Name a row as an editor shows it, the header being line 1."""
    return f"row {row + 1} (line {row + 2})"


def _key(value: Any) -> float | str:
    """Return a label so that 1, 1.0 and "1" are one class, and True is "True"."""
    if isinstance(value, (bool, np.bool_)):
        return str(value)
    try:
        return float(value)
    except (TypeError, ValueError):
        return str(value)
