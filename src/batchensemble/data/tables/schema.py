"""The table that a trained model expects: its columns, their encoding and its classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from batchensemble.core.arguments import nearest
from batchensemble.data.tables.blocks import Block
from batchensemble.data.tables.class_labels import ClassNames, coded, numbers_of
from batchensemble.data.tables.columns import Array, RowError, fill_column
from batchensemble.data.tables.dialects import FOUND, GAPS, Dialect
from batchensemble.data.tables.encoding.encoding import TableEncoding
from batchensemble.data.tables.files import Files
from batchensemble.data.tables.in_memory import other_separator
from batchensemble.data.tables.rows import Rows, open_rows
from batchensemble.data.tables.split import ChosenRows
from batchensemble.data.tables.targets import gap_words, missing_targets, warn_of_missing

CLASS_LOSSES = ("cross_entropy", "ordinal")  # losses whose targets are classes


@dataclass(frozen=True)
class Columns:
    """The columns of a saved model.

    Attributes:
        feature_names: in the order of the network's inputs.
        class_names: in the order of their numbers; empty where the targets are numbers.
        encoding: what is done with the features; ``None``: they are numbers, taken as they are.
        target: the column of targets in the training data.
        dialect: of the CSV file that it was trained on.
        given: the dialect of CSV files that the user gives.
        by_value: match labels that are numbers by value, however they are written, as models of
            early versions did.
    """

    feature_names: tuple[str, ...]
    class_names: tuple[str, ...]
    encoding: TableEncoding | None = None
    target: str | None = None
    dialect: Dialect = FOUND
    given: Dialect = FOUND
    by_value: bool = False

    @classmethod
    def from_config(cls, config: Mapping[str, Any], given: Dialect | None = None) -> Columns:
        """Return the columns in a saved configuration.

        Args:
            config: of a saved model.
            given: the dialect of CSV files that the user gives.

        Raises:
            ValueError: it names none.
        """
        data = config.get("data") or {}
        classes = (config.get("loss") or {}).get("name", "cross_entropy") in CLASS_LOSSES
        if not data.get("feature_names") or (classes and not data.get("class_names")):
            raise ValueError(
                "the model does not say which columns it takes; save it with "
                'data={"feature_names": [...], "class_names": [...]}, the latter for classes'
            )
        names = tuple(data["feature_names"])
        encoding = None
        if data.get("encoding") is not None:
            encoding = TableEncoding.from_dict(data["encoding"])
            if names != encoding.names:
                raise ValueError("the model's feature_names are not those of its encoding")
        elif data.get("mean"):  # of versions without encodings
            encoding = TableEncoding.of_scaling(names, (tuple(data["mean"]), tuple(data["scale"])))
        width = len(names) if encoding is None else encoding.inputs.width
        _check_network(config, width, len(data.get("class_names", ())))
        return cls(
            names,
            ClassNames(data.get("class_names", ()), ordered=bool(data.get("ordered"))),
            encoding,
            data.get("target"),
            Dialect.from_settings(data.get("dialect")),
            given or Dialect(),
            "dialect" not in data,
        )

    @property
    def input_names(self) -> tuple[str, ...]:
        """The name of each input of the network."""
        return self.feature_names if self.encoding is None else self.encoding.input_names

    def store_in(self, model: Any) -> None:
        """Store the columns in a model, so that it takes tables in their original units."""
        model.feature_names, model.class_names = self.feature_names, self.class_names
        model.encoding = None if self.encoding is None else self.encoding.to_dict()

    def to_dict(self) -> dict[str, Any]:
        """Return what is saved in the configuration of a model, as JSON can hold it."""
        return {
            "feature_names": self.feature_names,
            "class_names": self.class_names,
            "ordered": bool(getattr(self.class_names, "ordered", False)),
            "encoding": None if self.encoding is None else self.encoding.to_dict(),
            "target": self.target,
            "dialect": asdict(self.dialect),
        }

    def inputs(self, file: str, block: Block) -> Float[np.ndarray, "rows features"]:
        """Return the features of a block as the model takes them, float32.

        Args:
            file: what errors call the table.
            block: rows of the table.

        Raises:
            ValueError: a value does not fit the model; the message says where.
        """
        names = self._in(list(block.columns))
        if self.encoding is not None:
            return self.encoding.renamed(names).encode(block, file)
        values = np.empty((block.rows, len(names)), np.float32)
        for number, name in enumerate(names):
            column = block.numbers(file, name)
            fill_column(values, number, column, f"{file}: column {name!r}", block.first_row)
        return values

    def open(self, path: Path) -> AbstractContextManager[Rows]:
        """Open a file, or a folder of Parquet files, to read it as the training data were read."""
        return open_rows(path, dialect=self.given, known=self.dialect)

    def blocks(
        self, rows: Rows, size: int, *, target: str | None = None, id: str | None = None
    ) -> Iterator[Block]:
        """Yield a table in blocks of its features, and of the columns of targets and ids.

        Args:
            rows: the table, which has been checked to have these columns.
            size: rows of a block.
            target: the column of targets, where they are wanted.
            id: a column whose values are read as they stand in the file.
        """
        text = [name for name in (target if self.class_names else None, id) if name is not None]
        more = [name for name in (target, id) if name is not None]
        return rows.blocks(size, [*self._in(rows.names), *more], text)

    def labelled_blocks(self, path: Path, size: int, target: str) -> Iterator[tuple[Any, Any]]:
        """Yield the features and the targets of a table, a block at a time.

        Rows without a target are left out, with a warning at the end.

        Args:
            path: a file, or a folder of Parquet files.
            size: rows of a block.
            target: the column of targets.

        Raises:
            ValueError: a column is missing, or a value does not fit the model.
            OSError: there is no such file.
        """
        with self.open(path) as rows:
            self.check(path.name, rows.names, target)
            where, gaps = f"{path.name}: column {target!r}", rows.dialect.gaps or GAPS
            words = gap_words({*self.class_names, *gaps}, gaps) if self.class_names else gaps
            left_out = 0
            for block in self.blocks(rows, size, target=target):
                missing = missing_targets(block.columns[target], where, gaps, words)
                if missing.any():
                    left_out += int(missing.sum())
                    block = block.take(np.flatnonzero(~missing))
                if block.rows:
                    with block.numbered():
                        targets = self.targets(path.name, block, target)
                    yield self.inputs(path.name, block), targets
            warn_of_missing(left_out, path.name)

    def targets(
        self, file: str, block: Block, name: str
    ) -> Int[np.ndarray, "rows"] | Float[np.ndarray, "rows"]:
        """Return a column of targets as class numbers, or as numbers where there are no classes.

        Args:
            file: what errors call the table.
            block: rows of the table.
            name: of the column.

        Raises:
            ValueError: a value is not one of the classes, or not a number; the message says where.
        """
        if not self.class_names:
            return block.numbers(file, name, "fill it or drop the row")
        where = f"{file}: column {name!r}"
        # Each different label is looked up once.
        codes, texts = coded(block.columns[name], where, block.first_row)
        places = np.array(numbers_of(texts, self.class_names, by_value=self.by_value), np.int64)
        found: Int[np.ndarray, "rows"] = places[codes]
        if (found < 0).any():
            row = int((found < 0).argmax())
            raise RowError(
                f"{where} has the class {texts[codes[row]]!r}",
                block.first_row + row,
                f"; the model knows {', '.join(self.class_names)}",
            )
        return found

    def view(self, files: Files, rows: ChosenRows | None = None) -> Files:
        """Return a view of files with the columns, encoding and class numbers of the model.

        Args:
            files: a table of any size, with a target.
            rows: a part of the rows; by default all.

        Raises:
            ValueError: a column is not there.
        """
        assert files.target is not None
        self.check(files.paths[0].name, files.columns, files.target)

        def number(file: str, values: Array, first_row: int) -> Array:
            target = str(files.target)
            block = Block(len(values), {target: values}, first_row=first_row)
            return self.targets(file, block, target)

        names = self._in(files.columns)
        return files.view(
            rows=rows,
            names=names,
            encoding=None if self.encoding is None else self.encoding.renamed(names),
            class_names=self.class_names,
            number=number if self.class_names else None,
        )

    def check(self, file: str, names: Sequence[str], *more: str) -> None:
        """Check that a file has the features, and further columns.

        Raises:
            ValueError: one is missing.
        """
        for name in (*self._in(names), *more):
            if name not in names:
                kind = "column" if name in more else "feature"
                raise ValueError(
                    f"{file} has no {kind} {name!r}{nearest(name, names)}; the model was trained "
                    f"on {', '.join(self.feature_names)} (columns here: {', '.join(names)})"
                    f"{other_separator(names)}"
                )

    def _in(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the names that the features have in a table.

        Models of early versions may have blanks around a name, which are now stripped from CSV.
        """
        return tuple(
            each if each in names else each.strip() if each.strip() in names else each
            for each in self.feature_names
        )


def _check_network(config: Mapping[str, Any], features: int, classes: int) -> None:
    """Check that the network of a configuration fits the number of features and classes.

    Raises:
        ValueError: it does not.
    """
    widths = (config.get("network") or {}).get("mlp")
    if widths is None:
        return
    name = (config.get("loss") or {}).get("name", "cross_entropy")
    outputs = widths[-1] + (name == "ordinal")
    if features != widths[0] or (name in CLASS_LOSSES and classes != outputs):
        raise ValueError(
            f"the model's network takes {widths[0]} features and predicts {outputs} classes, but "
            f"its data name {features} and {classes}; save it again with the names of its own"
        )
