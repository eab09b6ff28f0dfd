"""The table of a comparison, against numbers worked out by hand."""

import math

import numpy as np
import pytest

from batchensemble.compare import Comparison, Run, Settings
from batchensemble.cost import Cost
from batchensemble.data import Data
from batchensemble.history import History
from batchensemble.metrics import Scores
from batchensemble.prediction import Prediction
from batchensemble.summary import CLASSIFICATION, COST, METHOD_NAMES, shown, summarise

DATA = Data(
    "by hand",
    (np.zeros((1, 1), np.float32), np.zeros(1, np.int64)),
    (np.zeros((1, 1), np.float32), np.zeros(1, np.int64)),
    ("x",),
    ("no", "yes"),
    False,
)


def run(method, seed=0, *, accuracy=0.5, nll=0.7, ece=0.1, information=0.0, parameters=100):
    scores = Scores(
        {
            "accuracy": accuracy,
            "nll": nll,
            "brier": 0.5,
            "ece": ece,
            "mutual_information": information,
            "disagreement": information,
            "member_accuracies": [accuracy],
        }
    )
    cost = Cost(
        parameters, 10, parameters / 100, 1880, 3.0 * parameters, 1.0 * parameters, 1.5, 0.25
    )
    return Run(method, seed, scores, cost, History(), Prediction(np.full((1, 1, 2), 0.5)), None)


def summary(*runs):
    methods = tuple(dict.fromkeys(run.method for run in runs))
    return summarise(Comparison(Settings(methods=methods), DATA, None, list(runs)))


def best(rows, key):
    return [row.method for row in rows if row.cells[key].best]


def test_best_goes_up_for_accuracy_and_down_for_losses_and_costs():
    rows = summary(
        run("single", accuracy=0.97, nll=0.08, ece=0.006, parameters=100),
        run("deep", accuracy=0.98, nll=0.07, ece=0.009, parameters=300),
    )
    assert best(rows, "accuracy") == ["deep"]
    assert best(rows, "nll") == ["deep"]
    assert best(rows, "ece") == ["single"]
    assert best(rows, "parameters") == ["single"]
    assert best(rows, "parameter_ratio") == ["single"]
    assert best(rows, "training_multiply_adds") == ["single"]


@pytest.mark.parametrize("key", ["mutual_information", "disagreement", "forward_calls"])
def test_some_numbers_have_no_best(key):
    rows = summary(run("single"), run("deep", information=0.2))
    assert best(rows, key) == []


def test_numbers_that_print_alike_share_the_mark():
    rows = summary(run("single", nll=0.07721), run("batch", nll=0.07724), run("mimo", nll=0.08))
    assert [row.cells["nll"].text for row in rows] == ["0.0772", "0.0772", "0.0800"]
    assert best(rows, "nll") == ["single", "batch"]


def test_nothing_is_best_where_all_are_equal_or_there_is_one_method():
    assert best(summary(run("single"), run("deep")), "brier") == []
    assert not any(cell.best for row in summary(run("deep")) for cell in row.cells.values())


def test_several_seeds_give_mean_and_sample_deviation():
    [row] = summary(run("deep", 0, accuracy=0.97), run("deep", 1, accuracy=0.98))
    cell = row.cells["accuracy"]
    assert cell.mean == pytest.approx(0.975)
    assert cell.std == pytest.approx(0.01 / math.sqrt(2))
    assert cell.text == "0.9750 ± 0.0071"


def test_what_is_the_same_in_every_seed_stands_without_deviation():
    [row] = summary(run("deep", 0, parameters=51462), run("deep", 1, parameters=51462))
    assert row.cells["parameters"].text == "51,462"
    assert row.cells["parameters"].std == 0


def test_one_seed_has_no_deviation():
    [row] = summary(run("deep", accuracy=0.9725))
    assert row.cells["accuracy"].std is None
    assert row.cells["accuracy"].text == "0.9725"


def test_a_number_that_is_not_finite_is_a_dash_and_never_best():
    rows = summary(run("single", nll=math.inf), run("deep", nll=0.5), run("batch", nll=0.6))
    assert [row.cells["nll"].text for row in rows] == ["-", "0.5000", "0.6000"]
    assert best(rows, "nll") == ["deep"]
    twice = summary(run("single", 0, nll=math.inf), run("single", 1, nll=0.5))
    assert twice[0].cells["nll"].text == "-"


def test_rows_come_in_the_order_asked_for_with_every_column():
    rows = summary(run("mimo"), run("single"))
    assert [row.name for row in rows] == [METHOD_NAMES["mimo"], METHOD_NAMES["single"]]
    assert all(
        list(row.cells) == [column.key for column in (*CLASSIFICATION, *COST)] for row in rows
    )


def test_no_finished_run_gives_no_rows():
    assert summarise(Comparison(Settings(), DATA, None)) == []


def test_small_mutual_information_stays_visible():
    information = next(column for column in CLASSIFICATION if column.key == "mutual_information")
    assert shown(0.00003, information) == "0.00003"
