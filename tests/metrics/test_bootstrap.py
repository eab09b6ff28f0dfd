"""Bootstrap intervals against the normal theory, ranks against the numbers of Demšar's paper."""

from itertools import permutations, product

import numpy as np
import pytest
from scipy.stats import binomtest, f, friedmanchisquare, norm, rankdata

from batchensemble.comparison.ranking.ranks import critical_difference, rank, ranked
from batchensemble.metrics.bootstrap import Contributions, bootstrap, difference, middle, spread

# Demšar 2006, Table 6: area under the curve of four trees on 14 data sets.
AUC = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.9751, 0.975],  # printed alike there, and ranked 2 and 3
        [0.957, 0.978, 0.946, 0.970],
    ]
)


def made(seeds=1, examples=1000, *, shift=0.0, noise=1.0, seed=0):
    """Return contributions of so many seeds, which share what is hard in an example."""
    rng = np.random.default_rng(seed)
    hard = 10 * np.random.default_rng(99).normal(size=(1, examples, 1))
    return Contributions(hard + shift + noise * rng.normal(size=(seeds, examples, 1)))


def test_the_ranks_of_the_paper_come_out():
    found = rank(AUC, better="higher")
    assert found.mean == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)
    assert found.friedman == pytest.approx(9.28, abs=5e-3)
    assert found.critical_difference == pytest.approx(1.25, abs=5e-3)
    assert found.p_value < 0.05
    # With 0.10 "C4.5 performs significantly worse than C4.5+m and C4.5+m+cf".
    loose = rank(AUC, better="higher", level=0.9)
    assert loose.critical_difference == pytest.approx(1.12, abs=5e-3)
    told = {(a, b) for a in range(4) for b in range(a) if loose.significantly_different(a, b)}
    assert told == {(1, 0), (3, 0)}


@pytest.mark.parametrize(
    ("methods", "at_5", "at_10"),
    [
        (2, 1.960, 1.645),
        (3, 2.343, 2.052),
        (4, 2.569, 2.291),
        (6, 2.850, 2.589),
        (10, 3.164, 2.920),
    ],
)
def test_critical_values_are_those_of_the_paper(methods, at_5, at_10):
    unit = np.sqrt(methods * (methods + 1) / 6)
    assert critical_difference(methods, 1) / unit == pytest.approx(at_5, abs=1.1e-3)
    assert critical_difference(methods, 1, 0.9) / unit == pytest.approx(at_10, abs=1.1e-3)


def test_lower_is_better_turns_the_ranks_round():
    up, down = rank(AUC, better="higher"), rank(-AUC, better="lower")
    np.testing.assert_array_equal(up.mean, down.mean)
    always = rank(np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), better="lower")
    assert always.mean.tolist() == [1, 2]


def test_the_statistic_is_scipys_where_no_scores_are_tied():
    scores = np.random.default_rng(3).normal(size=(9, 4))
    assert rank(scores, better="lower").friedman == pytest.approx(
        friedmanchisquare(*scores.T).statistic
    )


def test_tied_scores_share_their_ranks():
    scores = np.array([[0.5, 0.5, 0.1], [0.2, 0.2, 0.2], [0.1, 0.4, 0.3]])
    assert ranked(scores, "higher").tolist() == [[1.5, 1.5, 3], [2, 2, 2], [3, 1, 2]]
    np.testing.assert_allclose(rank(scores, better="higher").mean, [6.5 / 3, 4.5 / 3, 7 / 3])


@pytest.mark.parametrize("tied", [False, True])
def test_the_p_value_is_the_share_of_all_orders_that_lie_as_far_apart(tied):
    scores = np.random.default_rng(0).normal(size=(4, 3)) + np.arange(3)
    if tied:
        scores = scores.round()
    ranks = rankdata(scores, axis=1)
    orders = product(*(list(permutations(row)) for row in ranks))
    statistics = np.array([(np.sum(each, 0) ** 2).sum() for each in orders])
    share = (statistics >= (ranks.sum(0) ** 2).sum() - 1e-9).mean()
    assert rank(scores, better="lower").p_value == pytest.approx(share)


@pytest.mark.parametrize(("sets", "lost"), [(3, 0), (4, 0), (5, 0), (8, 1), (10, 1)])
def test_the_p_value_of_two_methods_is_that_of_the_sign_test(sets, lost):
    scores = np.tile([0.0, 1.0], (sets, 1))
    scores[:lost] = scores[:lost, ::-1]
    assert rank(scores, better="lower").p_value == pytest.approx(binomtest(lost, sets).pvalue)


def test_where_orders_are_too_many_the_formula_is_close_to_them(monkeypatch):
    scores = np.random.default_rng(1).normal(size=(20, 4)) + 0.2 * np.arange(4)
    exact = rank(scores, better="lower")
    monkeypatch.setattr("batchensemble.comparison.ranking.ranks.MOST_ORDERS", 100)
    found = rank(scores, better="lower")
    statistic = 19 * exact.friedman / (20 * 3 - exact.friedman)
    assert found.p_value == pytest.approx(f.sf(statistic, 3, 57))
    assert found.p_value == pytest.approx(exact.p_value, rel=0.1)
    assert found.p_value != exact.p_value


@pytest.mark.parametrize("scores", [np.ones((1, 3)), np.ones((3, 1)), np.array([[1, np.nan]] * 2)])
def test_ranks_of_too_little_are_refused(scores):
    with pytest.raises(ValueError, match=r"at least two|finite"):
        rank(scores, better="higher")


def test_the_interval_of_one_seed_is_that_of_the_paired_differences():
    one, other = made(shift=0.1, seed=1), made(seed=2)
    found = difference(one, other, resamples=4000)
    each = (one.parts - other.parts)[0, :, 0]
    half = norm.ppf(0.975) * each.std() / np.sqrt(len(each))
    assert found.estimate == pytest.approx(each.mean())
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.06)
    # Unpaired, what is hard in an example would hide it.
    assert found.high - found.low < 0.2 * 4 * 10 / np.sqrt(1000)


def test_what_differs_between_seeds_widens_the_interval():
    rng = np.random.default_rng(0)
    level = rng.normal(size=(20, 1, 1))
    one, other = made(20, seed=1), made(20, seed=2)
    shifted = Contributions(one.parts + level)
    narrow, wide = difference(one, other), difference(shifted, other)
    seeds_alone = level[:, 0, 0].std() / np.sqrt(20)
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)
    assert wide.high - wide.low == pytest.approx(2 * 1.96 * seeds_alone, rel=0.15)


def test_the_intervals_hold_the_truth_as_often_as_they_say():
    pairs = [[made(examples=200, seed=2 * i + k) for k in range(2)] for i in range(150)]
    truths = [difference(*pair, resamples=400) for pair in pairs]
    held = np.mean([found.low <= 0 <= found.high for found in truths])
    assert 0.89 <= held <= 0.99


def test_the_same_seed_gives_the_same_draws_and_another_others():
    scores = [made(3), made(3, seed=1)]
    np.testing.assert_array_equal(bootstrap(scores, resamples=50), bootstrap(scores, resamples=50))
    assert (bootstrap(scores, resamples=50) != bootstrap(scores, resamples=50, seed=1)).any()


def test_no_draw_of_equal_methods_differs():
    one = made(3)
    found = difference(one, one)
    assert (found.estimate, found.low, found.high, found.significant) == (0, 0, 0, False)


def test_blocks_and_groups_change_nothing_but_the_draws(monkeypatch):
    one, other = made(2, 3000, shift=0.1, seed=1), made(2, 3000, seed=2)
    whole = difference(one, other)
    for name, value in (("DRAW_BLOCK", 10_000), ("MOST_GROUPS", 700)):
        monkeypatch.setattr(f"batchensemble.metrics.bootstrap.{name}", value)
        found = difference(one, other)
        assert found.estimate == whole.estimate
        assert found != whole
        assert found.high - found.low == pytest.approx(whole.high - whole.low, rel=0.1)


def test_groups_of_examples_vary_as_examples_do(monkeypatch):
    values = np.random.default_rng(0).exponential(size=(1, 4000, 1))
    one_by_one = bootstrap([Contributions(values)], resamples=2000)
    monkeypatch.setattr("batchensemble.metrics.bootstrap.MOST_GROUPS", 500)
    grouped = bootstrap([Contributions(values)], resamples=2000)
    expected = values.std() / np.sqrt(4000)
    for means in (one_by_one, grouped):
        assert means.mean() == pytest.approx(values.mean(), abs=4 * expected / np.sqrt(2000))
        assert means.std() == pytest.approx(expected, rel=0.12)


def test_groups_of_unequal_size_are_no_bias(monkeypatch):
    monkeypatch.setattr("batchensemble.metrics.bootstrap.MOST_GROUPS", 30)
    assert set(bootstrap([Contributions(np.ones((1, 40, 1)))], resamples=100)[0]) == {1}


@pytest.mark.parametrize("seeds", [3, 10])
def test_the_draws_of_seeds_vary_as_a_mean_of_so_many_does(seeds):
    level = np.random.default_rng(0).normal(size=(seeds, 1, 1))
    drawn = bootstrap([Contributions(level)], resamples=20_000)[0]
    # Drawn as many as there are, they would vary less by sqrt(1 - 1 / seeds).
    assert drawn.std() == pytest.approx(level.std(ddof=1) / np.sqrt(seeds), rel=0.03)


def test_an_interval_is_of_quantiles():
    assert middle(np.arange(1001.0), 0.9) == pytest.approx((50, 950))


def test_a_score_that_is_no_mean_is_finished_after_the_draw():
    parts = np.stack([np.full(50, 4.0), np.zeros(50)], 1)[None]
    rooted = Contributions(parts, lambda means: np.sqrt(means[..., 0]))
    assert rooted.score == 2
    assert set(bootstrap([rooted], resamples=5)[0]) == {2}


def test_methods_of_different_seeds_are_drawn_apart():
    level = np.array([0.0, 10.0])[:, None, None]
    one = Contributions(made(2).parts + level)
    paired = difference(one, one)
    apart = difference(one, Contributions(one.parts[:1]))
    assert paired.high == paired.low == 0
    assert apart.high > apart.low


@pytest.mark.parametrize("sizes", [(10, 11), (0, 0)])
def test_scores_of_other_examples_are_refused(sizes):
    with pytest.raises(ValueError, match=f"got .*{sizes[0]}"):
        bootstrap([made(examples=size) for size in sizes])


def test_the_spread_of_seeds_is_the_sample_deviation():
    assert spread([0.97, 0.98]) == pytest.approx((0.975, 0.01 / np.sqrt(2)))
    assert spread([0.5]) == (0.5, None)
    assert np.isnan(spread([np.inf, 0.5])[1])
