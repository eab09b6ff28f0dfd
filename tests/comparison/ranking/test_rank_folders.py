"""Methods over several data sets: ranks against the slow formula, and what is refused or told."""

import json
import math

import numpy as np
import pytest
from scipy.stats import friedmanchisquare

from batchensemble.comparison.ranking import rank_folders
from written_comparisons import write_comparison, write_comparisons

RNG = np.random.default_rng(0)
FOUR = {method: RNG.normal(size=6) for method in ("single", "deep", "batch", "mimo")}


def slow_ranks(scores, higher=False):
    """Return one more than how many are better, and half of those that are equal."""
    better = np.greater if higher else np.less
    return [
        [
            1 + sum(better(other, own) for other in row) + (sum(row == own) - 1) / 2
            for own in row
        ]
        for row in np.asarray(scores)
    ]  # fmt: skip


def test_methods_are_ranked_by_their_means_over_the_seeds(tmp_path):
    found = rank_folders(write_comparisons(tmp_path, FOUR, seeds=3))
    means = np.stack(list(FOUR.values()), 1) + 0.01
    assert found.methods == ("single", "deep", "batch", "mimo")
    assert found.datasets == tuple(f"set{row}" for row in range(6))
    np.testing.assert_allclose(found.scores, means)
    np.testing.assert_allclose(found.deviations, 0.01)
    np.testing.assert_array_equal(found.ranks, slow_ranks(means))
    np.testing.assert_allclose(found.over_all.mean, np.mean(slow_ranks(means), 0))
    assert found.over_all.friedman == pytest.approx(friedmanchisquare(*FOUR.values()).statistic)
    assert found.notes == ()


@pytest.mark.parametrize(("by", "higher"), [("accuracy", True), ("ece", False)])
def test_each_score_has_its_direction(tmp_path, by, higher):
    for row in range(3):
        own = {m: [{by: v[row].item(), "nll": 1.0}] for m, v in FOUR.items()}
        write_comparison(tmp_path / f"set{row}", own)
    found = rank_folders(sorted(tmp_path.iterdir()), by)
    np.testing.assert_array_equal(found.ranks, slow_ranks(found.scores, higher))
    assert np.isnan(found.deviations).all()


def test_equal_scores_share_their_ranks(tmp_path):
    write_comparison(tmp_path / "one", {"single": [0.2], "deep": [0.1], "batch": [0.1]})
    write_comparison(tmp_path / "two", {"single": [0.3], "deep": [0.3], "batch": [0.3]})
    found = rank_folders([tmp_path / "one", tmp_path / "two"])
    assert found.ranks.tolist() == [[3, 1.5, 1.5], [2, 2, 2]]
    assert found.over_all.mean.tolist() == [2.5, 1.75, 1.75]


def test_only_what_is_found_at_all_is_significance(tmp_path):
    ahead = {"single": np.full(6, 0.3), "deep": np.full(6, 0.1)}
    found = rank_folders(write_comparisons(tmp_path, ahead))
    assert found.over_all.p_value == pytest.approx(2 / 2**6)
    assert found.significantly_different(0, 1)
    assert found.to_dict()["significantly_different"] == [["deep", "single"]]
    # The critical difference of five is below 1, but the same order comes once in 16 by chance.
    fewer = rank_folders(sorted(tmp_path.iterdir())[:5])
    assert fewer.over_all.significantly_different(0, 1)
    assert not fewer.significantly_different(0, 1)


def test_a_ranking_is_json(tmp_path):
    folders = write_comparisons(tmp_path, FOUR, seeds=1)
    found = json.loads(json.dumps(rank_folders(folders).to_dict(), allow_nan=False))
    assert found["datasets"][1]["folder"] == str(tmp_path / "set1")
    assert found["datasets"][1]["methods"]["deep"] == {
        "mean": FOUR["deep"][1],
        "deviation": None,
        "rank": slow_ranks([[values[1] for values in FOUR.values()]])[0][1],
    }
    assert list(found["mean_ranks"].values()) == sorted(found["mean_ranks"].values())


def test_what_is_not_in_all_is_left_out_and_said(tmp_path):
    three = {"single": [0.3, 0.3], "deep": [0.1, 0.1], "batch": [0.2, 0.2]}
    write_comparison(tmp_path / "a", three)
    write_comparison(tmp_path / "b", {"batch": [0.2, 0.2, None], "single": [0.3, 0.3, 9.0]})
    found = rank_folders([tmp_path / "a", tmp_path / "b"])
    assert found.methods == ("single", "batch")
    assert found.seeds == ((0, 1), (0, 1))
    assert found.scores[1].tolist() == [0.3, 0.2]  # without the seed that batch lacks
    assert found.notes == (
        "deep is left out: b has no run of it.",
        "b: 1 seed left out, since not every method finished it.",
    )


def test_what_differs_between_the_folders_is_said(tmp_path):
    two = {"single": [0.3, 0.3], "deep": [0.1, 0.1]}
    write_comparison(tmp_path / "a", two)
    write_comparison(tmp_path / "b", two, members=4, hidden=[64, 64])
    write_comparison(tmp_path / "c", {m: v[:1] for m, v in two.items()}, task="regression")
    kinds, settings, seeds = rank_folders(sorted(tmp_path.iterdir())).notes
    assert kinds.startswith("The data sets mix classification and regression.")
    assert settings == (
        "Settings differ: members (3 on a and c, 4 on b); hidden (8 on a and c, 64 × 64 on b). "  # noqa: RUF001
        "The methods are not the same on all data sets."
    )
    assert seeds == "The seeds differ: 2 on a and b, 1 on c."


def test_files_of_one_name_are_told_apart_by_what_is_in_them(tmp_path):
    two = {"single": [0.3], "deep": [0.1]}
    for place, examples in (("a", 100), ("b", 200), ("c", 100)):
        described = {"name": "train.csv", "target": "y", "training_examples": examples}
        write_comparison(tmp_path / place, two, **described)
    found = rank_folders([tmp_path / "a", tmp_path / "b"])
    assert found.datasets == tuple(f"train.csv in {tmp_path / place}" for place in "ab")
    with pytest.raises(
        ValueError, match=r"train.csv is in .*a and in .*c; give each data set once"
    ):
        rank_folders(sorted(tmp_path.iterdir()))


REFUSED = [
    ({}, {"name": "a"}, "nll", "a is in .* and in .*; give each data set once"),
    ({"single": [0.1], "mimo": [0.1]}, {}, "nll", "at least two methods .* got single: a has sin"),
    ({"mimo": [0.1]}, {}, "nll", "got none: a has single, deep; b has mimo"),
    ({}, {}, "acuracy", "by must be one of .*; did you mean 'accuracy'"),
    ({}, {}, "disagreement", "by must be one of"),
    ({}, {}, "ece", "a has no score 'ece'; rank by what all have: nll"),
    ({}, {"task": "regression"}, "ece", "a is of classes and b of numbers; rank by what all have"),
    ({"single": [math.nan], "deep": [0.1]}, {}, "nll", "NLL of single, seed 0, on b is no finite"),
    ({"single": ["low"], "deep": [0.1]}, {}, "nll", "NLL of single, seed 0, on b is no finite"),
    ({"single": [None, 1], "deep": [1, None]}, {}, "nll", "no seed of b is finished by all of"),
    ({"single": [None]}, {}, "nll", "in .*b has no finished run"),
]  # fmt: skip


@pytest.mark.parametrize(("scores", "changes", "by", "sentence"), REFUSED)
def test_what_cannot_be_ranked_is_refused_with_a_sentence(tmp_path, scores, changes, by, sentence):
    two = {"single": [0.3], "deep": [0.1]}
    write_comparison(tmp_path / "a", two)
    write_comparison(tmp_path / "b", scores or two, **changes)
    with pytest.raises(ValueError, match=sentence):
        rank_folders([tmp_path / "a", tmp_path / "b"], by)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "is not of a comparison"),
        ("[]", "is not of a comparison"),
        ('{"settings": {}, "data": {"name": 3}, "runs": []}', "is not of a comparison"),
        ('{"settings": {}, "data": {"name": "b"}, "runs": [{}]}', "has no method, seed and scores"),
        ('{"settings": {}, "data": {"name": "b"}, "runs": []}', "has no finished run"),
        ("[" * 100_000, "is not of a comparison"),
    ],
)
def test_files_that_say_something_else_are_refused(tmp_path, content, sentence):
    write_comparison(tmp_path / "a", {"single": [0.3], "deep": [0.1]})
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "results.json").write_text(content)
    with pytest.raises(ValueError, match=sentence):
        rank_folders([tmp_path / "a", tmp_path / "b"])
