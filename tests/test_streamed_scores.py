"""Scores that are added up block by block are those of all examples at once."""

import numpy as np
import pytest
import torch
from torch import nn

import batchensemble as be
from batchensemble.streamed_scores import score_blocks

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
