"""What choosing members gains: its parts, what is compared, and which way a difference counts."""

import numpy as np
import pytest

from benchmarks.gain import choose_members as script


@pytest.fixture
def quick(monkeypatch):
    for name, value in {"MEMBERS": 4, "CHOSEN": 2, "RANDOM": 2, "EPOCHS": 1}.items():
        monkeypatch.setattr(script, name, value)
    monkeypatch.setattr(script, "MOST", {"train": 60, "choose": 40, "score": 50})


def test_rows_that_choose_neither_train_nor_score():
    table = script.Table(lambda: (np.arange(400.0)[:, None], np.arange(400.0)), numbers=True)
    rows = [set(y.tolist()) for _, y in script.split(table, seed=1).values()]
    assert [len(each) for each in rows] == [200, 100, 100]
    assert not rows[0] & rows[1]
    assert not (rows[0] | rows[1]) & rows[2]


@pytest.mark.parametrize(
    ("name", "scores"), [("moons", ["nll", "accuracy"]), ("diabetes", ["nll", "rmse"])]
)
def test_each_way_has_a_score(name, scores, quick):
    run = script.measure(script.TABLES[name], seed=0)
    assert list(run) == scores
    for each in run.values():
        assert set(each) == {*script.WAYS, "members"}
        assert np.isfinite(list(each.values())).all()
        assert 1 <= each["members"] <= 4
    assert run == script.measure(script.TABLES[name], seed=0)


def test_differences_are_above_0_where_the_first_is_better():
    runs = [{"greedy": 0.5 + seed, "all": 0.75 + seed} for seed in range(3)]
    assert script.gains("digits, nll", runs, "greedy", "all").tolist() == [0.25] * 3
    assert script.gains("digits, accuracy", runs, "greedy", "all").tolist() == [-0.25] * 3


def test_a_sentence_counts_what_is_significant():
    ways = dict.fromkeys(script.WAYS, 1.0) | {"members": 3}
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1e-3, (4, 2))
    better = [
        {"nll": ways | {"greedy": 0.9 + a}, "accuracy": ways | {"all": 1 + b}} for a, b in noise
    ]
    told = script.sentence({"digits": better})
    assert "8 chosen against all 32: nll better on 1, worse on 0 of 1; accuracy better on 0" in told
    lines = script.difference_lines({"digits": better})
    assert lines[1][0] == "digits, nll"
    assert lines[1][1].endswith("*")
