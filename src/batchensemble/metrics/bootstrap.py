"""Paired bootstrap over seeds and examples: intervals of scores and of their differences.

Two methods are scored on the same held-out examples, so their scores are compared pair by pair: an
example that is hard for both does not tell which is better.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from batchensemble.core.arguments import between, whole_number

RESAMPLES = 1000
LEVEL = 0.95  # level of intervals
DRAW_BLOCK = 2**20  # random numbers in memory at once, 8 bytes each
# More examples are summed in this many random groups, which have the same variance.
MOST_GROUPS = 10_000

BySeedAndExample = Float[np.ndarray, "seeds examples parts"]
Resampled = Float[np.ndarray, "scores resamples"]


@dataclass(frozen=True)
class Contributions:
    """The contribution of each held-out example to a score, for each seed.

    A score is ``finish`` of the mean over the examples: of a single part for accuracy or NLL, of
    one part for each bin for a calibration error.

    Attributes:
        parts: the contributions, ``[seeds, examples, parts]``.
        finish: function from means ``[..., parts]`` to scores ``[...]``; by default the first part.

    Example:
        >>> Contributions(np.array([[[1.0], [0.0]], [[1.0], [1.0]]])).score
        0.75
    """

    parts: BySeedAndExample
    finish: Callable[[Any], Any] = lambda means: means[..., 0]

    @property
    def score(self) -> float:
        """The score, as the mean over the seeds."""
        return float(np.mean(self.finish(self.parts.mean(1))))


@dataclass(frozen=True)
class Difference:
    """The difference of two scores with its interval.

    Attributes:
        estimate: the first score minus the second, in the score's unit.
        low, high: ends of the interval, in the score's unit.
    """

    estimate: float
    low: float
    high: float

    @property
    def significant(self) -> bool:
        """Whether the interval does not contain 0."""
        return self.low > 0 or self.high < 0


def spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Return mean and sample standard deviation over the seeds, the latter ``None`` for one.

    Example:
        >>> spread([0.5]), spread([1.0, 2.0, 3.0])
        ((0.5, None), (2.0, 1.0))
    """
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, None
    return mean, statistics.stdev(values) if np.isfinite(mean) else float("nan")


def bootstrap(
    scores: Sequence[Contributions], *, resamples: int = RESAMPLES, seed: int = 0
) -> Resampled:
    """Return each score on seeds and examples resampled with replacement.

    Seeds are drawn first, then examples (Davison and Hinkley 1997, section 3.8). As every seed is
    scored on the same held-out examples, one draw of examples is used for all seeds (Owen 2007,
    doi 10.1214/07-AOAS122), and one draw of both for all scores, so that their differences are
    paired. If the scores have different numbers of seeds, the seeds of each are drawn separately.

    One seed fewer is drawn than there are, which makes the variance over few seeds unbiased (Rao
    and Wu 1988); with fewer than about five the interval is still too narrow.

    Args:
        scores: contributions to the scores of methods on the same examples.
        resamples: number of bootstrap resamples, 1,000 by default.
        seed: seed of the random draws, 0 by default.

    Raises:
        TypeError, ValueError: ``resamples`` or ``seed`` is not a whole number, or too small.
        ValueError: the scores have different numbers of examples, or none.

    Example:
        >>> easy, hard = np.ones((1, 100, 1)), np.zeros((1, 100, 1))
        >>> bootstrap([Contributions(easy), Contributions(hard)], resamples=3).tolist()
        [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]
    """
    whole_number("resamples", resamples)
    counts = {each.parts.shape[1] for each in scores}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(
            "scores must have the same examples, at least one, got "
            f"{', '.join(str(count) for count in sorted(counts)) or 'no score'} examples"
        )
    rng = np.random.default_rng(whole_number("seed", seed, at_least=0))
    grouped, sizes = _grouped(scores, rng)
    result = np.empty((len(scores), resamples))
    paired = len({each.shape[0] for each in grouped}) == 1
    for block in _blocks(resamples, len(sizes)):
        drawn = _counts(rng, block.stop - block.start, len(sizes))
        examples = drawn @ sizes
        seeds = None
        for row, (own, each) in enumerate(zip(grouped, scores, strict=True)):
            if seeds is None or not paired:
                seeds = _seeds(rng, len(drawn), len(own))
            means = np.einsum("rg,sgp->rsp", drawn, own, optimize=True) / examples[:, None, None]
            result[row, block] = (each.finish(means) * seeds).sum(1)
    return result


def difference(
    one: Contributions,
    other: Contributions,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """Return the difference of two scores with its bootstrap interval (Efron 1979, percentiles).

    Args:
        one, other: contributions to the scores of two methods on the same examples.
        level: level of the interval, 0.95 by default.
        resamples: number of resamples, 1,000 by default.
        seed: seed of the random draws, 0 by default.

    Raises:
        ValueError: the scores have different numbers of examples, or none.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> noise = rng.normal(size=(1, 500, 1))
        >>> difference(Contributions(noise + 0.1), Contributions(noise)).significant
        True
    """
    between("level", level, 0, 1)  # before the resampling, which takes a while
    drawn = bootstrap([one, other], resamples=resamples, seed=seed)
    return interval(one.score - other.score, drawn[0] - drawn[1], level)


def interval(estimate: float, drawn: Float[np.ndarray, "resamples"], level: float) -> Difference:
    """Return a difference with the middle part of its resamples as the interval."""
    return Difference(estimate, *middle(drawn, level))


def middle(drawn: Float[np.ndarray, "resamples"], level: float) -> tuple[float, float]:
    """Return the two quantiles between which the middle ``level`` of the resamples lies.

    Raises:
        TypeError, ValueError: ``level`` is not a number above 0 and below 1.

    Example:
        >>> middle(np.arange(101.0), level=0.5)
        (25.0, 75.0)
    """
    level = between("level", level, 0, 1)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _grouped(
    scores: Sequence[Contributions], rng: np.random.Generator
) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the contributions, summed in groups if there are many examples, and group sizes."""
    examples = scores[0].parts.shape[1]
    if examples <= MOST_GROUPS:
        return [each.parts for each in scores], np.ones(examples)
    order = rng.permutation(examples)
    starts = np.linspace(0, examples, MOST_GROUPS, endpoint=False).astype(np.int64)
    sums = [np.add.reduceat(each.parts[:, order], starts, axis=1) for each in scores]
    return sums, np.diff(starts, append=examples).astype(np.float64)


def _blocks(resamples: int, size: int) -> Iterator[slice]:
    step = max(1, DRAW_BLOCK // size)
    for start in range(0, resamples, step):
        yield slice(start, min(start + step, resamples))


def _seeds(rng: np.random.Generator, draws: int, size: int) -> Float[np.ndarray, "draws size"]:
    """Return the weight of each seed in each resample."""
    if size == 1:
        return np.ones((draws, 1))
    return rng.multinomial(size - 1, np.full(size, 1 / size), draws) / (size - 1)


def _counts(rng: np.random.Generator, draws: int, size: int) -> Float[np.ndarray, "draws size"]:
    """Return how often each of ``size`` items is drawn in each resample."""
    drawn = rng.integers(size, size=(draws, size))
    # One resample at a time: its counts stay in cache.
    return np.stack([np.bincount(row, minlength=size) for row in drawn]).astype(np.float64)
