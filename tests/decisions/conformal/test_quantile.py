"""The conformal quantile: which order statistic, and what it promises."""

import math

import numpy as np
import pytest
from scipy.stats import betabinom, binom

from batchensemble.decisions.conformal.quantile import conformal_quantile, least_examples, rank_of


@pytest.mark.parametrize("confidence", [0.05, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99])
def test_it_is_finite_from_the_least_number_of_examples_on(confidence):
    least = least_examples(confidence)
    assert rank_of(least, confidence) <= least
    assert least == 1 or rank_of(least - 1, confidence) > least - 1
    assert math.isfinite(conformal_quantile(np.zeros(least), confidence))
    assert math.isinf(conformal_quantile(np.zeros(least - 1), confidence))


def test_decimal_numbers_count_as_they_are_written():
    # In binary 0.7 * 10 is above 7, 0.95 * 20 is 19 and 0.1 * 30 is above 3.
    assert [rank_of(9, 0.7), rank_of(19, 0.95), rank_of(29, 0.1)] == [7, 19, 3]
    assert rank_of(9, float(np.float32(0.5))) == 5


def test_coverage_is_as_the_theory_says():
    """Of 400 new examples, the covered ones are beta-binomial over draws of held-out ones."""
    rng, examples, new, draws = np.random.default_rng(0), 60, 400, 2000
    rank = rank_of(examples, 0.9)
    law = betabinom(new, rank, examples + 1 - rank)
    covered = np.array(
        [
            (rng.normal(size=new) <= conformal_quantile(rng.normal(size=examples), 0.9)).sum()
            for _ in range(draws)
        ]
    )
    assert law.ppf(1e-6) <= covered.min() <= covered.max() <= law.ppf(1 - 1e-6)
    for share in (0.1, 0.5, 0.9):
        value = law.ppf(share)
        low, high = binom(draws, law.cdf(value)).ppf([0.0005, 0.9995])
        assert low <= (covered <= value).sum() <= high
