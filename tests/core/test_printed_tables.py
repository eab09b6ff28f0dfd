"""What notebooks show: small tables with the numbers, and nothing of the data that runs."""

from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from batchensemble.comparison.compare import Comparison, Run, Settings
from batchensemble.comparison.cost import Cost
from batchensemble.data.datasets import Data
from batchensemble.metrics import Scores
from batchensemble.predictions import (
    MultiLabelPrediction,
    Normals,
    Points,
    Prediction,
    Quantiles,
)
from batchensemble.training.history import History

RNG = np.random.default_rng(0)
HOSTILE = "<script>alert(1)</script>"


class Cells(HTMLParser):
    """The texts of a table, row by row."""

    def __init__(self, thing):
        super().__init__()
        self.rows, self.tags, self.caption = [], [], ""
        self.feed(thing._repr_html_())

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])

    def handle_data(self, text):
        if self.tags[-1] == "caption":
            self.caption += text
        else:
            self.rows[-1].append(text)


def test_scores_are_a_row_each():
    cells = Cells(Scores({"mutual_information": 0.123456, "member_accuracies": [0.5, 1.0]}))
    assert cells.rows[1:] == [["mutual information", "0.1235"], ["member accuracies", "0.5, 1"]]


def test_a_history_shows_its_last_epochs():
    losses = [1 / (epoch + 1) for epoch in range(8)]
    cells = Cells(History(losses=losses, validation_nll=losses, seconds=[1.0] * 8))
    assert cells.rows[0] == ["epoch", "loss", "held-out NLL", "seconds"]
    assert [row[0] for row in cells.rows[1:]] == ["4", "5", "6", "7", "8"]
    assert cells.rows[-1] == ["8", "0.125", "0.125", "1"]
    assert Cells(History()).rows == [["epoch", "loss", "held-out NLL", "seconds"]]


def test_a_prediction_shows_its_first_examples():
    prediction = Prediction(RNG.dirichlet(np.ones(3), size=(20, 4)))
    cells = Cells(prediction)
    assert cells.caption == "Prediction: 20 examples, 4 members, 3 classes; first 5 of 20"
    assert len(cells.rows) == 6
    assert cells.rows[1][1] == str(prediction.labels[0])
    assert cells.rows[1][3] == f"{prediction.total[0]:.4g}"


@pytest.mark.parametrize(
    "prediction",
    [
        MultiLabelPrediction(RNG.random((6, 2, 3))),
        Normals(RNG.normal(size=(6, 2)), np.ones((6, 2))),
        Points(RNG.normal(size=(6, 2, 3))),
        Quantiles(np.sort(RNG.normal(size=(6, 2, 3)), -1), (0.1, 0.5, 0.9)),
        Prediction(RNG.dirichlet(np.ones(3), size=(6, 2, 4)).transpose(0, 1, 3, 2)),
    ],
)
def test_every_kind_of_prediction_is_a_table(prediction):
    cells = Cells(prediction)
    assert cells.caption.startswith(f"{type(prediction).__name__}: 6 examples, 2 members")
    assert len(cells.rows) in {2, 6}


def test_a_comparison_has_a_row_a_method_and_its_names_do_not_run():
    X, y = np.zeros((4, 1), np.float32), np.zeros(4, np.int64)
    data = Data(HOSTILE, (X, y), (X, y), ("x",), ("a", "b"), False)
    said = Prediction(np.full((4, 1, 2), 0.5))
    cost = Cost(1, 1, 1.0, 1, 1.0, 1.0, 1.0, 1.0)
    run = Run("single", 0, Scores({"nll": 0.5}), cost, History(), said, None)
    runs = [run, replace(run, seed=1, scores=Scores({"nll": 1.0}))]
    cells = Cells(Comparison(Settings(methods=("single",)), data, None, runs))
    assert cells.rows == [["method", "seeds", "nll"], ["single", "2", "0.75"]]
    assert cells.caption.startswith(HOSTILE)
    assert "script" not in cells.tags
    assert Cells(Comparison(Settings(), data, None)).rows == [["method", "seeds"]]
