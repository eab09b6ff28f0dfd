"""Gradient checkpointing keeps less and trains the same, statistics and dropout included."""

import pytest
import torch
from torch import nn

import batchensemble as be
from batchensemble.ensembles.base import ForwardError
from batchensemble.training.gradient_checkpointing import checkpointed

torch.manual_seed(0)
IMAGES, CLASSES = torch.randn(12, 3, 8, 8, dtype=torch.float64), torch.randint(2, (12,))


class Block(nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.conv = nn.Conv2d(inputs, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.drop = nn.Dropout(0.3)

    def forward(self, x):
        return self.drop(self.norm(self.conv(x)).relu())


def network():
    torch.manual_seed(1)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2))
    return nn.Sequential(Block(3), Block(6), head).double()


def trained(method, which):
    torch.manual_seed(2)
    model = method(network(), 3)
    be.fit(model, (IMAGES, CLASSES), epochs=3, batch_size=6, gradient_checkpointing=which)
    return model


@pytest.mark.parametrize("which", [True, ["0", "1"], "1.conv", "*.norm", Block])
@pytest.mark.parametrize("method", [be.BatchEnsemble, be.DeepEnsemble])
def test_the_weights_and_statistics_are_those_without(method, which):
    if method is be.DeepEnsemble and which not in (True, Block):
        which = "copies.*.1"  # its modules are those of the copies
    expected = trained(method, False).state_dict()
    found = trained(method, which).state_dict()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-10)


def test_less_is_kept_for_the_backward():
    def kept_with(which):
        model = be.BatchEnsemble(network(), 3)
        kept = {}

        def note(tensor):
            kept[tensor.data_ptr()] = tensor.nbytes
            return tensor

        hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda each: each)
        with checkpointed(model.network, which), hooks:
            model(IMAGES)
        return sum(kept.values())

    assert kept_with(True) < 0.5 * kept_with(False)


def test_the_forwards_of_the_modules_come_back_even_after_an_error():
    model = be.BatchEnsemble(network(), 3)
    own = model.network[1].forward = lambda x: Block.forward(model.network[1], x)
    with pytest.raises(ForwardError), checkpointed(model.network, True):
        model(torch.zeros(2, 5, 8, 8, dtype=torch.float64))
    assert "forward" not in model.network[0].__dict__
    assert model.network[1].forward is own


def test_a_chain_of_layers_has_no_blocks_to_run_again():
    model = be.BatchEnsemble(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), 3)
    with pytest.raises(ValueError, match="it has none; give the names"):
        be.fit(model, (torch.randn(4, 4), torch.zeros(4).long()), gradient_checkpointing=True)
    be.fit(model, (torch.randn(4, 4), torch.zeros(4).long()), epochs=1, gradient_checkpointing="0")


def test_a_name_that_is_none_is_refused():
    model = be.BatchEnsemble(network(), 3)
    with pytest.raises(ValueError, match="gradient_checkpointing names 'blocks'"):
        be.fit(model, (IMAGES, CLASSES), gradient_checkpointing="blocks")
