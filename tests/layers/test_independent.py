"""Layers of each member's own: copies of any module, and weights stacked where that is faster."""

import copy

import pytest
import torch
from torch import nn

from batchensemble.layers import Independent, OneByOne
from batchensemble.layers.base.rows import running
from batchensemble.layers.registry import INDEPENDENT
from catalogue import ALL_NORMS, ATTENTIONS, LINEAR, RECURRENT
from reference import (
    MEMBERS,
    assert_same,
    build,
    drawn,
    gradients,
    joined,
    parts_of,
    tensors_in,
)

STACKED = {
    name: case
    for name, case in {**LINEAR, **ALL_NORMS, **ATTENTIONS, **RECURRENT}.items()
    if type(case.make()) in INDEPENDENT
}


def own_gradients(twin, index):
    """Return the gradients of member ``index``'s tensors, by the plain layer's names."""
    if isinstance(twin, Independent):
        return {name: each.grad for name, each in twin.copies[index].named_parameters()}
    grads = {name: each.grad[index] for name, each in twin.named_parameters()}
    if grads and "weight" in grads and grads["weight"].shape != twin.shell.weight.shape:
        grads = {"weight": grads["weight"].t(), "bias": grads.get("bias", torch.zeros(1))[0]}
    return grads


def test_the_catalogue_has_every_class_of_the_registry_but_one_that_trains_on_a_gpu():
    kinds = {type(case.make()) for case in STACKED.values()}
    assert kinds == set(INDEPENDENT) - {nn.SyncBatchNorm}


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("case", STACKED.values(), ids=STACKED)
def test_layers_of_ones_own_are_the_loop_and_so_are_their_gradients_and_statistics(case, training):
    layers = [drawn(case.make()).train(training) for _ in range(MEMBERS)]
    twin = INDEPENDENT[type(layers[0])]([copy.deepcopy(layer) for layer in layers])
    parts = parts_of(case, 4)
    rows = joined(parts, case.axes)
    outputs = twin(*rows)
    expected = joined([f(*part) for f, part in zip(layers, parts, strict=True)], case.output_axes)
    assert_same(outputs, expected)
    inputs = tensors_in(parts)
    assert_same(gradients(outputs, inputs), gradients(expected, inputs))
    for each in (twin(*rows), [f(*part) for f, part in zip(layers, parts, strict=True)]):
        sum(tensor.pow(3).sum() for tensor in tensors_in(each)).backward()
    for index, layer in enumerate(layers):
        grads = own_gradients(twin, index)
        for name, parameter in layer.named_parameters():
            torch.testing.assert_close(grads[name], parameter.grad)


@pytest.mark.parametrize("case", STACKED.values(), ids=STACKED)
def test_layers_of_ones_own_come_out_as_they_went_in(case):
    layers = [drawn(case.make()) for _ in range(MEMBERS)]
    twin = INDEPENDENT[type(layers[0])]([copy.deepcopy(layer) for layer in layers])
    assert twin.sharing == "independent"
    twin.put(1, layers[0])
    twin.keep([2, 1])
    for index, layer in enumerate((layers[2], layers[0])):
        member = twin.member(index)
        assert type(member) is type(layer)
        state = layer.state_dict()
        assert list(member.state_dict()) == list(state)
        assert all(torch.equal(state[name], value) for name, value in member.state_dict().items())
    part = case.inputs(2)
    with running(member=0):
        assert_same(twin.eval()(*part), layers[2].eval()(*part))


def test_each_copy_sees_its_members_rows():
    copies = [nn.Linear(4, 2) for _ in range(3)]
    rows = torch.randn(3 * 5, 4)
    expected = torch.cat([copies[i](rows[5 * i : 5 * i + 5]) for i in range(3)])
    assert torch.equal(Independent(copies)(rows), expected)


def test_modules_that_mix_rows_mix_only_their_members():
    twin = Independent([nn.BatchNorm1d(2) for _ in range(2)])
    rows = torch.cat([torch.randn(50, 2), 100 + torch.randn(50, 2)])
    outputs = twin(rows)
    for part in outputs.chunk(2):
        torch.testing.assert_close(part.mean(0), torch.zeros(2), atol=1e-4, rtol=0)


def test_images_keep_their_axes():
    twin = Independent([nn.Conv2d(3, 6, 3, padding=1) for _ in range(2)])
    assert twin(torch.zeros(8, 3, 5, 5)).shape == (8, 6, 5, 5)


def test_no_examples_give_no_rows():
    twin = Independent([nn.Linear(4, 2) for _ in range(3)])
    assert twin(torch.zeros(0, 4)).shape == (0, 2)


def test_a_member_is_a_copy_of_its_module():
    copies = [nn.Linear(4, 2) for _ in range(3)]
    member = Independent(copies).member(1)
    assert member is not copies[1]
    assert torch.equal(member.weight, copies[1].weight)
    with torch.no_grad():
        member.weight.zero_()
    assert copies[1].weight.any()


def test_what_networks_read_of_a_module_is_the_first_copys():
    twin = Independent([nn.Linear(4, 2) for _ in range(3)])
    assert twin.out_features == 2
    assert twin.weight is twin.copies[0].weight
    with pytest.raises(AttributeError):
        _ = twin.nonsense


def test_keeping_members_copies_them():
    twin = Independent([nn.Linear(4, 2) for _ in range(3)])
    first = twin.copies[0]
    twin.keep([2, 0])
    assert twin.members == 2
    assert torch.equal(twin.copies[1].weight, first.weight)
    assert twin.copies[1] is not first


class Router(nn.Module):
    """Sends each row to one of two layers, so that rows end up in no order of members."""

    def __init__(self, layer):
        super().__init__()
        self.experts = nn.ModuleList([layer(), layer()])

    def forward(self, x, flip=False):
        y = torch.zeros(len(x), 2)
        chosen = (x[:, 0] > 0).long() if not flip else (x[:, 0] <= 0).long()
        for index, expert in enumerate(self.experts):
            y[chosen == index] = expert(x[chosen == index])
        return y, None


def test_a_module_that_runs_once_a_member_gives_it_that_members_rows_alone():
    plain = Router(lambda: nn.Linear(4, 2))
    module = copy.deepcopy(plain)
    module.experts = nn.ModuleList([build(each) for each in module.experts])
    twin = OneByOne(module, MEMBERS)
    x = torch.randn(MEMBERS * 5, 4)
    outputs, nothing = twin(x, flip=True)
    assert nothing is None
    for index, part in enumerate(x.chunk(MEMBERS)):
        for each, expert in zip(plain.experts, module.experts, strict=True):
            each.load_state_dict(expert.member(index).state_dict())
        assert_same(outputs[5 * index : 5 * index + 5], plain(part, flip=True)[0])
    outputs.sum().backward()
    assert all(parameter.grad.any() for parameter in twin.parameters())


def test_a_module_that_runs_once_a_member_runs_once_where_one_member_runs():
    module = build(nn.Linear(4, 2))
    x = torch.randn(5, 4)
    with running(member=2):
        assert_same(OneByOne(module, MEMBERS)(x), module.member(2)(x))
