"""Which columns a model knows by name, and how those of other tables are brought to them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from batchensemble.core.arguments import nearest
from batchensemble.core.inputs import Scaling
from batchensemble.data.tables.columns import Names, as_text, few

NUMBERED = re.compile(r"(?:column_)?(\d+)")  # what pandas and polars call the columns of an array


@dataclass(frozen=True)
class ColumnNames:
    """Names in the order of a network's inputs, of its targets, and of its classes.

    Attributes:
        features: ``None`` where they have none, and are taken by position.
        targets: of several numbers or labels an example; ``None`` as for the features.
        classes: one a class number; empty where they have none.
        scaling: of the features, where a model takes them standardised.
    """

    features: Names | None = None
    targets: Names | None = None
    classes: Names = ()
    scaling: Scaling | None = None

    @classmethod
    def of(cls, model: Any) -> ColumnNames:
        """Return the names that a model remembers of its training."""
        features, targets = model.feature_names, model.target_names
        return cls(
            None if features is None else tuple(features),
            None if targets is None else tuple(targets),
            tuple(model.class_names),
            None if features is None else model.feature_scaling,
        )

    def scaling_of(self, names: Names) -> Scaling | None:
        """Return what columns that were found are standardised by: those that are known by name."""
        return self.scaling if names == self.features else None

    def features_among(self, given: Names, where: str, *, more: bool = False) -> Names:
        """Return which features to take of those given, in the order of the model.

        Args:
            given: all but the target.
            where: what the sentence calls them.
            more: whether further columns are passed over, as in files, instead of refused.

        Raises:
            ValueError: one is missing, or one is not known.
        """
        return _taken(self.features, given, where, "model.feature_names", more=more)

    def targets_among(self, given: Names, where: str) -> Names:
        """Return the columns of several targets in the order of the model.

        Raises:
            ValueError: one is missing, or one is not known.
        """
        return _taken(self.targets, given, where, "model.target_names", more=False)

    def order_of_classes(self, given: Sequence[Any]) -> Sequence[Any]:
        """Return the classes in the order of their numbers: the given ones, else the model's.

        Raises:
            ValueError: the given ones are those of the model in another order.
        """
        texts = tuple(map(as_text, given))
        if texts != self.classes and sorted(texts) == sorted(self.classes):
            raise ValueError(
                f"class_names must be in the order of the training, {few(self.classes)}, got "
                f"{few(texts)}; leave it out, or set model.class_names = () where the numbers "
                "mean others from now on"
            )
        return given if texts else self.classes

    def check_classes(self, found: Names) -> None:
        """Raise ``ValueError`` where data number other classes than the model, or otherwise.

        Args:
            found: of a dataset that numbers its classes itself; empty where it has no names.
        """
        if found and self.classes and found != self.classes:
            raise ValueError(
                f"the classes must be those of the training, {few(self.classes)}, got "
                f"{few(found)}, which have other numbers; give data with the same classes, in "
                "folders of images empty ones too, or set model.class_names = () where the numbers "
                "mean others from now on"
            )

    def and_of(self, features: Names | None, targets: Names | None, classes: Names) -> ColumnNames:
        """Return these names, and those of data where there are none; classes are the data's."""
        return ColumnNames(
            features if self.features is None else self.features,
            targets if self.targets is None else self.targets,
            classes or self.classes,
            self.scaling,
        )

    def tell(self, model: Any) -> None:
        """Let a model remember them."""
        model.feature_names, model.target_names = self.features, self.targets
        model.class_names = self.classes


UNNAMED = ColumnNames()


def remembered(names: Names) -> Names | None:
    """Return names as a model remembers them: the numbers of an array's columns are none.

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
    """Return the numbers that names are, where they are those of an array's columns."""
    found = [NUMBERED.fullmatch(name) for name in names]
    numbers = [int(each[1]) for each in found if each is not None]
    return numbers if sorted(numbers) == list(range(len(names))) else None
