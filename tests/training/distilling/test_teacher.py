"""An ensemble tells what it predicts, and the loss is lowest where a network predicts that."""

import numpy as np
import pytest
import torch
from torch import nn

import batchensemble as be
from batchensemble.core.inputs import Nested
from batchensemble.losses import FromTeacher, as_distilled, from_dict, to_dict
from batchensemble.predictions import reading
from batchensemble.training.distilling.inputs import mixtures
from batchensemble.training.distilling.teacher import told_by

torch.manual_seed(0)
X = torch.randn(40, 3)
LOSSES = {
    "cross_entropy": 3,
    "ordinal": 2,
    "binary_cross_entropy": 2,
    "gaussian_nll": 4,
    "mse": 2,
}


def model_of(name):
    torch.manual_seed(1)
    model = be.DeepEnsemble(nn.Linear(3, LOSSES[name]), members=4).double()
    model.loss = be.losses.as_loss(name)
    return model


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_is_lowest_where_the_network_predicts_as_the_ensemble(name):
    model = model_of(name)
    loss = as_distilled(model.loss)
    told = told_by(model, model.loss, X.double()).double()
    outputs = torch.zeros(40, 1, loss.outputs_for(told.shape[1]), dtype=torch.float64)
    outputs.requires_grad_()
    optimiser = torch.optim.LBFGS([outputs], max_iter=500, tolerance_grad=1e-9)

    def total():
        optimiser.zero_grad()
        found = FromTeacher(loss)(outputs, told).sum()
        found.backward()
        return found

    optimiser.step(total)
    reader = reading(loss)
    found, whole = reader.make(*reader.of(outputs.detach())), be.predict(model, X.double())
    for part in ("total", "aleatoric", "epistemic"):
        expected = getattr(whole, part)
        np.testing.assert_allclose(getattr(found, part), expected, rtol=0.02, atol=1e-3)
    mean = "mean" if hasattr(whole, "mean") else "probs"
    np.testing.assert_allclose(getattr(found, mean), getattr(whole, mean), rtol=0.01, atol=1e-3)


@pytest.mark.parametrize("name", LOSSES)
def test_what_outputs_mean_is_stored_as_json(name):
    loss = as_distilled(be.losses.as_loss(name))
    assert from_dict(to_dict(loss)) == loss
    if name in ("gaussian_nll", "mse"):
        loss = be.losses.Standardised(loss, [1.0], [2.0])
        assert from_dict(to_dict(loss)) == loss


def test_calibrated_probabilities_are_told():
    model = model_of("cross_entropy").float()
    y = be.predict(model, X).labels
    y[::3] = 0
    calibrated = be.calibrate(model, (X, y), pooling="after")
    told = told_by(calibrated, calibrated.loss, X)
    expected = be.predict(calibrated, X)
    np.testing.assert_allclose(told[:, :3], expected.probs, atol=1e-6)
    np.testing.assert_allclose(told[:, 3:].sum(1), expected.total, atol=1e-6)


def test_the_nll_on_labels_is_that_of_the_logits():
    outputs, y = torch.randn(8, 1, 4), torch.arange(8) % 3
    loss = be.losses.DistilledClasses()
    expected = be.losses.CrossEntropy()(outputs[:, :, :3], y)
    torch.testing.assert_close(loss(outputs, y), expected)
    with pytest.raises(ValueError, match="from 0 to 2"):
        loss.check((8, 1, 4), torch.tensor([3]))


def test_mixtures_stay_on_the_line_or_take_entries():
    generator = torch.Generator().manual_seed(0)
    x = torch.stack([torch.zeros(6), torch.ones(6)])
    between = mixtures(x, 500, "average", generator)
    assert (between == between[:, :1]).all()
    assert between.min() >= -0.5
    assert between.max() <= 1.5
    assert between.min() < -0.3
    exchanged = mixtures(x, 500, "exchange", generator)
    assert set(exchanged.unique().tolist()) == {0.0, 1.0}
    assert (exchanged != exchanged[:, :1]).any()
    whole = mixtures(x.long(), 50, "average", generator)
    assert whole.dtype == torch.int64
    both = mixtures(Nested({"ids": x.long(), "mask": x.bool()}), 50, "average", generator).values
    assert torch.equal(both["ids"].bool(), both["mask"])
    assert torch.equal(mixtures(x, 9, lambda some: some + 5, generator).unique(), x.unique() + 5)
