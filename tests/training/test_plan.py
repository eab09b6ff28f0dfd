"""A plan has every option of ``fit``, is checked once, and says what a resumed training needs."""

import inspect
import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import batchensemble as be
from batchensemble.losses import CrossEntropy, Huber
from batchensemble.training.history import History
from batchensemble.training.plan import TrainingPlan

STORED = Path(__file__).parent / "checkpoints" / "format-3" / "step-000000012" / "state.json"


def test_it_has_the_options_of_fit_with_their_defaults():
    of_fit = {
        name: each.default
        for name, each in inspect.signature(be.fit).parameters.items()
        if name not in ("model", "data", "validation", "callbacks", "trackers")
    }
    assert {each.name: each.default for each in fields(TrainingPlan)} == of_fit


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"lr": float("nan")}, "lr must be a finite number above 0"),
        ({"warmup": -1}, "warmup must be at least 0"),
        ({"cooldown": 2.0}, "cooldown must be a number from 0 to 1"),
        ({"optimizer": "adm"}, "did you mean 'adam'"),
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
        ({"precision": "fp8"}, "precision must be one of float32, bf16, fp16"),
        ({"stop_on": "acc"}, "stop_on must be one of nll, brier, ece, accuracy"),
        ({"patience": 0}, "patience must be at least 1"),
        ({"compile": "fast"}, "compile must be one of default"),
        ({"checkpoints": "folder", "seed": None}, "checkpoints need a seed"),
        ({"loss_on": "mean_logits", "per_member_targets": True}, "leave per_member_targets"),
    ],
)
def test_an_option_is_checked_when_the_plan_is_made(options, message):
    with pytest.raises(ValueError, match=message):
        TrainingPlan(**options)


def test_checkpoints_store_the_settings_that_they_always_did():
    stored = json.loads(STORED.read_text())["state"]["about"]
    plan = TrainingPlan(epochs=6, batch_size=15, lr=0.01, average=0.9, seed=4, patience=3)
    settings = plan.resume_settings(CrossEntropy(), cooldown=0.1, seed=4)
    assert settings == {name: stored[name] for name in settings}
    assert list(settings) == list(stored)[4:]


def test_rates_of_an_optimiser_of_the_users_own_are_no_setting():
    plan = TrainingPlan(optimizer=torch.optim.NAdam)
    settings = plan.resume_settings(Huber(), cooldown=0.0, seed=0)
    assert settings["optimizer"] == "NAdam"
    assert not {"lr", "weight_decay", "cooldown", "warmup"} & settings.keys()


@pytest.mark.usefixtures("as_users_run_it")
def test_a_history_says_and_stores_with_which_options():
    model = be.BatchEnsemble(nn.Linear(2, 2), members=2)
    data = torch.randn(8, 2), torch.arange(8) % 2
    options = {"epochs": np.int64(1), "class_weight": torch.tensor([1.0, 2.0]), "label": "mine"}
    history = be.fit(model, data, gradient_checkpointing=False, **options)
    assert str(history).endswith("options: epochs=1, class_weight=[1.0, 2.0]")
    assert "label" not in history.plan
    assert History.from_dict(json.loads(json.dumps(history.to_dict()))).plan == history.plan


def test_a_resumed_training_has_the_plan_of_now(tmp_path):
    data = torch.randn(8, 2), torch.arange(8) % 2
    options = {"checkpoints": tmp_path, "cooldown": 0.0}
    be.fit(be.Single(nn.Linear(2, 2)), data, epochs=1, **options)
    history = be.fit(be.Single(nn.Linear(2, 2)), data, epochs=2, resume=True, **options)
    assert history.epochs == history.plan["epochs"] == 2
