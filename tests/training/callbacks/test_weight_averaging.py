"""A moving average of the weights is scored, and stays in their place."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import batchensemble as be

torch.manual_seed(0)
X, Y = torch.randn(200, 4), torch.randint(2, (200,))


def build():
    torch.manual_seed(1)
    return be.BatchEnsemble(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)), 3)


class Reference(be.Callback):
    """The same by torch's own class, with the decay of a long average."""

    def on_start(self, run):
        self.average = AveragedModel(run.model, multi_avg_fn=get_ema_multi_avg_fn(0.5))
        self.average.update_parameters(run.model)

    def on_step(self, run):
        self.average.update_parameters(run.model)


def test_it_is_torchs_once_the_start_is_forgotten():
    model = build()
    options = {"epochs": 5, "batch_size": 10, "cooldown": 0.0}
    be.fit(model, (X, Y), average=0.5, callbacks=[reference := Reference()], **options)
    for own, theirs in zip(model.parameters(), reference.average.module.parameters(), strict=True):
        torch.testing.assert_close(own, theirs, rtol=1e-3, atol=1e-4)


def test_it_is_what_is_scored_and_what_stays():
    model, plain = build(), build()
    options = {"epochs": 3, "batch_size": 10, "validation": (X, Y), "lr": 0.05}
    history = be.fit(model, (X, Y), average=0.99, **options)
    assert be.evaluate(model, (X, Y))["nll"] == pytest.approx(history.validation_nll[-1], rel=1e-4)
    last = be.fit(plain, (X, Y), **options)
    assert last.losses == history.losses
    assert last.validation_nll != history.validation_nll


@pytest.mark.parametrize("decay", [1.5, -0.1])
def test_its_decay_is_a_share(decay):
    with pytest.raises(ValueError, match="average must be a number from 0 to 1"):
        be.fit(build(), (X, Y), average=decay)
