"""Differences between the methods of a comparison, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from batchensemble.comparison.results import Comparison
from batchensemble.metrics.bootstrap import LEVEL, Contributions, Difference, bootstrap, interval
from batchensemble.metrics.by_example import contributions


class Differences:
    """Differences between the methods of a comparison, with paired bootstrap intervals.

    Scores are resampled over the held-out examples, and over the seeds where there are several;
    what is measured once per run, such as seconds, over the seeds alone. Only seeds that every
    method has are used. All scores share the same resamples, which are drawn once, here.

    Args:
        comparison: a comparison, from :func:`batchensemble.comparison.compare.compare`.
        scores: names of scores, see :func:`batchensemble.metrics.by_example.contributions`.
        costs: names of attributes of :class:`batchensemble.comparison.cost.Cost`.

    Example:
        >>> from batchensemble.comparison.compare import Settings, compare
        >>> from batchensemble.data.datasets import load_dataset
        >>> quick = Settings(methods=("single", "deep"), epochs=1)
        >>> comparison = compare(load_dataset("breast_cancer"), quick)
        >>> differences = Differences(comparison, scores=["accuracy"])
        >>> differences.between("accuracy", "single", "single").significant
        False
    """

    def __init__(
        self, comparison: Comparison, scores: Sequence[str] = (), costs: Sequence[str] = ()
    ) -> None:
        self.seeds = sorted(
            set.intersection(
                *({run.seed for run in comparison.of(method)} for method in comparison.methods)
            )
            if comparison.methods
            else ()
        )
        self._drawn: dict[tuple[str, str], tuple[float, Float[np.ndarray, "resamples"]]] = {}
        if not self.seeds:
            return
        runs = {
            method: [run for run in comparison.of(method) if run.seed in self.seeds]
            for method in comparison.methods
        }
        targets = comparison.data.held_out[1]
        by_example = {
            (key, method): contributions(key, [run.prediction for run in own], targets)
            for key in scores
            for method, own in runs.items()
        }
        self._draw({name: each for name, each in by_example.items() if each is not None})
        if len(self.seeds) > 1:
            self._draw(
                {
                    (key, method): Contributions(
                        np.array([getattr(run.cost, key) for run in own], float)[:, None, None]
                    )
                    for key in costs
                    for method, own in runs.items()
                }
            )

    def _draw(self, found: dict[tuple[str, str], Contributions]) -> None:
        if found:
            drawn = bootstrap(list(found.values()))
            self._drawn |= {
                name: (each.score, row)
                for (name, each), row in zip(found.items(), drawn, strict=True)
            }

    def between(self, key: str, one: str, other: str) -> Difference | None:
        """Return one method's score minus another's, with its 95 % interval.

        ``None`` where there is no interval: for costs with one seed, or a score that is no mean
        over the examples.

        Args:
            key: name of the score or cost.
            one, other: names of methods.
        """
        pair = [self._drawn.get((key, method)) for method in (one, other)]
        if pair[0] is None or pair[1] is None:
            return None
        (score, drawn), (score_of_other, drawn_of_other) = pair[0], pair[1]
        return interval(score - score_of_other, drawn - drawn_of_other, LEVEL)
