"""A network gets further outputs; those that it has stay."""

import pytest
import torch
from torch import nn

from batchensemble.ensembles.widening import widen_outputs


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(4, 3), (5, 4)),
        (nn.Linear(4, 3, bias=False), (5, 4)),
        (nn.Conv1d(4, 3, 2), (5, 4, 6)),
        (nn.Conv2d(4, 3, 1), (5, 4, 2, 2)),
    ],
)
def test_outputs_stay_and_the_new_ones_are_0(layer, shape):
    network, x = nn.Sequential(nn.Identity(), layer), torch.randn(shape)
    before = network(x)
    widen_outputs(network, 2)
    after = network(x)
    torch.testing.assert_close(after[:, :3], before)
    assert after.shape[1] == 5
    assert not after[:, 3:].any()


def test_a_last_layer_that_cannot_be_widened_is_named():
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    with pytest.raises(ValueError, match="'1', shares its weight with another layer"):
        widen_outputs(tied, 1)
    with pytest.raises(ValueError, match=r"'0', has groups .* network with 1 more outputs"):
        widen_outputs(nn.Sequential(nn.Conv1d(4, 4, 1, groups=2)), 1)
    with pytest.raises(ValueError, match="'0', a LayerNorm"):
        widen_outputs(nn.Sequential(nn.LayerNorm(4)), 1)
    with pytest.raises(ValueError, match="none with weights"):
        widen_outputs(nn.ReLU(), 1)
