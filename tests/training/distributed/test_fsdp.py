"""Weights in pieces: which blocks are brought together, and what cannot be cut.

What becomes of them on several processes is in tests/training/distributed/test_processes.py.
"""

import sys

import pytest
import torch
from torch import nn

import batchensemble as be
from batchensemble.core.dtensor import as_held, whole, whole_on_first
from batchensemble.layers import Vmapped
from batchensemble.training.distributed.fsdp import blocks, shard, shard_ensemble


def block():
    return nn.Sequential(nn.Linear(2, 2), nn.ReLU())


def test_the_items_of_a_list_are_blocks_and_the_list_is_not():
    items = [block(), block()]
    assert blocks(nn.Sequential(nn.Linear(2, 2), nn.ModuleList(items))) == items


def test_a_block_that_shares_a_weight_is_left_to_the_network():
    first, second, third = block(), block(), block()
    head = nn.Linear(2, 2)
    second[0].weight = head.weight
    assert blocks(nn.ModuleList([first, second, third, head])) == [first, third]


def test_a_block_whose_layer_is_called_from_outside_is_left_to_the_network():
    first, second = block(), block()
    assert blocks(nn.ModuleList([first, second, second[0]])) == [first]


def test_a_block_that_stands_in_two_places_is_one():
    shared = block()
    assert blocks(nn.ModuleList([shared, shared])) == [shared]


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.scale = nn.Linear(2, 2), nn.Parameter(torch.ones(()))

    def reset_parameters(self):
        nn.init.ones_(self.scale)

    def forward(self, x):
        return self.linear(x) * self.scale


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (lambda: be.Single(Scaled()), "'scale' has none; make it of shape"),
        (
            lambda: be.Single(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double())),
            r"weights of one type, got torch\.float32, torch\.float64",
        ),
        (lambda: be.DeepEnsemble(Scaled(), 2, stacked=True), "under vmap .* stacked=False"),
    ],
)
def test_what_cannot_be_cut_is_refused(model, sentence):
    model = model()
    assert not isinstance(model, be.DeepEnsemble) or isinstance(model.network, Vmapped)
    with pytest.raises(ValueError, match=sentence):
        shard_ensemble(model, torch.device("cpu"))


def test_an_old_torch_is_told_from_a_new_one(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.distributed.fsdp", None)
    with pytest.raises(ImportError, match=f"and this is {torch.__version__.split('+')[0]}"):
        shard(nn.Linear(2, 2), torch.device("cpu"))


def test_what_is_whole_stays_as_it_is():
    tensor = torch.ones(2)
    assert whole(tensor) is whole_on_first(tensor) is as_held(tensor, torch.zeros(2)) is tensor
