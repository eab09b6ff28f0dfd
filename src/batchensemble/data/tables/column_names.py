"""The column names that a model remembers, and how the columns of other tables match them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from batchensemble.core.arguments import nearest
from batchensemble.data.tables.columns import (
    Array,
    ColumnarTable,
    Names,
    as_text,
    features_of,
    few,
)
from batchensemble.data.tables.encoding.encoding import TableEncoding

NUMBERED = re.compile(r"(?:column_)?(\d+)")  # what pandas and polars call the columns of an array


@dataclass(frozen=True)
class ColumnNames:
    """Names of features, targets and classes, in the order of the network's inputs and outputs.

    Attributes:
        features: ``None``: unnamed, matched by position.
        targets: the names of several targets per example; ``None``: unnamed.
        classes: in the order of their numbers; empty: unnamed.
        encoding: what is done with the columns before the network sees them; ``None``: nothing.
    """

    features: Names | None = None
    targets: Names | None = None
    classes: Names = ()
    encoding: TableEncoding | None = None

    @classmethod
    def of(cls, model: Any) -> ColumnNames:
        """Return the names that a model remembers from its training."""
        features, targets = model.feature_names, model.target_names
        return cls(
            None if features is None else tuple(features),
            None if targets is None else tuple(targets),
            tuple(model.class_names),
            None if features is None else encoding_of(model),
        )

    def encoding_of(self, names: Names) -> TableEncoding | None:
        """Return the encoding of columns that match by name; ``None`` for columns by position."""
        return self.encoding if names == self.features else None

    def features_among(self, given: Names, where: str, *, more: bool = False) -> Names:
        """Return the features to take from a table, in the order of the model.

        Args:
            given: the columns of the table but its target.
            where: what error messages call the table.
            more: ignore further columns, as in files, instead of refusing them.

        Raises:
            ValueError: a column is missing, or unknown.
        """
        more = more or self.encoding is not None
        return _taken(self.features, given, where, "model.feature_names", more=more)

    def targets_among(self, given: Names, where: str) -> Names:
        """Return the target columns of a table, in the order of the model.

        Raises:
            ValueError: a column is missing, or unknown.
        """
        return _taken(self.targets, given, where, "model.target_names", more=False)

    def order_of_classes(self, given: Sequence[Any]) -> Sequence[Any]:
        """Return the classes in the order of their numbers: those given, or else the model's.

        Raises:
            ValueError: the given ones are those of the model in another order.
        """
        texts = tuple(map(as_text, given))
        if texts != self.classes and sorted(texts) == sorted(self.classes):
            raise ValueError(
                f"class_names must be in the order of the training, {few(self.classes)}, got "
                f"{few(texts)}; leave it out, or set model.class_names = () to give the numbers a "
                "new meaning"
            )
        return given if texts else self.classes

    def check_classes(self, found: Names) -> None:
        """Raise ``ValueError`` if data have other classes than the model, or another order.

        Args:
            found: the classes of a dataset that holds class numbers; empty if it names none.
        """
        if found and self.classes and found != self.classes:
            raise ValueError(
                f"the classes must be those of the training, {few(self.classes)}, got "
                f"{few(found)}, which have other numbers; give data with the same classes, in "
                "folders of images empty ones too, or set model.class_names = () to give the "
                "numbers a new meaning"
            )

    def and_of(self, features: Names | None, targets: Names | None, classes: Names) -> ColumnNames:
        """Return these names, completed by those of data; the classes of the data come first."""
        return ColumnNames(
            features if self.features is None else self.features,
            targets if self.targets is None else self.targets,
            classes or self.classes,
            self.encoding,
        )

    def tell(self, model: Any) -> None:
        """Store the names in a model."""
        model.feature_names, model.target_names = self.features, self.targets
        model.class_names = self.classes


UNNAMED = ColumnNames()


def encoding_of(model: Any) -> TableEncoding | None:
    """Return the encoding that a model stores for its columns.

    Raises:
        ValueError: what it stores is no encoding.
    """
    if model.encoding is not None:
        return TableEncoding.from_dict(model.encoding)
    if model.feature_scaling is not None:  # of a version without encodings
        return TableEncoding.of_scaling(model.feature_names, model.feature_scaling)
    return None


def remembered(names: Names) -> Names | None:
    """Return names as a model remembers them: ``None`` for the numbered columns of an array.

    Example:
        >>> remembered(("age", "dose")), remembered(("0", "1"))
        (('age', 'dose'), None)
    """
    return None if _positions(names) == list(range(len(names))) else names


def _taken(known: Names | None, given: Names, where: str, attribute: str, *, more: bool) -> Names:
    positions = _positions(given)
    if known is not None and (set(known) == set(given) or (more and set(known) <= set(given))):
        return known
    numbered = positions is not None or (known is not None and _positions(known) is not None)
    if known is None or (numbered and len(known) == len(given)):
        if positions is None:
            return given
        return tuple(name for _, name in sorted(zip(positions, given, strict=True)))
    missing = [name for name in known if name not in given]
    beside = [] if more else [name for name in given if name not in known]
    faults = [f"has no {missing[0]!r}{nearest(missing[0], given)}"] if missing else []
    faults += [f"has {few(beside)} beside"] if beside else []
    cure = "rename or add what is missing" if missing else "leave out what is beside"
    target = " (target= names the column of the targets)" if beside and not missing else ""
    raise ValueError(
        f"{where} must have the columns that the model was trained on, {few(known)}, in any order;"
        f" it {' and '.join(faults)}; {cure}{target}, or set {attribute} = None to take columns by "
        "their position"
    )


def _positions(names: Names) -> list[int] | None:
    """Return the positions that names stand for, if they number the columns of an array."""
    found = [NUMBERED.fullmatch(name) for name in names]
    numbers = [int(each[1]) for each in found if each is not None]
    return numbers if sorted(numbers) == list(range(len(names))) else None


def encoded_inputs(
    table: ColumnarTable, names: Names, dtype: Any, where: str, known: ColumnNames
) -> Array:
    """Return columns of a table in memory as the inputs of a network.

    Args:
        table: the table.
        names: of the columns, in the order of the inputs.
        dtype: of the result, of NumPy.
        where: the table, for error messages.
        known: what the model knows of its columns.

    Raises:
        ValueError: a value does not fit.
    """
    encoding = known.encoding_of(names)
    if encoding is None:
        return features_of(table, names, dtype, where)
    return encoding.encode_table(table, where, dtype)
