"""The statistics of the page on gain: scores again and again, shares of a gain, ranks.

Every seed has a split of its own, so examples are drawn anew within each seed, the same ones for
all methods, and then the seeds. The noise of the examples is thus in an interval by its own draws
and by those of the seeds: the intervals are wide rather than narrow. That is why this is not
:func:`batchensemble.metrics.bootstrap.bootstrap`, whose held-out examples are one part for all
seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from batchensemble.comparison.ranking.ranks import Ranks, rank
from batchensemble.metrics.bootstrap import LEVEL, RESAMPLES, middle
from batchensemble.predictions import Prediction

PARTS = ("held_out", "left_out")  # of a run with classes left out
SMALLEST = float(np.finfo(np.float32).tiny)  # of a probability whose logarithm is taken

Runs = Mapping[str, Mapping[str, np.ndarray]]  # by method: what a run keeps


@dataclass(frozen=True)
class Difference:
    """A number and the ends of its interval.

    Attributes:
        value: over all seeds and examples.
        low, high: ends of the bootstrap's interval, by percentiles (Efron 1979).
    """

    value: float
    low: float
    high: float

    @property
    def side(self) -> int:
        """1 above 0 beyond the noise, -1 below it, 0 within the noise."""
        return int(self.low > 0) - int(self.high < 0)


@dataclass(frozen=True)
class Scored:
    """One score of all methods on one data set.

    Attributes:
        values: of each seed, ``[seeds, methods]``.
        draws: means over the seeds with seeds and examples drawn anew, ``[resamples, methods]``.
        methods: their names.
        lower: whether less is better.
    """

    values: np.ndarray
    draws: np.ndarray
    methods: tuple[str, ...]
    lower: bool

    def mean(self, method: str) -> float:
        """Return the mean over the seeds."""
        return float(self.values[:, self.methods.index(method)].mean())

    def gain(self, method: str, over: str) -> Difference:
        """Return how much better one method is than another; above 0 is better."""
        one, other = self.methods.index(method), self.methods.index(over)
        sign = -1 if self.lower else 1
        drawn = sign * (self.draws[:, one] - self.draws[:, other])
        value = sign * (self.mean(method) - self.mean(over))
        return Difference(value, *middle(drawn, LEVEL))

    def share(self, method: str, single: str, deep: str) -> Difference | None:
        """Return the share of the deep ensemble's gain over one network that a method brings.

        ``None`` where the deep ensemble's own gain is not above 0 beyond the noise: there is
        nothing to have a share of then.
        """
        whole = self.gain(deep, single)
        if whole.side < 1:
            return None
        place = [self.methods.index(name) for name in (single, method, deep)]
        one, ours, best = self.draws[:, place].T
        sound = (best < one) if self.lower else (best > one)  # nearly all, by the line above
        drawn = (one - ours)[sound] / (one - best)[sound]
        return Difference(self.gain(method, single).value / whole.value, *middle(drawn, LEVEL))


def scored(by_seed: Sequence[Runs], *, resamples: int = RESAMPLES) -> dict[str, Scored]:
    """Return the scores of one data set by name.

    ``"nll"``, and where classes are left out the area under the ROC curve of telling them from the
    held-out examples of the others by the ``"epistemic"`` and by the ``"total"`` uncertainty.

    Args:
        by_seed: the runs of each seed, all of the same methods.
        resamples: draws.
    """
    methods = tuple(by_seed[0])
    rng = np.random.default_rng(0)
    seeds = rng.integers(len(by_seed), size=(resamples, len(by_seed)))
    found: dict[str, list[np.ndarray]] = {}  # the seeds' [methods, 1 + resamples], whole one first
    for runs in by_seed:
        for name, values in _of_seed(runs, resamples, rng).items():
            found.setdefault(name, []).append(values)
    result = {}
    for name, several in found.items():
        values = np.stack(several)  # [seeds, methods, 1 + resamples]
        drawn = values[seeds, :, 1 + np.arange(resamples)[:, None]].mean(1)
        result[name] = Scored(values[:, :, 0], drawn, methods, lower=name == "nll")
    return result


def ranks(by_set: Sequence[Scored], methods: Sequence[str]) -> Ranks:
    """Return the methods' mean ranks over data sets and their critical difference."""
    means = np.array([[each.mean(method) for method in methods] for each in by_set])
    return rank(means, better="lower" if by_set[0].lower else "higher")


def _of_seed(runs: Runs, resamples: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return each score on the examples as they are, then on draws: ``[methods, 1 + draws]``."""
    first = next(iter(runs.values()))
    held_out = _counts(len(first["labels"]), resamples, rng)
    result = {"nll": np.stack([_nll(run) @ held_out for run in runs.values()])}
    result["nll"] /= len(first["labels"])
    if "left_out" in first:
        left_out = _counts(len(first["left_out"]), resamples, rng)
        for name in ("epistemic", "total"):
            result[name] = np.stack(
                [
                    auroc(*(_uncertainty(run[part], name) for part in PARTS), held_out, left_out)
                    for run in runs.values()
                ]
            )
    return result


def _nll(run: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the negative log-likelihood of the mean probabilities, nats, ``[examples]``."""
    probs = run["held_out"].astype(np.float64).mean(1)
    right = np.take_along_axis(probs, run["labels"][:, None].astype(np.int64), 1)[:, 0]
    return -np.log(np.maximum(right, SMALLEST))


def _uncertainty(probabilities: np.ndarray, name: str) -> np.ndarray:
    return getattr(Prediction(probabilities.astype(np.float64)), name)


def auroc(
    inside: np.ndarray, outside: np.ndarray, inside_counts: np.ndarray, outside_counts: np.ndarray
) -> np.ndarray:
    """Return how often an example from outside has more than one from inside; ties count half.

    Args:
        inside: a number for each example, ``[examples]``.
        outside: the same, ``[others]``.
        inside_counts: how often each example counts in each draw, ``[examples, draws]``.
        outside_counts: the same of the others.

    Example:
        >>> ones = np.ones((2, 1))
        >>> auroc(np.array([0.0, 1.0]), np.array([1.0, 2.0]), ones, ones).tolist()
        [0.875]
    """
    levels, place = np.unique(np.concatenate([inside, outside]), return_inverse=True)
    here = _at_levels(place[: len(inside)], inside_counts, len(levels))
    there = _at_levels(place[len(inside) :], outside_counts, len(levels))
    below = np.cumsum(here, 0) - here / 2
    return (below * there).sum(0) / (here.sum(0) * there.sum(0))


def _at_levels(place: np.ndarray, counts: np.ndarray, levels: int) -> np.ndarray:
    """Return the counts added up at each level, ``[levels, draws]``."""
    order = np.argsort(place, kind="stable")
    present, starts = np.unique(place[order], return_index=True)
    sums = np.zeros((levels, counts.shape[1]))
    sums[present] = np.add.reduceat(counts[order], starts)
    return sums


def _counts(examples: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Return how often each example counts: once, then in each draw, ``[examples, 1 + draws]``."""
    counts = np.ones((1 + resamples, examples), np.float32)
    for row in counts[1:]:
        row[:] = np.bincount(rng.integers(examples, size=examples), minlength=examples)
    return counts.T
