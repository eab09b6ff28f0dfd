"""The record of members that were chosen from a larger ensemble."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Choice:
    """Which members were chosen from a larger ensemble, and their scores on the data chosen by.

    These scores are too good: score the chosen members on other data.

    Attributes:
        chosen: the members' numbers in the larger ensemble, in the order in which they were chosen:
            member 0 of the smaller ensemble is ``chosen[0]``.
        members: number of members of the larger ensemble.
        score: name of the score, such as ``"nll"``.
        scores: the score after each step, with 1, 2, ... members, at least ``len(chosen)``.
        score_of_all: the score of all members, NaN if outputs of one are not finite.

    Example:
        >>> print(Choice((2, 0), 3, "nll", (0.4, 0.3), 0.35))
        members 2, 0 of 3: nll 0.3000, of all members 0.3500
    """

    chosen: tuple[int, ...]
    members: int
    score: str
    scores: tuple[float, ...]
    score_of_all: float

    def __str__(self) -> str:
        names = ", ".join(map(str, self.chosen))
        return (
            f"{'member' if len(self.chosen) == 1 else 'members'} {names} of {self.members}: "
            f"{self.score} {self.scores[len(self.chosen) - 1]:.4f}, of all members "
            f"{self.score_of_all:.4f}"
        )

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        of_all = self.score_of_all if math.isfinite(self.score_of_all) else None
        return {
            "chosen": list(self.chosen),
            "members": self.members,
            "score": self.score,
            "scores": list(self.scores),
            "score_of_all": of_all,
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Choice:
        """Return the record from what :meth:`as_json` returned."""
        of_all = found["score_of_all"]
        return cls(
            tuple(found["chosen"]),
            found["members"],
            found["score"],
            tuple(map(float, found["scores"])),
            math.nan if of_all is None else float(of_all),
        )
