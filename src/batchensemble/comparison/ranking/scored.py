"""The scores of one comparison, from its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchensemble.comparison.files import read_results
from batchensemble.comparison.summary import CLASSIFICATION, REGRESSION, Column
from batchensemble.comparison.wording import printable

PINBALL = Column("pinball", "Pinball loss", "", "lower", "#.4g")
# The scores with a direction; the NLL of classes and that of numbers are both in nats.
RANKED_BY = {
    column.key: column
    for column in (*REGRESSION, PINBALL, *CLASSIFICATION)
    if column.better is not None
}
NAME_KEYS = ("feature_names", "class_names")


@dataclass(frozen=True)
class Scored:
    """The scores of one comparison.

    Attributes:
        folder: the folder that ``compare`` wrote.
        data: the description of the data set in ``results.json``.
        settings: the settings of the comparison.
        scores: the scores by method, seed and name.
    """

    folder: Path
    data: Mapping[str, Any]
    settings: Mapping[str, Any]
    scores: Mapping[str, Mapping[int, Mapping[str, Any]]]

    @property
    def name(self) -> str:
        """The data set's name, printable on one line."""
        return printable(self.data["name"])

    @property
    def identity(self) -> str:
        """A key that is equal for comparisons on the same data set.

        Files are identified by more than their name, since every folder may have a train.csv.
        """
        keys = ("name", "target", "training_examples", "held_out_examples")
        known = keys[:1] if self.data.get("target") is None else (*keys, *NAME_KEYS)
        return json.dumps([self.data.get(key) for key in known])

    @property
    def has(self) -> set[str]:
        """The scores of any run that can be ranked by."""
        runs = (run for own in self.scores.values() for run in own.values())
        return {key for run in runs for key in run if key in RANKED_BY}


def read_scores(folder: str | Path) -> Scored:
    """Return the scores of a comparison.

    Args:
        folder: a folder that ``compare`` wrote.

    Raises:
        ValueError: the folder does not hold a comparison.
        OSError: it cannot be read.
    """
    folder = Path(folder)
    results = read_results(folder)
    scores: dict[str, dict[int, dict[str, Any]]] = {}
    try:
        for run in results["runs"]:
            scores.setdefault(str(run["method"]), {})[int(run["seed"])] = dict(run["scores"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"a run in {folder} has no method, seed and scores: {error!r}; compare again"
        ) from None
    if not scores:
        raise ValueError(f"the comparison in {folder} has no finished run; run it again")
    return Scored(folder, results["data"], results["settings"], scores)


def result_labels(found: Sequence[Scored]) -> tuple[str, ...]:
    """Return the name of each data set, with the folder where two have the same name."""
    names = [each.name for each in found]
    return tuple(
        name if names.count(name) == 1 else f"{name} in {printable(str(each.folder))}"
        for name, each in zip(names, found, strict=True)
    )
