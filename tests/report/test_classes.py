"""The report on rare classes, and beside a constant prediction."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_score, recall_score, roc_auc_score

from batchensemble.comparison.compare import Settings, compare
from batchensemble.comparison.constant import constant_scores
from batchensemble.comparison.summary import compare_methods, summarise
from batchensemble.data.datasets import Data
from batchensemble.report import write_report
from batchensemble.report.plots import confusion_panels
from batchensemble.report.sections.classes import class_table
from batchensemble.report.sections.tables import difference_table, quality_table

RNG = np.random.default_rng(0)
X = RNG.normal(size=(400, 2)).astype(np.float32)
QUICK = Settings(("single", "batch"), members=2, epochs=3, hidden=(8,))


def data_of(y: np.ndarray, classes: tuple[str, ...] = ()) -> Data:
    return Data("t.csv", (X[:200], y[:200]), (X[200:], y[200:]), ("a", "b"), classes, True)


@pytest.fixture(scope="module")
def rare():
    return compare(data_of((X[:, 0] > 1.7).astype(int), ("no", "<yes>")), QUICK, progress=False)


@pytest.fixture(scope="module")
def numbers():
    return compare(data_of((50 + 9 * X[:, 0]).astype(np.float32)), QUICK, progress=False)


def test_each_class_has_its_scores(rare):
    table = class_table(rare)
    labels, prediction = rare.data.held_out[1], rare.runs[0].prediction
    top, p = prediction.labels, prediction.probs
    for number, line in enumerate(table.lines):
        share, recall, auc = line.entries[:3]
        assert share.value == (labels == number).mean()
        assert recall.value == recall_score(labels == number, top == number)
        found = precision_score(labels == number, top == number, zero_division=np.nan)
        assert recall.detail == f"precision {'-' if np.isnan(found) else f'{found:.1%}'}"
        assert auc.value == pytest.approx(roc_auc_score(labels == number, p[:, number]))
        ap = average_precision_score(labels == number, p[:, number])
        assert auc.detail == f"AP {ap:.4f}"


def test_the_constant_has_a_row(rare):
    rows = summarise(rare)
    line = quality_table(rare, rows).lines[-1]
    assert line.name == "Constant: always 'no'"
    share = (rare.data.held_out[1] == 0).mean()
    assert line.entries[0].value == share


def test_scores_without_intervals_are_in_no_table_of_differences(rare):
    rows, differences = summarise(rare), compare_methods(rare)
    heads = difference_table(rare, rows, differences, "single").heads
    assert [head.title for head in heads] == ["Accuracy", "NLL", "Brier score", "ECE"]
    assert not any(row.cells["auc"].best or row.cells["auc"].tied for row in rows)


def test_the_matrix_counts_every_example(rare):
    axes = confusion_panels(rare)
    assert [each.get_text() for each in axes[0].get_yticklabels()] == ["no", "<yes>"]
    for ax in axes:
        assert sum(int(each.get_text()) for each in ax.texts) == 200
    many = replace(rare, data=replace(rare.data, class_names=tuple(map(str, range(13)))))
    assert class_table(many) is None
    with pytest.raises(ValueError, match="up to 12 classes, got 13"):
        confusion_panels(many)


def test_the_page_has_both(rare, numbers, tmp_path):
    page = write_report(rare, tmp_path / "rare").read_text()
    assert "Class by class" in page
    assert "of the rarest class, &#39;&lt;yes&gt;&#39;, found: Single network" in page
    assert (tmp_path / "rare/figures/confusion.svg").exists()
    page = write_report(numbers, tmp_path / "numbers").read_text()
    assert "Constant: the mean of the training targets" in page
    assert "Class by class" not in page


def test_the_constant_of_numbers_is_that_of_the_training(numbers):
    train, held_out = numbers.data.train[1], numbers.data.held_out[1]
    found = constant_scores(numbers)
    assert found.prediction == "the mean of the training targets"
    errors = held_out - train.mean()
    assert found.scores["rmse"] == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-5)
    assert found.scores["rmse"] == pytest.approx(numbers.runs[0].scores["constant_rmse"], rel=1e-4)
    without = replace(numbers, data=replace(numbers.data, train=(X[:0], train[:0])))
    assert constant_scores(without).scores["rmse"] == numbers.runs[0].scores["constant_rmse"]
