"""Scores by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from batchensemble.notebook import table


class Scores(Mapping[str, Any]):
    """Scores by name; which, the functions say that return them.

    Example:
        >>> scores = Scores({"accuracy": 0.9})
        >>> scores["accuracy"], list(scores)
        (0.9, ['accuracy'])
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Scores({self._values})"

    def _repr_html_(self) -> str:
        rows = [(name.replace("_", " "), value) for name, value in self.items()]
        return table("Scores", ["score", "value"], rows)
