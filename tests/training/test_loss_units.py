"""Losses of standardised targets are told in the unit of the targets, as scores are."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import batchensemble as be
from batchensemble.losses.standardised import LossUnit, Standardised, unit_of
from batchensemble.training import preparation
from batchensemble.training import run as run_module
from batchensemble.training.callbacks import validation

generator = torch.Generator().manual_seed(0)
X = torch.randn(60, 2, generator=generator)
NUMBERS = 300 + 40 * X[:, 0] + torch.randn(60, generator=generator)
SCALE = float(NUMBERS.std(unbiased=False))


def trained_on_numbers(loss: str, outputs: int, **options):
    torch.manual_seed(0)
    model = be.BatchEnsemble(nn.Linear(2, outputs), members=2)
    data = X, NUMBERS
    fixed = {"loss": loss, "standardise_targets": True, "epochs": 4, "seed": 0}
    return model, be.fit(model, data, validation=data, **{**fixed, **options})


@pytest.mark.parametrize(
    ("loss", "outputs", "score"),
    [("gaussian_nll", 2, "nll"), ("mse", 1, "rmse")],
)
def test_held_out_losses_are_in_the_unit_of_the_scores(loss, outputs, score):
    model, history = trained_on_numbers(loss, outputs)
    found = be.evaluate(model, (X, NUMBERS))[score]
    assert history.validation_nll[-1] == pytest.approx(
        found**2 if score == "rmse" else found, rel=1e-4
    )
    assert history.evaluations[-1]["nll"] == history.validation_nll[-1]
    assert "of standardised" not in str(history)


def test_training_losses_are_in_the_unit_too(tmp_path):
    path = tmp_path / "lines.jsonl"
    lines = be.JsonLines(path, every=1)
    _, history = trained_on_numbers("gaussian_nll", 2, callbacks=[lines], lr=1e-9, epochs=1)
    model, still = trained_on_numbers("gaussian_nll", 2, lr=1e-9, epochs=1)
    with torch.no_grad():
        own = model.loss.loss(model(X), (NUMBERS - NUMBERS.mean()) / SCALE).mean(0)
    expected = (own + np.log(SCALE)).tolist()
    assert history.member_losses[-1] == pytest.approx(expected, rel=1e-4)
    assert history.losses == still.losses
    logged = [json.loads(line) for line in path.read_text().splitlines()]
    steps = [each["losses"] for each in logged if each["event"] == "step"]
    assert steps == [pytest.approx(expected, rel=1e-4)]
    assert history.last_batch_losses == pytest.approx([np.mean(expected)], rel=1e-4)


def test_a_checkpoint_of_an_earlier_version_goes_on_in_the_unit(tmp_path, monkeypatch):
    class Stop(be.Callback):
        def on_epoch(self, run):
            if run.epoch == 2:
                raise KeyboardInterrupt

    options = {"loss": "gaussian_nll", "outputs": 2, "patience": 3, "epochs": 6}
    _, expected = trained_on_numbers(**options)
    with monkeypatch.context() as earlier:
        plain = LossUnit()
        earlier.setattr(run_module, "unit_of", lambda _: plain)
        earlier.setattr(validation, "unit_of", lambda _: plain)
        earlier.setattr(preparation, "is_standardised", lambda _: True)
        state_dict = validation.EarlyStopping.state_dict
        earlier.setattr(validation.EarlyStopping, "state_dict", lambda self: {
            name: each for name, each in state_dict(self).items() if name != "in_unit_of_targets"
        })  # fmt: skip
        with pytest.raises(KeyboardInterrupt):
            trained_on_numbers(**options, checkpoints=tmp_path, callbacks=[Stop()])
    _, resumed = trained_on_numbers(**options, checkpoints=tmp_path, resume=True)
    assert resumed.standardised is False
    assert resumed.losses == pytest.approx(expected.losses)
    assert resumed.validation_nll == pytest.approx(expected.validation_nll)
    assert resumed.stopped == expected.stopped


@pytest.mark.parametrize(
    ("loss", "outputs"), [("gaussian_nll", 2), ("mse", 1), ("huber", 1), ("quantile", 3)]
)
def test_the_formulas_are_those_of_the_loss_of_larger_targets(loss, outputs):
    """Computed from outputs in the unit of the targets by the loss itself."""
    plain = be.losses.as_loss(loss)
    y, out = 300 + 40 * X[:, :1], torch.randn(60, 2, outputs, generator=generator)
    standard = Standardised(plain, [300.0], [40.0])
    found = unit_of(standard)(standard(out, y).mean().item())
    if loss == "gaussian_nll":
        mean, deviation = (each.double() for each in plain.distribution(out))
        expected = -torch.distributions.Normal(300 + 40 * mean, 40 * deviation).log_prob(y[:, None])
        assert found == pytest.approx(expected.mean().item(), rel=1e-4)
        return
    own = be.losses.Huber(40 * plain.delta) if loss == "huber" else plain
    assert found == pytest.approx(own(300 + 40 * out, y).mean().item(), rel=1e-4)


def test_targets_of_one_unit_are_converted_and_others_are_not():
    assert unit_of(Standardised(be.losses.MSE(), [0, 1], [3, 3])) == LossUnit(9.0)
    assert unit_of(Standardised(be.losses.MSE(), [0, 1], [3, 4])) is None
    assert unit_of(be.losses.MSE()) == LossUnit()
