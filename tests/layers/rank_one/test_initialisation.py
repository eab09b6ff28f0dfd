"""Fast weights start as the table of ``initialisation`` says."""

import pytest
import torch
from torch import nn

from batchensemble.layers import RankOneLinear, RankOneRecurrent
from batchensemble.layers.rank_one.initialisation import initialise
from reference import build

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


@pytest.mark.parametrize("options", [{}, {"mode": "additive", "rank": 2, "alpha": 3.0}])
def test_a_function_of_ones_own_gets_the_weight_and_fills_what_bends_it(options):
    seen = []

    def halves(fast):
        seen.append(fast)
        fast.r.fill_(0.5)
        fast.s.fill_(2.0)

    layer = twin(init=halves, **options)
    (fast,) = seen
    assert fast.weight is layer.weight
    assert fast.bias is layer.bias
    assert (fast.r is layer.r, fast.s is layer.s) == (True, True)
    assert (fast.mode, fast.scale, fast.std) == (
        options.get("mode", "multiplicative"),
        1.5 if options else 1.0,
        1.0 if options else 0.5,
    )
    assert layer.r.requires_grad
    assert layer.r.unique().tolist() == [0.5]
    expected = layer.weight + 1.5 * 2.0 if options else layer.weight
    torch.testing.assert_close(layer.merged_weight(0), expected)


def test_a_function_of_ones_own_is_called_for_each_weight_of_a_layer():
    shapes = []
    layer = nn.LSTM(3, 4, num_layers=2, proj_size=2)
    RankOneRecurrent(layer, MEMBERS, init=lambda fast: shapes.append(tuple(fast.weight.shape)))
    assert shapes == [tuple(w.shape) for n, w in layer.named_parameters() if "weight" in n]


def test_the_width_of_the_normal_start_is_ones_own():
    assert twin(init="normal", std=0.1).s.std().item() == pytest.approx(0.1, abs=0.03)


def test_tabm_starts_a_layer_as_itself():
    layer = twin(init="tabm")
    assert torch.equal(layer.merged_weight(1), layer.weight)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(8, 16, 3),
        nn.ConvTranspose2d(16, 8, 3),
        nn.Embedding(200, 16),
        nn.Bilinear(8, 8, 16),
    ],
)
def test_an_additive_normal_start_is_of_the_size_of_any_weight(layer):
    for options in ({}, {"rank": 4, "alpha": 2.0}):
        bent = build(layer, mode="additive", **options)
        with torch.no_grad():
            layer.weight.mul_(3.0)
        initialise(bent.fast_weights(), bent.options)
        added = torch.stack([bent.merged_weight(i) - layer.weight for i in range(3)])
        assert added.pow(2).mean().sqrt().item() == pytest.approx(
            layer.weight.pow(2).mean().sqrt().item(), rel=0.4
        )


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


def test_the_size_of_what_is_added_can_be_set():
    layer = twin(mode="additive", rank=2, std=0.1)
    added = torch.stack([layer.merged_weight(i) - layer.weight for i in range(MEMBERS)])
    assert added.std().item() == pytest.approx(0.1 * layer.weight.std().item(), rel=0.3)


@pytest.mark.parametrize(
    "options",
    [{}, {"init": "ones"}, {"mode": "additive", "init": "zeros"}, {"init": lambda fast: None}],
)
def test_a_deviation_that_nothing_has_is_refused(options):
    with pytest.raises(ValueError, match="std needs init='normal'"):
        twin(std=0.2, **options)
