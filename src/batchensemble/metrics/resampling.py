"""Means over examples and seeds, drawn anew: how much they would vary with other ones."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from batchensemble.checks import fraction, whole_number
from batchensemble.row_blocks import row_blocks

RESAMPLES = 1000
LEVEL = 0.95
# More examples are drawn in so many groups. The groups are of examples at random, so a mean varies
# as much as with examples drawn one by one, and 1,000 draws of a million take no minutes.
GROUPS = 10_000


def resampled_means(
    values: Float[np.ndarray, "columns seeds examples"], *, resamples: int, seed: int
) -> Float[np.ndarray, "resamples columns"]:
    """Return the means of some columns over seeds and examples, both drawn with replacement.

    All columns and seeds get the same examples, and all columns the same seeds: the bootstrap is
    paired (Efron and Tibshirani 1993). One seed says nothing of other seeds, and few seeds little.

    Args:
        values: each a loss, a difference of losses or the like.
        resamples: how many draws, at least 1.
        seed: of the draws.

    Raises:
        TypeError, ValueError: ``resamples`` or ``seed`` is no whole number, or too small.

    Example:
        >>> resampled_means(np.ones((2, 1, 5)), resamples=3, seed=0).tolist()
        [[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]
    """
    whole_number("resamples", resamples)
    generator = np.random.default_rng(whole_number("seed", seed, at_least=0))
    columns, seeds, examples = values.shape
    groups = min(examples, GROUPS)
    sums = values.reshape(columns * seeds, examples)
    if groups < examples:
        group = generator.permutation(examples) % groups
        sums = np.stack([np.bincount(group, each, groups) for each in sums])
    means = np.empty((resamples, columns))
    for block in row_blocks(resamples, groups):
        several = block.stop - block.start
        drawn = generator.integers(groups, size=(several, groups))
        counts = np.stack([np.bincount(row, minlength=groups) for row in drawn])
        by_seed = (counts @ sums.T).reshape(several, columns, seeds) / examples
        taken = generator.integers(seeds, size=(several, 1, seeds))
        means[block] = np.take_along_axis(by_seed, taken, 2).mean(2)
    return means


def interval(means: Float[np.ndarray, "resamples"], level: float) -> tuple[float, float]:
    """Return between which two numbers the middle ``level`` of the draws lie.

    Raises:
        TypeError, ValueError: ``level`` is not a number above 0 and below 1.

    Example:
        >>> interval(np.arange(101.0), level=0.5)
        (25.0, 75.0)
    """
    if fraction("level", level) in (0, 1):
        raise ValueError(f"level must be above 0 and below 1, got {level:g}")
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
