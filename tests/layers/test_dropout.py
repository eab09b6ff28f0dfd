"""Dropout by random bytes: how much is dropped, what is kept, and where it is torch's."""

import pytest
import torch
from torch import nn

from batchensemble.layers.dropout import ByteDropout


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5, 0.9])
def test_the_nearest_256th_is_dropped_and_the_mean_stays(p):
    torch.manual_seed(0)
    x = torch.ones(400_001)  # no multiple of 8
    y = ByteDropout(p)(x)
    share = round(256 * p) / 256
    assert float((y == 0).float().mean()) == pytest.approx(share, abs=0.003)
    assert sorted(y.unique().tolist()) == pytest.approx([0, 1 / (1 - share)])
    assert float(y.mean()) == pytest.approx(1, abs=0.02)


def test_elements_are_dropped_independently():
    torch.manual_seed(0)
    kept = (ByteDropout(0.5)(torch.ones(2_000, 64)) > 0).float()
    correlations = torch.corrcoef(kept.t()) - torch.eye(64)
    assert float(correlations.abs().max()) < 0.1


def test_the_gradient_passes_where_the_value_does():
    x = torch.randn(8, 32, requires_grad=True)
    y = ByteDropout(0.5)(x)
    y.sum().backward()
    torch.testing.assert_close(x.grad * x, y)


def test_the_generator_decides():
    x = torch.ones(100)
    torch.manual_seed(3)
    first = ByteDropout(0.3)(x)
    torch.manual_seed(3)
    assert torch.equal(first, ByteDropout(0.3)(x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_type_stays(dtype):
    assert ByteDropout(0.3)(torch.ones(3, 5, dtype=dtype)).dtype == dtype


def test_nothing_is_dropped_in_evaluation():
    x = torch.randn(5)
    assert ByteDropout(0.9).eval()(x) is x
    assert ByteDropout(0.0)(x) is x


@pytest.mark.parametrize(("p", "left"), [(0.001, 1 / 0.999), (1.0, 0.0)])
def test_what_no_256th_is_near_to_is_torchs(p, left):
    torch.manual_seed(0)
    assert float(ByteDropout(p)(torch.ones(1))) == pytest.approx(left)


def test_it_runs_under_vmap():
    layer = ByteDropout(0.5)
    run = torch.func.vmap(layer, randomness="different")
    assert run(torch.ones(3, 100)).shape == (3, 100)


def test_it_is_a_dropout_to_whoever_asks():
    assert isinstance(ByteDropout(0.1), nn.Dropout)
