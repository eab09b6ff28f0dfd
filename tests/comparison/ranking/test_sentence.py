"""What is said of ranks: never more than they show."""

import numpy as np
import pytest

from batchensemble.comparison.ranking import groups, rank_folders, sentence
from written_comparisons import write_comparisons


def ranked(folder, by_method):
    return rank_folders(write_comparisons(folder, by_method))


def test_too_few_data_sets_say_nothing_and_how_many_would(tmp_path):
    always = {"single": [0.4] * 2, "deep": [0.1] * 2, "batch": [0.2] * 2, "mimo": [0.3] * 2}
    found = ranked(tmp_path, always)
    assert sentence(found) == (
        "2 data sets are too few for 4 methods: even the same order on all of them would not be "
        "significant. Give at least 3 data sets."
    )
    assert groups(found) == [[1, 2, 3, 0]]


def test_two_methods_need_six(tmp_path):
    ahead = {"single": np.full(6, 0.3), "batch": np.full(6, 0.1)}
    assert sentence(ranked(tmp_path / "six", ahead)) == (
        "By NLL BatchEnsemble is significantly better than the single network."
    )
    five = {method: values[:5] for method, values in ahead.items()}
    assert sentence(ranked(tmp_path / "five", five)).endswith("Give at least 6 data sets.")


def test_no_difference_is_said_with_what_would_have_been_one(tmp_path):
    found = ranked(
        tmp_path,
        {"single": [1, 2, 3, 1], "deep": [2, 3, 1, 2], "batch": [3, 1, 2, 3]},
    )
    assert not found.differ
    said = sentence(found)
    assert said.startswith(
        "No significant difference in NLL between the methods over 4 data sets (p ="
    )
    assert said.endswith("critical difference of mean ranks 1.66).")


def test_two_that_are_level_are_better_than_a_third(tmp_path):
    found = ranked(
        tmp_path,
        {
            "single": np.full(12, 0.5),
            "deep": np.tile([0.1, 0.2], 6),
            "batch": np.tile([0.2, 0.1], 6),
        },
    )
    assert sentence(found) == (
        "By NLL the deep ensemble and BatchEnsemble are significantly better than the single "
        "network; no significant difference between the deep ensemble and BatchEnsemble."
    )
    assert groups(found) == [[1, 2]]


def test_one_that_is_better_than_two_leaves_these_level(tmp_path):
    found = ranked(
        tmp_path,
        {
            "single": np.tile([0.2, 0.3], 6),
            "deep": np.full(12, 0.1),
            "batch": np.tile([0.3, 0.2], 6),
        },
    )
    assert sentence(found) == (
        "By NLL the deep ensemble is significantly better than the single network and "
        "BatchEnsemble; no significant difference between the single network and BatchEnsemble."
    )


def test_groups_may_overlap_and_are_as_large_as_can_be(tmp_path):
    order = {"deep": 0.1, "batch": 0.2, "single": 0.3, "mimo": 0.4}
    found = ranked(tmp_path, {method: np.full(6, nll) for method, nll in order.items()})
    assert found.over_all.critical_difference == pytest.approx(1.915, abs=1e-3)
    assert groups(found) == [[0, 1], [1, 2], [2, 3]]
    assert sentence(found) == (
        "By NLL the deep ensemble is significantly better than the single network and MIMO, and "
        "BatchEnsemble is significantly better than MIMO; no significant difference between the "
        "deep ensemble and BatchEnsemble, or between BatchEnsemble and the single network, or "
        "between the single network and MIMO."
    )
