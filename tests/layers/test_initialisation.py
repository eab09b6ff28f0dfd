"""Fast weights start as the table of ``initialisation`` says."""

import pytest
import torch
from torch import nn

from batchensemble.layers import RankOneLinear

MEMBERS = 4


def twin(**options):
    torch.manual_seed(0)
    return RankOneLinear(nn.Linear(200, 100), MEMBERS, **options)


def test_the_default_is_random_signs_or_a_normal_addition():
    for mode, name in (("multiplicative", "random_sign"), ("additive", "normal")):
        assert torch.equal(twin(mode=mode).r, twin(mode=mode, init=name).r)


def test_random_signs_are_both_and_nothing_else():
    for fast in (twin(init="random_sign").r, twin(init="random_sign").s):
        assert fast.unique().tolist() == [-1.0, 1.0]
        assert abs(fast.mean()) < 0.2


def test_random_signs_only_mirror_the_shared_weight():
    layer = twin(init="random_sign")
    for index in range(MEMBERS):
        assert torch.equal(layer.merged_weight(index).abs(), layer.weight.abs())
    assert not torch.equal(layer.merged_weight(0), layer.merged_weight(1))


def test_normal_scales_each_unit_around_one():
    layer = twin(init="normal")
    assert layer.r.mean().item() == pytest.approx(1.0, abs=0.1)
    assert layer.r.std().item() == pytest.approx(0.5, abs=0.1)


def test_an_additive_normal_start_adds_a_weight_of_the_layers_own_size():
    for rank in (1, 4):
        layer = twin(mode="additive", rank=rank)
        added = torch.stack([layer.merged_weight(i) - layer.weight for i in range(MEMBERS)])
        assert added.std().item() == pytest.approx(layer.weight.std().item(), rel=0.3)


@pytest.mark.parametrize(("mode", "init"), [("multiplicative", "ones"), ("additive", "zeros")])
def test_ones_and_zeros_start_all_members_as_the_network_itself(mode, init):
    layer = twin(mode=mode, init=init)
    for index in range(MEMBERS):
        assert torch.equal(layer.merged_weight(index), layer.weight)


def test_members_that_start_alike_in_additive_mode_can_still_part():
    layer = twin(mode="additive", init="zeros")
    layer(torch.randn(MEMBERS * 3, 200)).pow(2).sum().backward()
    assert layer.s.grad.any()


def test_a_function_of_ones_own_fills_the_twin_in_place():
    def halves(layer):
        layer.r.fill_(0.5)
        layer.s.fill_(2.0)

    layer = twin(init=halves)
    assert torch.equal(layer.merged_weight(0), layer.weight)
    assert layer.r.requires_grad
    assert layer.r.unique().tolist() == [0.5]


@pytest.mark.parametrize(
    ("mode", "init", "hint"),
    [
        ("multiplicative", "random_sing", "did you mean 'random_sign'"),
        ("additive", "zero", "did you mean 'zeros'"),
        ("multiplicative", "zeros", "must be one of random_sign, normal, ones"),
        ("additive", "random_sign", "must be one of normal, zeros"),
    ],
)
def test_a_name_that_the_mode_lacks_is_refused_with_those_it_has(mode, init, hint):
    with pytest.raises(ValueError, match=hint):
        twin(mode=mode, init=init)
