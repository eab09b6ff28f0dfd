"""Every rank-one twin is a loop over plain layers whose weights are merged by the formulas."""

import pytest
import torch
from torch import nn

from batchensemble.layers.rank_one.fast_weights import Layout
from catalogue import RANK_ONE
from reference import MEMBERS, OPTIONS, build, check, gradcheck

# Padding withholds gradients that finite differences see; tests of the embedding look at them.
SMOOTH = {name: case for name, case in RANK_ONE.items() if name != "embedding with padding"}


@pytest.mark.parametrize("batch", [0, 1, 4])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("case", RANK_ONE.values(), ids=RANK_ONE)
def test_a_twin_is_the_loop_over_its_members_and_so_are_its_gradients(case, options, batch):
    layer = case.make()
    check(case, layer, build(layer, **options), options, batch)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("case", SMOOTH.values(), ids=SMOOTH)
def test_the_gradients_of_a_twin_are_its_slopes(case, options):
    assert gradcheck(case, build(case.make(), **options))


@pytest.mark.parametrize(
    ("layout", "multiplicative", "additive"),
    [
        (Layout((4, 3)), (3, 4), (3, 4)),
        (Layout((4, 3), inputs_first=True), (4, 3), (4, 3)),
        (Layout((6, 2, 5), groups=3), (6, 6), (10, 6)),
        (Layout((6, 2, 5), inputs_first=True, groups=3), (6, 6), (6, 10)),
        (Layout((2, 3, 4)), (3, 2), (12, 2)),
    ],
)
def test_vectors_are_as_long_as_the_inputs_and_the_outputs(layout, multiplicative, additive):
    assert layout.sizes("multiplicative") == multiplicative
    assert layout.sizes("additive") == additive


def test_each_group_of_a_convolution_has_its_own_inputs_and_outputs():
    layer = nn.Conv1d(4, 4, 1, groups=2, bias=False)
    twin = build(layer)
    with torch.no_grad():
        layer.weight.fill_(1.0)
        twin.r.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
        twin.s.copy_(torch.tensor([1.0, 10.0, 100.0, 1000.0]))
    expected = [[1.0, 2.0], [10.0, 20.0], [300.0, 400.0], [3000.0, 4000.0]]
    assert twin.merged_weight(0).squeeze(-1).tolist() == expected


@pytest.mark.parametrize("name", ["linear", "conv 2d", "lstm", "gru cell", "bilinear", "embedding"])
def test_every_parameter_has_a_role(name):
    layer = RANK_ONE[name].make()
    twin = build(layer)
    roles = twin.roles()
    assert set(roles) == {name for name, _ in twin.named_parameters()}
    matrices = {name for name, each in layer.named_parameters() if each.dim() > 1}
    assert {name for name, role in roles.items() if role == "shared"} == matrices
    assert {name for name, role in roles.items() if role == "bias"} == {
        name for name, _ in layer.named_parameters() if "bias" in name
    }
    assert sum(role == "fast" for role in roles.values()) == 2 * len(matrices)


def test_a_frozen_weight_is_bent_by_fast_weights_that_are_trained():
    layer = nn.Linear(4, 3).requires_grad_(False)
    twin = build(layer)
    trained = {name for name, each in twin.named_parameters() if each.requires_grad}
    assert trained == {"r", "s"}
    twin(torch.randn(MEMBERS, 4)).sum().backward()
    assert twin.r.grad.any()


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_weight_that_cannot_be_reached_leaves_the_fast_weights_as_they_were(options):
    twin = build(nn.Linear(6, 5), **options)
    before = twin.r.clone(), twin.s.clone()
    assert not twin.fast_weights().put(1, torch.randn(5, 6))
    assert torch.equal(twin.r, before[0])
    assert torch.equal(twin.s, before[1])
    assert twin.fast_weights().put(1, twin.merged_weight(0))


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
@pytest.mark.parametrize("mode", ["multiplicative", "additive"])
def test_a_weight_that_is_no_number_cannot_be_reached(mode, broken):
    twin = build(nn.Linear(3, 3), mode=mode)
    target = twin.merged_weight(0).detach().clone().fill_diagonal_(broken)
    assert not twin.fast_weights().put(1, target)


def test_twins_share_the_weight_itself_and_each_member_owns_its_vectors():
    layer = nn.Conv2d(2, 4, 3)
    twin = build(layer)
    assert twin.weight is layer.weight
    assert (twin.r.shape, twin.s.shape, twin.bias.shape) == ((3, 2), (3, 4), (3, 4))
