"""Scores that are added up block by block are those of all examples at once."""

import numpy as np
import pytest
import torch
from torch import nn

import batchensemble as be
from batchensemble.losses import as_loss
from batchensemble.metrics import score
from batchensemble.metrics.by_example import contributions
from batchensemble.metrics.streaming import score_blocks
from batchensemble.predictions import Normals

torch.manual_seed(0)
X, Y = torch.randn(300, 4).numpy(), torch.randint(5, (300,)).numpy()


@pytest.mark.parametrize("size", [1, 7, 100, 300, 400])
@pytest.mark.parametrize("kind", [be.BatchEnsemble, be.DeepEnsemble])
def test_blocks_of_any_size_give_the_scores_of_the_whole(kind, size):
    torch.manual_seed(1)
    model = kind(nn.Linear(4, 5), 3)
    blocks = [(X[start : start + size], Y[start : start + size]) for start in range(0, 300, size)]
    found, expected = score_blocks(model, blocks), be.evaluate(model, (X, Y))
    assert list(found) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("size", [70, 300])
@pytest.mark.parametrize(("loss", "outputs"), [("mse", 1), ("gaussian_nll", 2), ("quantile", 3)])
def test_blocks_of_numbers_give_the_scores_of_the_whole(loss, outputs, size):
    torch.manual_seed(1)
    model = be.BatchEnsemble(nn.Linear(4, outputs), 3)
    y = 1e4 + X[:, 0]
    be.fit(model, (X, y), loss=loss, standardise_targets=True, epochs=1)
    blocks = [(X[start : start + size], y[start : start + size]) for start in range(0, 300, size)]
    found, expected = score_blocks(model, blocks), be.evaluate(model, (X, y))
    assert list(found) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-6)


def test_no_examples_and_labels_that_are_no_class_are_refused():
    model = be.Single(nn.Linear(4, 5))
    with pytest.raises(ValueError, match="at least one example to score, got none"):
        score_blocks(model, [])
    with pytest.raises(ValueError, match="labels must be from 0 to 4, got 0 to 9"):
        score_blocks(model, [(X[:2], np.array([0, 9]))])


def assert_close(found, expected) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-9, err_msg=name)


def in_blocks(y, size: int = 70):
    return [(X[start : start + size], y[start : start + size]) for start in range(0, 300, size)]


@pytest.mark.parametrize("value", [5.0, 0.1, -1e9])
@pytest.mark.parametrize("loss", ["mse", "gaussian_nll", "quantile"])
def test_equal_targets_have_no_share_of_variance_on_any_path(value, loss):
    torch.manual_seed(1)
    model = be.BatchEnsemble(nn.Linear(4, {"mse": 1, "gaussian_nll": 2, "quantile": 3}[loss]), 3)
    model.loss = as_loss(loss)
    y = np.full(300, value)
    with pytest.warns(UserWarning, match="R² is NaN: all 300 targets are .*, so there"):
        found = score_blocks(model, in_blocks(y))
    with pytest.warns(UserWarning, match="R² is NaN"):
        expected = score(be.predict(model, X), y)
    assert np.isnan(expected["r2"])
    assert_close(found, expected)
    assert np.isnan(score(be.predict(model, X[:1]), y[:1])["r2"])


def test_blocks_of_equal_targets_do_not_warn_where_those_of_all_differ():
    torch.manual_seed(1)
    model = be.BatchEnsemble(nn.Linear(4, 1), 3)
    model.loss = as_loss("mse")
    y = np.arange(300) // 70 / 4
    assert_close(score_blocks(model, in_blocks(y)), score(be.predict(model, X), y))


def test_equal_targets_have_no_share_of_variance_to_resample():
    prediction = Normals(np.ones((4, 2)), np.ones((4, 2)))
    assert contributions("r2", [prediction], np.full(4, 0.1)) is None
    assert contributions("r2", [prediction], np.arange(4.0)) is not None


@pytest.mark.parametrize("size", [7, 70])
def test_blocks_count_by_the_targets_that_are_known(size):
    torch.manual_seed(1)
    y = np.stack([X[:, 0], X[:, 1]], 1).astype(np.float64)
    y[:75] = np.nan  # whole blocks too
    y[100:200:3, 1] = np.nan
    for loss, targets in (("mse", y), ("binary_cross_entropy", np.where(np.isnan(y), y, y > 0))):
        model = be.BatchEnsemble(nn.Linear(4, 2), 3)
        model.loss = as_loss(loss)
        found = score_blocks(model, in_blocks(targets, size))
        assert_close(found, score(be.predict(model, X), targets))


@pytest.mark.parametrize("size", [7, 300])
def test_blocks_leave_out_what_the_loss_ignores(size):
    torch.manual_seed(1)
    model = be.BatchEnsemble(nn.Linear(4, 5), 3)
    model.loss = as_loss("cross_entropy", ignore_index=3)
    y = np.sort(Y)  # whole blocks are ignored too
    assert_close(score_blocks(model, in_blocks(y, size)), be.evaluate(model, (X, y)))
