"""The recipes reproduce what the notebooks print."""

import numpy as np
import pytest

from batchensemble.comparison import recipes
from batchensemble.predictions.predict import Prediction
from batchensemble.training.history import History


@pytest.fixture(scope="module")
def notebook():
    return recipes.notebook(progress=False)


def test_the_printed_losses_are_the_notebooks(notebook):
    assert list(notebook.printed) == list(recipes.NOTEBOOK_LOSSES)
    for given, ours in notebook.printed.values():
        assert len(given) == 10
        np.testing.assert_allclose(ours, given, atol=0.002)


def test_the_scores_are_those_of_its_re_run(notebook):
    deep, batch = notebook.runs
    assert deep.scores["accuracy"] == pytest.approx(0.9725, abs=0.001)
    assert deep.scores["nll"] == pytest.approx(0.0779, abs=0.0005)
    assert deep.scores["notebook_ece"] == pytest.approx(0.0059, abs=0.001)
    assert batch.scores["accuracy"] == pytest.approx(0.7205, abs=0.005)
    assert batch.scores["nll"] == pytest.approx(0.4744, abs=0.01)
    assert batch.scores["notebook_ece"] == pytest.approx(0.2324, abs=0.01)
    assert batch.scores["mutual_information"] == pytest.approx(0.3795, abs=0.01)


def test_forward_calls_are_the_notebooks(notebook):
    assert [run.cost.forward_calls for run in notebook.runs] == [5640, 1880]


def test_the_explanation_names_what_went_wrong(notebook):
    assert "Only the mean of the members' logits is trained" in notebook.explanation
    assert notebook.explanation.count(". ") == 1


def test_ctrl_c_keeps_the_finished_part(monkeypatch):
    fit = recipes.fit

    def stopping(model, data, *, label, epochs, **options):
        if label == "BatchEnsemble":
            raise KeyboardInterrupt
        return fit(model, data, label=label, epochs=1, **options)

    monkeypatch.setattr(recipes, "fit", stopping)
    comparison = recipes.notebook(progress=False)
    assert comparison.interrupted
    assert comparison.methods == ["deep"]


def test_mimo_that_sees_one_example_three_times_has_members_alike(monkeypatch):
    fit = recipes.fit
    monkeypatch.setattr(recipes, "fit", lambda *a, **o: fit(*a, **{**o, "epochs": 20}))
    comparison = recipes.mimo_notebook(progress=False)
    deep, mimo = comparison.runs
    assert len(comparison.data.train[0]) == 1600
    assert mimo.scores["mutual_information"] < deep.scores["mutual_information"]


def test_a_confidence_of_one_is_in_no_bin_of_the_notebook():
    sure = Prediction(np.array([[[1.0, 0.0]], [[0.4, 0.6]]]))
    # The first is sure and wrong, which its bins miss; the second is off by 0.4.
    assert recipes.notebook_ece(sure, np.array([1, 1])) == pytest.approx(0.4 / 2)


def test_histories_in_turn_add_up():
    one = History([0.5], [[0.5]], [0.4], [], [2.0], [10], [3])
    two = History([0.7], [[0.7]], [0.6], [], [1.0], [10], [3])
    both = recipes.one_after_the_other([one, two])
    assert both.member_losses == [[0.5, 0.7]]
    assert both.losses == [pytest.approx(0.6)]
    assert both.total_seconds == 3.0
    assert both.total_forward_calls == 6
