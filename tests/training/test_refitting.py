"""A second training on all rows is the one by hand, for the best number of steps."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import batchensemble as be

torch.manual_seed(0)
X = torch.randn(120, 3)
Y = (X.sum(1) + torch.randn(120) > 0).long()
HELD_OUT = torch.randn(40, 3), torch.randint(2, (40,))
OPTIONS = {"epochs": 12, "batch_size": 16, "lr": 0.05, "patience": 2, "seed": 3}


def build(outputs=2):
    torch.manual_seed(1)
    return be.BatchEnsemble(
        nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, outputs)), 3
    )


def same(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(*pair) for pair in pairs)


@pytest.mark.parametrize("form", ["arrays", "several inputs", "weights"])
def test_it_is_the_training_by_hand(form):
    model = build()
    data, held_out = (X, Y), HELD_OUT
    whole = torch.cat([X, HELD_OUT[0]]), torch.cat([Y, HELD_OUT[1]])
    if form == "weights":
        weights = torch.linspace(0.5, 2, 120, dtype=torch.float64)
        data = (*data, weights)
        whole = (*whole, torch.cat([weights, torch.ones(40, dtype=torch.float64)]))
    if form == "several inputs":
        data, held_out, whole = (((each[0],), each[1]) for each in (data, held_out, whole))
    by_hand, first = copy.deepcopy(model), copy.deepcopy(model)
    history = be.fit(model, data, validation=held_out, refit=True, **OPTIONS)
    alone = be.fit(first, data, validation=held_out, **OPTIONS)
    assert history.losses == alone.losses
    assert history.best_epoch == alone.best_epoch < 12
    options = {**OPTIONS, "epochs": alone.best_epoch, "patience": None}
    expected = be.fit(by_hand, whole, **options)
    assert same(model, by_hand)
    assert history.refit["losses"] == expected.losses
    assert history.refit["examples"] == 160
    assert history.refit["steps"] == alone.best_epoch * 10
    assert not same(model, first)


def test_a_share_is_given_back():
    model = build()
    history = be.fit(model, (X, Y), validation=0.25, refit=True, **OPTIONS)
    assert history.examples[0] == 90
    assert history.refit["examples"] == 120
    assert history.refit["epochs"] == history.best_epoch
    text = f"refit: {history.refit['steps']} steps on all 120 examples, loss "
    assert text in str(history)
    assert be.History.from_dict(history.to_dict()) == history
    assert model.trained_on.startswith("120 examples")


def test_a_best_step_within_an_epoch_grows_with_the_rows():
    model = build()
    options = {**OPTIONS, "evaluate_every": 3, "patience": 1}
    history = be.fit(model, (X, Y), validation=HELD_OUT, refit=True, **options)
    assert history.refit["steps"] == round(history.best_step * 10 / 8)


def test_the_rate_falls_at_the_end_of_the_second_training():
    model, by_hand = build(), build()
    options = {**OPTIONS, "optimizer": "sgd", "schedule": "cosine", "average": 0.9}
    history = be.fit(model, (X, Y), validation=HELD_OUT, refit=True, **options)
    whole = torch.cat([X, HELD_OUT[0]]), torch.cat([Y, HELD_OUT[1]])
    be.fit(by_hand, whole, **{**options, "epochs": history.best_epoch, "patience": None})
    assert same(model, by_hand)


def test_frames_keep_their_names_and_numbers_their_unit():
    frame = pd.DataFrame(X.numpy(), columns=list("abc"))
    frame["y"] = np.where(Y == 1, "yes", "no")
    model = build()
    history = be.fit(model, frame, target="y", validation=0.2, refit=True, **OPTIONS)
    assert history.class_names == ["no", "yes"]
    assert be.evaluate(model, frame[["y", "c", "a", "b"]], target="y")["accuracy"] > 0.6
    y = 100 + 20 * X[:, 0]
    model = build(1)
    options = {**OPTIONS, "loss": "mse", "standardise_targets": True, "stop_on": "rmse"}
    be.fit(model, (X, y), validation=0.2, refit=True, **options)
    assert model.loss.mean[0] == pytest.approx(y.mean().item(), rel=1e-5)


def test_a_time_budget_is_for_both():
    model = build()
    history = be.fit(model, (X, Y), validation=0.2, refit=True, time_budget=1000.0, **OPTIONS)
    assert history.plan["time_budget"] == 1000
    assert history.refit["epochs"] == history.best_epoch


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"validation": None}, "validation is missing: refit=True"),
        ({"checkpoints": "folder"}, "does not go with checkpoints="),
        ({"schedule": be.Plateau()}, "does not go with schedule=Plateau"),
        ({"per_member_targets": True}, "does not go with per_member_targets=True"),
        ({"validation": DataLoader(TensorDataset(*HELD_OUT), 8)}, "arrays or tables in memory"),
    ],
)
def test_what_does_not_go_with_it_is_refused(options, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, before = build(), build()
    with pytest.raises(ValueError, match=sentence):
        be.fit(model, (X, Y), refit=True, epochs=2, **{"validation": HELD_OUT, **options})
    assert same(model, before)
    made = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="an optimiser that is made already"):
        be.fit(model, (X, Y), validation=HELD_OUT, refit=True, optimizer=made, epochs=2)
