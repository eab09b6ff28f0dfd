"""The table of a comparison, against numbers worked out by hand."""

import math

import numpy as np
import pytest

from batchensemble.comparison.compare import Comparison, Run, Settings
from batchensemble.comparison.cost import Cost
from batchensemble.comparison.summary import (
    CLASSIFICATION,
    COST,
    REGRESSION,
    format_deviation,
    format_number,
    summarise,
)
from batchensemble.comparison.wording import method_title
from batchensemble.data.datasets import Data
from batchensemble.metrics import Scores, score
from batchensemble.predictions.predict import Prediction
from batchensemble.training.history import History

EXAMPLES = 400
LABELS = np.arange(EXAMPLES) % 2
DATA = Data(
    "by hand",
    (np.zeros((1, 1), np.float32), np.zeros(1, np.int64)),
    (np.zeros((EXAMPLES, 1), np.float32), LABELS),
    ("x",),
    ("no", "yes"),
    False,
)


def says(wrong=0.1, sure=0.8, noise=0.0, seed=0):
    """Return what a network says that is wrong in that share of the examples, and how sure."""
    rng = np.random.default_rng(seed)
    right = np.clip(sure + noise * rng.uniform(-1, 1, EXAMPLES), 0.5001, 1)
    right[: round(wrong * EXAMPLES)] = 1 - sure
    probs = np.where(np.arange(2)[:, None] == LABELS, right, 1 - right).T
    return Prediction(probs[:, None])


def run(method, seed=0, *, said=None, information=0.0, parameters=100, seconds=1.5, **scores):
    said = said or says()
    found = {**score(said, LABELS), "mutual_information": information, **scores}
    cost = Cost(
        parameters, 10, parameters / 100, 1880, 3.0 * parameters, 1.0 * parameters, seconds, 0.25
    )
    return Run(method, seed, Scores(found), cost, History(), said, None)


def summary(*runs):
    methods = tuple(dict.fromkeys(run.method for run in runs))
    return summarise(Comparison(Settings(methods=methods), DATA, None, list(runs)))


def best(rows, key):
    return [row.method for row in rows if row.cells[key].best]


def tied(rows, key):
    return [row.method for row in rows if row.cells[key].tied]


def test_best_goes_up_for_accuracy_and_down_for_losses_and_costs():
    rows = summary(
        run("single", said=says(wrong=0.2, sure=0.8), parameters=100),
        run("deep", said=says(wrong=0.1, sure=0.7), parameters=300),
    )
    assert best(rows, "accuracy") == ["deep"]
    assert best(rows, "nll") == ["deep"]
    assert best(rows, "ece") == ["single"]
    assert best(rows, "parameters") == ["single"]
    assert best(rows, "parameter_ratio") == ["single"]
    assert best(rows, "training_multiply_adds") == ["single"]
    assert not any(cell.tied for row in rows for cell in row.cells.values())


def test_a_difference_within_the_noise_makes_nobody_best():
    rows = summary(
        run("single", said=says(noise=0.2, seed=1)),
        run("deep", said=says(noise=0.2, seed=2)),
        run("mimo", said=says(wrong=0.3)),
    )
    texts = [row.cells["nll"].text for row in rows]
    assert len(set(texts)) == 3
    assert best(rows, "nll") == []
    assert tied(rows, "nll") == ["single", "deep"]


def test_one_measured_time_has_no_best_and_several_can():
    once = summary(run("single", seconds=1.0), run("deep", seconds=3.0))
    assert best(once, "training_seconds") == tied(once, "training_seconds") == []
    slow = [run("mimo", seed, seconds=3 + 0.1 * seed) for seed in range(5)]
    fast = [run("single", seed, seconds=1 + 0.1 * seed) for seed in range(5)]
    assert best(summary(*slow, *fast), "training_seconds") == ["single"]


def test_what_differs_from_seed_to_seed_counts_as_noise():
    one = [run("single", seed, said=says(sure=0.8)) for seed in range(4)]
    other = [run("deep", seed, said=says(sure=0.8 + 0.02 * (-1) ** seed)) for seed in range(4)]
    assert tied(summary(*one, *other), "nll") == ["single", "deep"]
    assert best(summary(one[0], other[0]), "nll") == ["deep"]


def test_methods_without_a_common_seed_are_not_significance():
    rows = summary(run("single", 0, said=says(wrong=0.4)), run("deep", 1))
    assert best(rows, "nll") == tied(rows, "nll") == []


@pytest.mark.parametrize("key", ["mutual_information", "disagreement", "forward_calls"])
def test_some_numbers_have_no_best(key):
    rows = summary(run("single"), run("deep", information=0.2))
    assert best(rows, key) == []


def test_counts_that_print_alike_share_the_mark():
    small = [run(method, parameters=10) for method in ("single", "batch")]
    rows = summary(*small, run("deep", parameters=20))
    assert tied(rows, "parameters") == ["single", "batch"]
    assert best(rows, "parameters") == []


def test_nothing_is_best_where_all_are_equal_or_there_is_one_method():
    rows = summary(run("single"), run("deep"))
    assert best(rows, "brier") == tied(rows, "brier") == []
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
    sure = says(wrong=0.3)
    rows = summary(
        run("single", nll=math.inf), run("deep", said=says(wrong=0.1)), run("batch", said=sure)
    )
    assert rows[0].cells["nll"].text == "-"
    assert best(rows, "nll") == ["deep"]
    twice = summary(run("single", 0, nll=math.inf), run("single", 1, nll=0.5))
    assert twice[0].cells["nll"].text == "-"


def test_rows_come_in_the_order_asked_for_with_every_column():
    rows = summary(run("mimo"), run("single"))
    assert [row.name for row in rows] == [method_title("mimo"), method_title("single")]
    assert all(
        list(row.cells) == [column.key for column in (*CLASSIFICATION, *COST)] for row in rows
    )


def test_no_finished_run_gives_no_rows():
    assert summarise(Comparison(Settings(), DATA, None)) == []


def test_small_mutual_information_stays_visible():
    information = next(column for column in CLASSIFICATION if column.key == "mutual_information")
    assert format_number(0.00003, information) == "0.00003"


@pytest.mark.parametrize(
    ("mean", "deviation", "texts"),
    [
        (50.9, 0.5984, ("50.90", "0.60")),
        (51.11, 0.03965, ("51.11", "0.04")),
        (1234.5, 3.21, ("1234", "3")),
        (0.05, 0.0012, ("0.05000", "0.00120")),
        (123456.0, 7.0, ("123,456", "7")),
        (1.23456e12, 7.0, ("1.235e+12", "7.000")),
        (math.nan, math.nan, ("-", "-")),
    ],
)
def test_a_deviation_has_the_decimals_of_its_mean(mean, deviation, texts):
    rmse = REGRESSION[0]
    assert (format_number(mean, rmse), format_deviation(deviation, mean, rmse)) == texts
