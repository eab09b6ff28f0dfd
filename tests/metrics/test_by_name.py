"""One score by its name is the number that all scores together have under it."""

import numpy as np
import pytest
import torch
from torch import nn

import batchensemble as be
from batchensemble import losses
from batchensemble.metrics import score
from batchensemble.metrics.by_name import HIGHER_IS_BETTER, names_of_scores, score_by_name
from batchensemble.predictions.from_outputs import reading

RNG = np.random.default_rng(0)
N, MEMBERS = 60, 3
KINDS = {
    "classes": (losses.CrossEntropy(), 3, RNG.integers(3, size=N)),
    "ordered": (losses.Ordinal(), 2, RNG.integers(3, size=N)),
    "labels": (losses.BinaryCrossEntropy(), 2, RNG.integers(2, size=(N, 2)).astype(float)),
    "points": (losses.MSE(), 1, RNG.normal(size=N)),
    "normals": (losses.GaussianNLL(), 4, RNG.normal(size=(N, 2))),
    "quantiles": (losses.Quantile((0.1, 0.5, 0.8)), 3, RNG.normal(size=N)),
}


def predicted(loss, outputs):
    torch.manual_seed(1)
    found = reading(loss)
    return found.make(*found.of(torch.randn(N, MEMBERS, outputs)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_score_alone_is_the_one_among_all(kind):
    loss, outputs, targets = KINDS[kind]
    if kind == "normals":
        targets = targets.copy()
        targets[::7, 1] = np.nan
    prediction, names = predicted(loss, outputs), names_of_scores(loss)
    found = score(prediction, targets)
    assert set(names) - {"nll"} == set(HIGHER_IS_BETTER) & set(found) - {"nll"}
    for name in set(names) & set(found):
        assert score_by_name(prediction, targets, name) == pytest.approx(found[name], rel=1e-12)


@pytest.mark.parametrize("kind", ["classes", "points", "normals", "quantiles"])
def test_a_weight_of_two_is_an_example_twice(kind):
    loss, outputs, targets = KINDS[kind]
    twice = np.concatenate([np.arange(N), np.arange(10)])
    weights = np.ones(N)
    weights[:10] = 2
    prediction = predicted(loss, outputs)
    arrays = [
        getattr(prediction, each)
        for each in ("member_probs", "values", "means")
        if hasattr(prediction, each)
    ]
    repeated = type(prediction)(
        arrays[0][twice],
        *(
            [prediction.deviations[twice]]
            if kind == "normals"
            else [prediction.levels]
            if kind == "quantiles"
            else []
        ),
    )
    of_classes, of_numbers = ("nll", "brier", "ece", "accuracy"), ("rmse", "mae", "r2", "crps")
    names = of_classes if kind == "classes" else of_numbers
    for name in (*names, "pinball") if kind == "quantiles" else names:
        found = score_by_name(prediction, targets, name, weights)
        expected = score_by_name(repeated, targets[twice], name)
        assert found == pytest.approx(expected, rel=1e-12)


def test_a_score_without_a_weighted_form_says_so():
    loss, outputs, targets = KINDS["labels"]
    with pytest.raises(ValueError, match="exact_match has no form for examples with weights"):
        score_by_name(predicted(loss, outputs), targets, "exact_match", np.ones(N))


def test_unknown_scores_and_losses():
    loss, outputs, targets = KINDS["points"]
    with pytest.raises(ValueError, match="name must be one of nll, brier"):
        score_by_name(predicted(loss, outputs), targets, "width")

    class Own(losses.base.EnsembleLoss):
        """A loss that defines no prediction."""

        def __call__(self, outputs, targets, *, per_member=False):
            return outputs

        of_ensemble = read = check = __call__

    assert names_of_scores(Own()) == ("nll",)


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_stops_on_every_score_of_its_loss(kind):
    loss, outputs, targets = KINDS[kind]
    X = torch.randn(N, 2)
    for name in names_of_scores(loss)[1:]:
        model = be.BatchEnsemble(nn.Linear(2, outputs), members=2)
        options = {"loss": loss, "stop_on": name, "patience": 2, "epochs": 6, "lr": 0.1}
        history = be.fit(model, (X, targets), validation=(X, targets), **options)
        values = [each[name] for each in history.evaluations]
        best = max(values) if HIGHER_IS_BETTER[name] else min(values)
        assert history.best_score == best
        assert be.evaluate(model, (X, targets))[name] == pytest.approx(best, rel=1e-5)


def test_the_score_of_standardised_targets_is_in_their_unit():
    X = torch.randn(N, 2)
    y = 1000 + 50 * X.sum(1)
    model = be.BatchEnsemble(nn.Linear(2, 2), members=2)
    options = {"loss": "gaussian_nll", "standardise_targets": True, "stop_on": "crps"}
    history = be.fit(model, (X, y), validation=(X, y), patience=9, epochs=3, **options)
    assert be.evaluate(model, (X, y))["crps"] == pytest.approx(history.best_score, rel=1e-5)
    assert history.best_score > 5


@pytest.mark.parametrize("name", ["r2", "width", "f1"])
def test_what_cannot_decide_is_refused(name):
    model, X = be.BatchEnsemble(nn.Linear(2, 1), members=2), torch.randn(N, 2)
    held_out = X, torch.ones(N)
    sentence = "is not defined" if name == "r2" else "stop_on must be one of nll, rmse, mae, r2"
    with pytest.raises(ValueError, match=sentence):
        be.fit(model, (X, X[:, 0]), validation=held_out, loss="mse", stop_on=name, epochs=1)
