"""Comparisons that predict numbers: data, runs, figures, the page and the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom
from typer.testing import CliRunner

from batchensemble.cli.app import app
from batchensemble.comparison.compare import Comparison, Run, Settings, compare
from batchensemble.comparison.planes import Line
from batchensemble.comparison.results import comparison_loss
from batchensemble.comparison.summary import compare_methods, headline, quality, summarise
from batchensemble.data.datasets import load_dataset
from batchensemble.predictions import Normals, Points, Quantiles
from batchensemble.report import write_report
from batchensemble.report.plots import draw_all
from batchensemble.report.sections.conformal import interval_table
from batchensemble.report.sections.tables import risk_of


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    settings = Settings(methods=("single", "batch"), epochs=3, hidden=(16,), lr=1e-2)
    return compare(load_dataset("cubic"), settings)


def write_csv(path: Path, rows: int = 60) -> Path:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(rows, 2))
    lines = [f"{a},{b},{1000 * a + 5}" for a, b in x]
    path.write_text("\n".join(["a,b,price", *lines]) + "\n")
    return path


def test_the_cubic_data_have_a_gap_and_keep_their_unit() -> None:
    data = load_dataset("cubic")
    assert data.task == "regression"
    assert data.classes == 0
    (mean,), (scale,) = data.encoding.scaling
    x = mean + scale * data.train[0][:, 0]
    assert abs(x).min() + 1e-6 >= 1
    assert abs(x).max() <= 4 + 1e-6
    noise = data.train[1] - x.astype(np.float64) ** 3
    assert noise.std() == pytest.approx(3, rel=0.1)
    assert load_dataset("diabetes").features == 10


def test_the_task_is_checked_against_the_data(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cubic is for regression"):
        load_dataset("cubic", task="classification")
    with pytest.raises(ValueError, match="task must be one of classification, regression"):
        load_dataset("cubic", task="regresion")
    path = write_csv(tmp_path / "houses.csv")
    with pytest.raises(ValueError, match="--task regression"):
        load_dataset(str(path), "price", "classification")
    data = load_dataset(str(path), "price", "regression")
    assert data.task == load_dataset(str(path), "price").task == "regression"
    assert len(data.train[1]) == 48
    with pytest.raises(ValueError, match=r"loss must be one of gaussian_nll.*'cross_entropy'"):
        comparison_loss(Settings(loss="cross_entropy"), data)


def test_runs_predict_in_the_targets_unit_and_survive_their_file(comparison: Comparison) -> None:
    for run in comparison.runs:
        assert isinstance(run.prediction, Normals)
        assert 10 < run.prediction.mean.std() < 60
        again = Run.from_parts(json.loads(json.dumps(run.to_dict())), run.predictions())
        assert isinstance(again.prediction, Normals)
        np.testing.assert_array_equal(again.prediction.deviations, run.prediction.deviations)
        assert again.scores == run.scores
    assert isinstance(comparison.plane, Line)
    assert comparison.plane.x[0] < -4.5
    assert comparison.plane.x[-1] > 4.5


def test_rows_and_ranking_are_of_numbers(comparison: Comparison) -> None:
    rows = summarise(comparison)
    assert [column.key for column in quality(comparison)][:3] == ["rmse", "mae", "r2"]
    assert set(rows[0].cells) >= {"rmse", "nll", "crps", "coverage", "parameters"}
    assert headline(comparison).key == "nll"
    differences = compare_methods(comparison)
    for row in rows:
        for key in ("rmse", "mae", "r2", "nll", "crps"):
            found = differences.between(key, row.method, "single")
            assert found is not None
            expected = row.cells[key].mean - rows[0].cells[key].mean
            assert found.estimate == pytest.approx(expected, abs=1e-9)
            assert found.low <= found.estimate <= found.high


@pytest.mark.parametrize(("loss", "kind"), [("mse", Points), ("quantile", Quantiles)])
def test_other_losses_are_ranked_by_crps(loss: str, kind: type) -> None:
    settings = Settings(methods=("batch",), epochs=1, hidden=(8,), loss=loss)
    found = compare(load_dataset("diabetes"), settings)
    assert isinstance(found.runs[0].prediction, kind)
    assert headline(found).key == "crps"
    if kind is Quantiles:
        assert found.runs[0].scores["coverage_meant"] == pytest.approx(0.9)
    assert list(draw_all(found)) == ["coverage", "error_by_deviation", "loss_curves", "error_time"]


def test_the_page_tells_of_numbers(comparison: Comparison, tmp_path: Path) -> None:
    page = write_report(comparison, tmp_path).read_text()
    assert "Prediction and uncertainty" in page
    assert "RMSE" in page
    assert "Accuracy" not in page
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["data"]["task"] == "regression"
    assert results["runs"][0]["scores"]["crps"] > 0


def test_the_surest_are_answered_and_their_mean_error_is_counted(comparison: Comparison) -> None:
    targets = comparison.data.held_out[1]
    for method in comparison.methods:
        found = risk_of(comparison, method)
        deviations, errors = [], []
        for run in comparison.of(method):
            assert isinstance(run.prediction, Normals)
            deviations += run.prediction.deviation.tolist()
            errors += np.abs(run.prediction.mean - targets).tolist()
        in_order = [errors[i] for i in sorted(range(len(errors)), key=lambda i: deviations[i])]
        for index in (9, 49, 99):
            answered = len(errors) * (index + 1) // 100
            assert found.coverage[index] == pytest.approx((index + 1) / 100)
            assert found.risk[index] == pytest.approx(np.mean(in_order[:answered]))
            assert found.deviation is not None
            assert found.deviation[index] == sorted(deviations)[answered - 1]


def test_intervals_are_learnt_on_one_half_and_counted_on_the_other(comparison: Comparison) -> None:
    """The targets of the second half may be anything: the widths of the first do not change."""
    table = interval_table(comparison)
    assert [line.name for line in table.lines] == ["80%", "90%", "95%"]
    assert len(table.heads) == 1 + len(comparison.methods)
    for line, level in zip(table.lines, (0.8, 0.9, 0.95), strict=True):
        low, high = (float(end.strip("%")) / 100 for end in line.entries[-1].text.split(" to "))
        assert low < level < high
        widths = [float(entry.detail.removeprefix("width ")) for entry in line.entries[:-1]]
        assert min(widths) > 0
    X, y = comparison.data.held_out
    order = np.random.default_rng(0).permutation(len(y))
    count = order[len(y) // 2 :]
    other = y.copy()
    other[count] += 1e6
    moved = interval_table(replace(comparison, data=replace(comparison.data, held_out=(X, other))))
    for line, same in zip(moved.lines, table.lines, strict=True):
        assert [entry.detail for entry in line.entries] == [entry.detail for entry in same.entries]
        assert {entry.value for entry in line.entries[:-1]} == {0.0}


@pytest.mark.parametrize("loss", ["mse", "quantile"])
def test_intervals_hold_what_chance_lets_them(loss: str) -> None:
    """The halves are drawn at random, so that over many draws the law of the caption holds."""
    settings = Settings(methods=("batch",), epochs=2, hidden=(8,), loss=loss)
    found, draws = compare(load_dataset("cubic"), settings), 50
    outside = np.zeros(3)
    for seed in range(draws):
        for row, line in enumerate(interval_table(found, seed=seed).lines):
            low, high = (float(end.strip("%")) / 100 for end in line.entries[-1].text.split(" to "))
            value = line.entries[0].value
            assert value is not None
            outside[row] += not low - 0.001 <= value <= high + 0.001
    assert outside.max() <= binom(draws, 0.05).ppf(0.9995)
    assert outside.sum() > 0  # the band is no wider than it says


def test_few_held_out_examples_have_no_intervals_on_the_page(comparison: Comparison) -> None:
    runs = []
    for run in comparison.runs:
        assert isinstance(run.prediction, Normals)
        few = Normals(run.prediction.means[:30], run.prediction.deviations[:30])
        runs.append(replace(run, prediction=few))
    X, y = comparison.data.held_out
    data = replace(comparison.data, held_out=(X[:30], y[:30]))
    texts = [
        line.entries[0].text
        for line in interval_table(replace(comparison, data=data, runs=runs)).lines
    ]
    assert texts[2] == "too few examples"
    assert texts[0].endswith("%")


def test_the_page_says_what_intervals_hold_and_what_is_answered(
    comparison: Comparison, tmp_path: Path
) -> None:
    page = " ".join(write_report(comparison, tmp_path).read_text().split())
    assert "predicted standard deviation up to" in page
    assert "Mean absolute error of all predictions → without the most uncertain 10%:" in page
    assert "Conformal intervals, fitted on a random half" in page
    assert "batchensemble decide DIR --tolerance X" in page


def test_the_command_line_predicts_numbers_of_a_file(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "houses.csv")
    asked = ["compare", "--data", str(path), "--target", "price", "--task", "regression"]
    asked += ["--methods", "single,batch", "--epochs", "2", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert "CRPS" in done.output
    page = (tmp_path / "out" / "report.html").read_text()
    assert "--task regression" in page
    refused = CliRunner().invoke(app, [*asked, "--loss", "ordinal"])
    assert refused.exit_code == 2
