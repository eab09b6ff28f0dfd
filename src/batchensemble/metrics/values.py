"""Scores by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from batchensemble.core.printed_tables import table


class Scores(Mapping[str, Any]):
    """A mapping from names to scores; the functions that return it say which.

    Attributes:
        one_class: the class that all members predict for every example; ``None`` if they predict
            several, or no classes.

    Example:
        >>> scores = Scores({"accuracy": 0.9})
        >>> scores["accuracy"], list(scores)
        (0.9, ['accuracy'])
    """

    def __init__(self, values: Mapping[str, Any], *, one_class: int | None = None) -> None:
        self._values = dict(values)
        self.one_class = one_class

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def remark(self, class_names: Sequence[str] = ()) -> str:
        """Return a warning if one class is predicted for every example; else an empty string.

        Args:
            class_names: names of the classes in the order of their numbers; by default the numbers
                are shown.

        Example:
            >>> Scores({"accuracy": 0.9}, one_class=0).remark()
            'all members predict class 0 for every example; the accuracy, 0.9000, is its share'
        """
        if self.one_class is None or self["accuracy"] == 1:
            return ""
        return only_one_class(self.one_class, self["accuracy"], class_names)

    def __repr__(self) -> str:
        return f"Scores({self._values})"

    def _repr_html_(self) -> str:
        rows = [(name.replace("_", " "), value) for name, value in self.items()]
        return table("Scores", ["score", "value"], rows)


def only_one_class(named: int, accuracy: float, class_names: Sequence[str] = ()) -> str:
    """Return the warning that all members predict one class for every example."""
    name = repr(class_names[named]) if named < len(class_names) else str(named)
    return (
        f"all members predict class {name} for every example; the accuracy, {accuracy:.4f}, is its "
        "share"
    )
