"""Comparisons that predict numbers: data, runs, figures, the page and the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from batchensemble.cli import app
from batchensemble.compare import Comparison, Run, Settings, compare, loss_of
from batchensemble.data import load
from batchensemble.planes import Line
from batchensemble.plots import draw_all
from batchensemble.predictions import Normals, Points, Quantiles
from batchensemble.report import write_report
from batchensemble.summary import headline, quality, stand, summarise


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    settings = Settings(methods=("single", "batch"), epochs=3, hidden=(16,), lr=1e-2)
    return compare(load("cubic"), settings)


def write_csv(path: Path, rows: int = 60) -> Path:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(rows, 2))
    lines = [f"{a},{b},{1000 * a + 5}" for a, b in x]
    path.write_text("\n".join(["a,b,price", *lines]) + "\n")
    return path


def test_the_cubic_data_have_a_gap_and_keep_their_unit() -> None:
    data = load("cubic")
    assert data.task == "regression"
    assert data.classes == 0
    x = data.mean[0] + data.scale[0] * data.train[0][:, 0]
    assert abs(x).min() + 1e-6 >= 1
    assert abs(x).max() <= 4 + 1e-6
    noise = data.train[1] - x.astype(np.float64) ** 3
    assert noise.std() == pytest.approx(3, rel=0.1)
    assert load("diabetes").features == 10


def test_the_task_is_checked_against_the_data(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cubic is for regression"):
        load("cubic", task="classification")
    with pytest.raises(ValueError, match="task must be one of classification, regression"):
        load("cubic", task="regresion")
    path = write_csv(tmp_path / "houses.csv")
    with pytest.raises(ValueError, match="--task regression"):
        load(str(path), "price")
    data = load(str(path), "price", "regression")
    assert data.task == "regression"
    assert len(data.train[1]) == 48
    with pytest.raises(ValueError, match=r"loss must be one of gaussian_nll.*'cross_entropy'"):
        loss_of(Settings(loss="cross_entropy"), data)


def test_runs_predict_in_the_targets_unit_and_survive_their_file(comparison: Comparison) -> None:
    for run in comparison.runs:
        assert isinstance(run.prediction, Normals)
        assert 10 < run.prediction.mean.std() < 60
        again = Run.from_parts(json.loads(json.dumps(run.as_dict())), run.predictions())
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
    standing = stand(comparison)
    for row in rows:
        for key in ("rmse", "mae", "r2", "nll", "crps"):
            found = standing.difference(key, row.method, "single")
            assert found is not None
            expected = row.cells[key].mean - rows[0].cells[key].mean
            assert found.estimate == pytest.approx(expected, abs=1e-9)
            assert found.low <= found.estimate <= found.high


@pytest.mark.parametrize(("loss", "kind"), [("mse", Points), ("quantile", Quantiles)])
def test_other_losses_are_ranked_by_crps(loss: str, kind: type) -> None:
    settings = Settings(methods=("batch",), epochs=1, hidden=(8,), loss=loss)
    found = compare(load("diabetes"), settings)
    assert isinstance(found.runs[0].prediction, kind)
    assert headline(found).key == "crps"
    if kind is Quantiles:
        assert found.runs[0].scores["coverage_meant"] == pytest.approx(0.9)
    assert list(draw_all(found)) == ["coverage", "error_by_deviation", "loss_curves", "error_time"]


def test_the_page_tells_of_numbers(comparison: Comparison, tmp_path: Path) -> None:
    page = write_report(comparison, tmp_path).read_text()
    assert "The curve and its doubt" in page
    assert "RMSE" in page
    assert "Accuracy" not in page
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["data"]["task"] == "regression"
    assert results["runs"][0]["scores"]["crps"] > 0


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
