import io

import numpy as np
from rich.console import Console

import batchensemble as be
from batchensemble.metrics import score
from batchensemble.predictions import Normals
from batchensemble.report.terminal import score_tables


def printed(scores, title="30 held-out examples of prices.csv", width=80):
    """Return the lines of the tables of scores on a terminal of a width."""
    text = io.StringIO()
    console = Console(file=text, width=width)
    for table in score_tables(title, scores):
        console.print(table)
    return [line.strip() for line in text.getvalue().splitlines()]


def prices(members=32, scale=1e5):
    """Return the scores of prices by the members, in a unit."""
    rng = np.random.default_rng(0)
    truth = scale * rng.uniform(1, 9, 30)
    means = truth[:, None] + scale * rng.normal(size=(30, members))
    return score(Normals(means, np.full_like(means, scale)), truth)


def test_many_members_fit_a_narrow_terminal():
    scores = prices()
    lines = printed(scores)
    least, largest = min(scores["member_rmses"]), max(scores["member_rmses"])
    assert f"member rmses {least:,.0f} to {largest:,.0f}" in [" ".join(x.split()) for x in lines]
    assert max(map(len, lines)) < 80
    assert lines[0] == "30 held-out examples of prices.csv"


def test_scores_have_digits_in_any_unit():
    cells = dict(line.split()[:2] for line in printed(prices(scale=1e-5)) if line[:4] == "rmse")
    assert float(cells["rmse"]) == float(f"{prices(scale=1e-5)['rmse']:.3g}") > 0


def test_titles_are_not_broken_over_a_narrow_matrix():
    probs = np.array([[[0.9, 0.1]], [[0.2, 0.8]], [[0.6, 0.4]]])
    title = "BatchEnsemble, 8 members, 34 epochs: held-out examples of a_table.csv"
    lines = printed(score(be.Prediction(probs), np.array([0, 1, 1])), title)
    assert lines[0] == title
    assert "Confusion matrix: examples by predicted class" in lines
