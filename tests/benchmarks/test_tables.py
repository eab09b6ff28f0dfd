"""The room of tables: splits, what peers get, scores, kept runs and their summary."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from benchmarks.tables import csv_files, methods, runs, scores, summary
from benchmarks.tables.encode import Codes, Columns, Inputs
from benchmarks.tables.registry import DEVELOPMENT, TABLES, Table, split
from benchmarks.tables.seconds import Stopwatch


def frame(rows: int = 120) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    size = rng.normal(size=rows)
    return pd.DataFrame(
        {
            "size": np.where(rng.random(rows) < 0.1, np.nan, size),
            "kind": rng.choice(["a", "b", None], rows),
            "when": pd.date_range("2024-01-01", periods=rows, freq="D").astype(str),
            "rare": [f"name {index}" for index in range(rows)],
            "flag": rng.random(rows) < 0.5,
            "same": 1.0,
            "late": size,
            "y": np.where(size + 0.3 * rng.normal(size=rows) > 0, "yes", "no"),
            "price": size + 0.1 * rng.normal(size=rows),
        }
    )


CLASSES = Table("toy", "classification", "y", frame, ("late", "price"))
NUMBERS = Table("toys", "regression", "price", frame, ("late", "y"))


def test_there_are_tables_of_both_kinds_and_none_twice():
    kinds = [table.task for table in TABLES.values()]
    assert kinds.count("classification") >= 17
    assert kinds.count("regression") >= 10
    assert not TABLES.keys() & DEVELOPMENT.keys()
    # Recipes are chosen on other data than those that are reported.
    loads = {table.load for table in TABLES.values()}
    assert not loads & {table.load for table in DEVELOPMENT.values()}


def test_a_seed_draws_the_same_rows_each_time_and_none_in_both_parts():
    first, again, other = (split(CLASSES, seed, most=60, most_test=30) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(first.train, again.train)
    pd.testing.assert_series_equal(first.y_test, again.y_test)
    assert len(first.train) == 60
    assert len(first.test) == 30
    assert not set(first.train["rare"]) & set(first.test["rare"])
    assert set(first.train["rare"]) != set(other.train["rare"])
    assert not {"y", "late", "price"} & set(first.train)


def test_peers_get_dates_in_parts_and_unseen_levels_as_gaps():
    columns = Columns(frame().head(60)[["size", "kind", "when", "same"]])
    rows = columns(frame().tail(60).assign(kind="new"))
    assert list(rows) == ["size", "when days", "when month", "when weekday", "kind"]
    assert rows["kind"].isna().all()
    assert rows["when month"].tolist() == pd.to_datetime(frame().tail(60)["when"]).dt.month.tolist()
    assert np.isnan(rows["size"]).any()


@pytest.mark.parametrize("quantiles", [False, True])
def test_networks_get_finite_rows_that_tell_the_gaps(quantiles):
    inputs = Inputs(frame().head(80)[["size", "kind", "flag"]], quantiles=quantiles)
    new = frame().tail(40)
    assert np.isfinite(inputs(new)).all()
    assert np.array_equal(inputs.numeric(new)[:, -1] == 1, new["size"].isna())
    assert inputs.codes(new.assign(kind="new")).max() == 0
    assert inputs.cardinalities == [4]


def test_forests_get_one_matrix():
    assert Codes(frame()[["size", "kind"]])(frame()).shape == (120, 2)


def test_classes_are_scored():
    probs = np.array([[0.8, 0.2], [0.4, 0.6], [1.0, 0.0]])
    found = scores.of_classes(probs, np.array([0, 1, 1]))
    assert found["nll"] == pytest.approx(-np.log([0.8, 0.6, scores.LEAST]).mean(), rel=1e-5)
    assert found["brier"] == pytest.approx((0.08 + 0.32 + 2) / 3, rel=1e-4)
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["auc"] == 0.5
    line = {"correct": found["correct"], "test_rows": 3}
    assert summary._right(line).tolist() == [1, 1, 0]


def test_a_normal_is_scored_as_its_formula_says():
    rng = np.random.default_rng(0)
    targets = rng.normal(size=4_000)
    said = scores.Numbers.normal(np.zeros(4_000), 1.0)
    found = scores.of_numbers(said, targets)
    crps = targets * (2 * norm.cdf(targets) - 1) + 2 * norm.pdf(targets) - np.pi**-0.5
    assert found["crps"] == pytest.approx(crps.mean(), rel=0.02)
    assert found["coverage"] == pytest.approx(0.9, abs=0.02)
    assert found["rmse"] == pytest.approx(1, abs=0.03)


def test_a_stopwatch_counts_what_happens_within():
    watch = Stopwatch()
    with watch.fitting():
        sum(range(200_000))
    assert watch.fit > 0
    assert watch.predict == 0


@pytest.mark.parametrize("table", [CLASSES, NUMBERS])
def test_what_is_there_is_not_run_again(table, tmp_path):
    path = tmp_path / "runs.jsonl"
    again = [list(runs.run_all([table], ["boosting", "mlp"], [0, 1], path, 80)) for _ in "ab"]
    assert [len(lines) for lines in again] == [4, 0]
    assert again[0] == runs.read(path)
    assert {line["rows"] for line in again[0]} == {80}
    # The seed says which method is first.
    assert [line["method"] for line in again[0]] == ["boosting", "mlp", "mlp", "boosting"]


def test_a_method_that_fails_does_not_end_the_others(tmp_path, monkeypatch, capsys):
    def fails(rows, watch):
        raise RuntimeError("no memory")

    monkeypatch.setitem(methods.METHODS, "lightgbm", fails)
    lines = runs.run_all([CLASSES], ["lightgbm", "boosting"], [0], tmp_path / "runs.jsonl", 80)
    assert [line["method"] for line in lines] == ["boosting"]
    assert "toy, lightgbm, seed 0 failed" in capsys.readouterr().out


def made() -> summary.Results:
    """Return runs of two tables of classes and one of numbers, two seeds each."""
    lines = []
    for seed in (0, 1):
        for method, nll, right in (("ours", 0.3, 0.9), ("tabm", 0.4, 0.8), ("boosting", 0.2, 0.7)):
            for table, more in (("a", 0.0), ("b", 0.1 * (method == "boosting") + 0.1)):
                bits = np.arange(100) < 100 * right
                scored = {"nll": nll + more + 0.01 * seed, "accuracy": right, "ece": 0.02}
                packed = np.packbits(bits).tobytes().hex()
                extra = {"correct": packed, "brier": nll, "auc": right}
                lines.append({"table": table, "method": method, **scored, **extra})
            extra = {"crps": nll, "rmse": nll, "coverage": 0.85}
            lines.append({"table": "c", "method": method, **extra})
        for line in lines[-9:]:
            seconds = {"ours": 2.0, "tabm": 30.0, "boosting": 0.5}[line["method"]]
            line |= {"seed": seed, "most": 2_000, "rows": 500, "test_rows": 100}
            line["fit_seconds"] = seconds
    return summary.Results.of(lines)


def test_ranks_wins_and_differences_are_those_of_the_runs():
    results = made()
    found, count = summary.ranks(results, "nll", results.methods)
    assert count == 2
    assert found == {"ours": 1.75, "tabm": 3.0, "boosting": 1.25}
    assert summary.wins(results, "nll", "tabm") == (2, 2)
    assert summary.wins(results, "accuracy", "boosting") == (2, 2)
    value, error = summary.differences(results, "nll", "boosting")["a"]
    assert value == pytest.approx(0.1)
    assert error == pytest.approx(0, abs=1e-9)
    best, apart, error = summary.accuracy_behind(results)["a"]
    assert best == "boosting"
    assert apart == pytest.approx(0.2)
    assert error == pytest.approx((0.2 * 0.8 / 100 / 2) ** 0.5)
    assert summary.ratio(results, "boosting") == 4


def test_the_summary_has_each_goal_and_each_table():
    results = made()
    goals = {line[0]: line[2] for line in summary.goal_lines(results)}
    assert goals["wins on NLL over tabm"] == "2 of 2"
    assert goals["mean ECE"] == "0.0200 on 2 tables"
    assert goals["coverage of intervals at 90 %"] == "0.850 on 1 tables; off: c 0.850"
    assert len(summary.rank_lines(results)) == 9
    assert [line[0] for line in summary.difference_lines(results, "crps")[1:]] == ["c"]
    assert len(summary.accuracy_lines(results)) == 3


def test_larger_tables_stand_beside_boosting_with_seconds_and_memory():
    lines = [{**line, "most": 10_000, "peak_mb": 900} for line in made().lines.values()]
    for line in lines:
        line["method"] = line["method"].replace("boosting", "boosting, stopped")
    found = summary.size_lines({10_000: summary.Results.of(lines, 10_000)})
    assert [line[1] for line in found[1:]] == ["a", "b", "c"]
    assert found[1] == ["10,000", "a", "nll", "0.305", "0.205", "2.0", "0.5", "900"]


def test_only_tables_of_the_size_are_run_by_default():
    assert runs.is_of_size(CLASSES, 2_000)
    assert not runs.is_of_size(CLASSES, 10_000)


def test_the_summary_is_printed(tmp_path, monkeypatch, capsys):
    path = tmp_path / "runs.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in made().lines.values()))
    monkeypatch.setattr("sys.argv", ["summary", "--file", str(path)])
    summary.main()
    printed = capsys.readouterr().out
    assert "What is to be reached" in printed
    assert "wins on RMSE over tabm" in printed


def test_tables_are_written_as_pandas_writes_them(tmp_path):
    csv_files.write(CLASSES, tmp_path)
    found = pd.read_csv(tmp_path / "toy.csv")
    assert found.columns[0] == "Unnamed: 0"
    assert found.columns[-1] == "y"
    assert len(found) + len(pd.read_csv(tmp_path / "toy-new.csv")) == 120
