"""Methods ranked over several data sets, from the folders of their comparisons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from batchensemble.comparison.ranking.notes import notes_of
from batchensemble.comparison.ranking.ranks import Ranks, rank, ranked
from batchensemble.comparison.ranking.scored import RANKED_BY, Scored, read_scores, result_labels
from batchensemble.comparison.summary import Column
from batchensemble.comparison.wording import method_title, printable
from batchensemble.core.arguments import between, one_of
from batchensemble.metrics.bootstrap import LEVEL, spread


@dataclass(frozen=True)
class Ranking:
    """Methods ranked over several data sets, see :func:`rank_folders`.

    Attributes:
        by: the score that ranks.
        datasets: names of the data sets, with the folder where two have the same name.
        folders: the folder of each data set.
        methods: the methods' names, as on the command line.
        scores: mean scores over the seeds, ``[datasets, methods]``, in the score's unit.
        deviations: sample standard deviations over the seeds, ``[datasets, methods]``; NaN with one
            seed.
        seeds: the seeds used on each data set: those that every method finished.
        ranks: ``[datasets, methods]``, 1 for the best; ties get mean ranks.
        over_all: the mean ranks and the tests on them.
        level: 1 minus the significance level.
        notes: what was left out and which settings differ, a sentence each.
    """

    by: Column
    datasets: tuple[str, ...]
    folders: tuple[Path, ...]
    methods: tuple[str, ...]
    scores: Float[np.ndarray, "datasets methods"]
    deviations: Float[np.ndarray, "datasets methods"]
    seeds: tuple[tuple[int, ...], ...]
    ranks: Float[np.ndarray, "datasets methods"]
    over_all: Ranks
    level: float
    notes: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """The methods' titles."""
        return [method_title(method) for method in self.methods]

    @property
    def order(self) -> list[int]:
        """The methods' numbers, the best mean rank first."""
        return [int(each) for each in np.argsort(self.over_all.mean, kind="stable")]

    @property
    def differ(self) -> bool:
        """Whether Friedman's test finds a significant difference between the methods."""
        return self.over_all.p_value <= 1 - self.level

    def significantly_different(self, one: int, other: int) -> bool:
        """Return whether two methods, by number, differ significantly.

        Pairs are tested only if Friedman's test finds a difference at all (Demšar 2006).
        """
        return self.differ and self.over_all.significantly_different(one, other)

    def to_dict(self) -> dict[str, Any]:
        """Return the ranking as a dictionary for JSON."""
        order = self.order
        return {
            "by": self.by.key,
            "better": self.by.better,
            "datasets": [
                {
                    "name": name,
                    "folder": str(self.folders[row]),
                    "seeds": list(self.seeds[row]),
                    "methods": {
                        method: {
                            "mean": float(self.scores[row, column]),
                            "deviation": _known(self.deviations[row, column]),
                            "rank": float(self.ranks[row, column]),
                        }
                        for column, method in enumerate(self.methods)
                    },
                }
                for row, name in enumerate(self.datasets)
            ],
            "mean_ranks": {self.methods[each]: float(self.over_all.mean[each]) for each in order},
            "friedman": self.over_all.friedman,
            "p_value": self.over_all.p_value,
            "critical_difference": self.over_all.critical_difference,
            "level": self.level,
            "significantly_different": [
                [self.methods[better], self.methods[worse]]
                for place, better in enumerate(order)
                for worse in order[place + 1 :]
                if self.significantly_different(better, worse)
            ],
            "notes": list(self.notes),
        }


def rank_folders(
    folders: Sequence[str | Path], by: str = "nll", *, level: float = LEVEL
) -> Ranking:
    """Rank the methods that all comparisons have, by their mean score over the seeds.

    Args:
        folders: folders that ``compare`` wrote, each of another data set.
        by: the score that ranks, a key of :data:`RANKED_BY`.
        level: 1 minus the significance level, above 0 and below 1.

    Raises:
        ValueError: there are fewer than two data sets or methods, a data set is given twice, or a
            score is missing or not finite.
        OSError: a folder cannot be read.

    Example:
        >>> rank_folders(["runs/moons"])
        Traceback (most recent call last):
        ValueError: ranks need at least two data sets, got 1; give the folder of another comparison
    """
    one_of("by", by, RANKED_BY)
    between("level", level, 0, 1)
    if len(folders) < 2:
        raise ValueError(
            f"ranks need at least two data sets, got {len(folders)}; give the folder of another "
            "comparison"
        )
    found = [read_scores(folder) for folder in folders]
    _refuse_twice(found)
    _refuse_missing(found, by)
    methods = _common(found)
    seeds = [_seeds(each, methods) for each in found]
    column = RANKED_BY[by]
    values = [
        [spread([_score(each, method, seed, column) for seed in own]) for method in methods]
        for each, own in zip(found, seeds, strict=True)
    ]
    scores = np.array([[mean for mean, _ in row] for row in values])
    deviations = np.array([[math.nan if std is None else std for _, std in row] for row in values])
    better: Literal["higher", "lower"] = "higher" if column.better == "higher" else "lower"
    return Ranking(
        column,
        result_labels(found),
        tuple(each.folder for each in found),
        tuple(methods),
        scores,
        deviations,
        tuple(tuple(own) for own in seeds),
        ranked(scores, better),
        rank(scores, better=better, level=level),
        level,
        tuple(notes_of(found, methods, seeds)),
    )


def _refuse_twice(found: Sequence[Scored]) -> None:
    seen: dict[str, Scored] = {}
    for each in found:
        before = seen.setdefault(each.identity, each)
        if before is not each:
            raise ValueError(
                f"{each.name} is in {before.folder} and in {each.folder}; give each data set once"
            )


def _refuse_missing(found: Sequence[Scored], by: str) -> None:
    missing = [each for each in found if by not in each.has]
    if not missing:
        return
    shared = set.intersection(*(each.has for each in found))
    tasks = {str(each.data.get("task")): each.name for each in found}
    mixed = ""
    if {"classification", "regression"} <= set(tasks):
        mixed = f" {tasks['classification']} is of classes and {tasks['regression']} of numbers;"
    names = ", ".join(key for key in RANKED_BY if key in shared)
    raise ValueError(
        f"{missing[0].name} has no score {by!r};{mixed} "
        + (f"rank by what all have: {names}" if names else "no score is in all of them")
    )


def _common(found: Sequence[Scored]) -> list[str]:
    """Return the methods that all data sets have, in the order of the first."""
    common = [method for method in found[0].scores if all(method in each.scores for each in found)]
    if len(common) < 2:
        has = "; ".join(
            f"{each.name} has {', '.join(map(printable, each.scores))}" for each in found
        )
        raise ValueError(
            "ranks need at least two methods that all data sets have, got "
            f"{printable(common[0]) if common else 'none'}: {has}"
        )
    return common


def _seeds(scored: Scored, methods: Sequence[str]) -> list[int]:
    """Return the seeds that all methods finished: others would not compare like with like."""
    common = set.intersection(*(set(scored.scores[method]) for method in methods))
    if not common:
        raise ValueError(
            f"no seed of {scored.name} is finished by all of {', '.join(map(printable, methods))}; "
            f"run the comparison in {scored.folder} again, or leave it out"
        )
    return sorted(common)


def _score(scored: Scored, method: str, seed: int, column: Column) -> float:
    value = scored.scores[method][seed].get(column.key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(
            f"the {column.title} of {printable(method)}, seed {seed}, on {scored.name} is no "
            "finite number; leave this data set out, or rank by another score"
        )
    return float(value)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
