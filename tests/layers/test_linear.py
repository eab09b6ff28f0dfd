"""Twins of ``nn.Linear`` are their members' plain layers, all at once."""

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from batchensemble.ensembles import BatchEnsemble
from batchensemble.layers import RankOneConv1D, RankOneLinear, StackedLinear
from batchensemble.layers.linear import plain_linear
from batchensemble.layers.rank_one.arithmetic import multiplicative

MEMBERS = 3


def rank_one(bias=True, **options):
    torch.manual_seed(0)
    layer = nn.Linear(5, 2, bias=bias, dtype=torch.float64)
    twin = RankOneLinear(layer, MEMBERS, **options)
    if twin.bias is not None:
        nn.init.normal_(twin.bias)
    return twin


def stacked(bias=True):
    torch.manual_seed(0)
    return StackedLinear([nn.Linear(5, 2, bias=bias).double() for _ in range(MEMBERS)])


TWINS = {
    "multiplicative": lambda: rank_one(init="normal"),
    "additive, rank 1": lambda: rank_one(mode="additive"),
    "additive, rank 3": lambda: rank_one(mode="additive", rank=3),
    "stacked": stacked,
    "rank one without bias": lambda: rank_one(bias=False),
    "stacked without bias": lambda: stacked(bias=False),
}


@pytest.fixture(params=TWINS)
def twin(request):
    return TWINS[request.param]()


@pytest.mark.parametrize("middle", [(), (4,), (4, 2)])
@pytest.mark.parametrize("batch", [0, 1, 6])
def test_rows_are_those_of_the_members_plain_layers(twin, batch, middle):
    rows = torch.randn(MEMBERS * batch, *middle, 5, dtype=torch.float64)
    expected = [twin.member(i)(part) for i, part in enumerate(rows.chunk(MEMBERS))] if batch else []
    outputs = twin(rows)
    assert outputs.shape == (MEMBERS * batch, *middle, 2)
    torch.testing.assert_close(outputs, torch.cat([outputs[:0], *expected]))


def test_a_member_axis_of_its_own_gives_the_same_numbers(twin):
    rows = torch.randn(MEMBERS * 4, 5, dtype=torch.float64)
    stacked_rows = twin(rows.view(MEMBERS, 4, 5))
    assert stacked_rows.shape == (MEMBERS, 4, 2)
    torch.testing.assert_close(stacked_rows.flatten(0, 1), twin(rows))


def test_one_row_a_member_of_many_tokens_is_no_ambiguity(twin):
    # [members * 1, tokens, in] looks like [members, batch, in]; both mean the same.
    rows = torch.randn(MEMBERS, 7, 5, dtype=torch.float64)
    expected = torch.stack([twin.member(i)(rows[i]) for i in range(MEMBERS)])
    torch.testing.assert_close(twin(rows), expected)


def test_a_member_is_a_plain_layer_that_shares_no_memory_with_its_twin(twin):
    before = [parameter.clone() for parameter in twin.parameters()]
    member = twin.member(1)
    assert type(member) is nn.Linear
    assert (member.bias is None) == (twin.bias is None)
    assert member.weight.dtype == torch.float64
    with torch.no_grad():
        member.weight.zero_()
    assert all(torch.equal(a, b) for a, b in zip(before, twin.parameters(), strict=True))


def test_members_merge_their_fast_weights_into_the_weight():
    twin = rank_one(init="normal")
    expected = twin.weight * twin.s[2][:, None] * twin.r[2][None, :]
    assert torch.equal(twin.member(2).weight, twin.merged_weight(2))
    torch.testing.assert_close(twin.merged_weight(2), expected)


def test_members_add_their_low_rank_product_to_the_weight():
    twin = rank_one(mode="additive", rank=2)
    expected = twin.weight + sum(torch.outer(twin.s[2][k], twin.r[2][k]) for k in range(2))
    torch.testing.assert_close(twin.merged_weight(2), expected)


def test_the_shared_weight_is_the_plain_layers_parameter():
    layer = nn.Linear(5, 2)
    assert RankOneLinear(layer, MEMBERS).weight is layer.weight


def test_member_biases_all_start_as_the_plain_layers():
    layer = nn.Linear(5, 2)
    twin = RankOneLinear(layer, MEMBERS)
    assert torch.equal(twin.bias, layer.bias.expand(MEMBERS, 2))


def test_a_shared_bias_is_the_plain_layers_parameter_and_every_members():
    layer = nn.Linear(5, 2)
    twin = RankOneLinear(layer, MEMBERS, bias="shared")
    assert twin.bias is layer.bias
    assert all(torch.equal(twin.member(i).bias, layer.bias) for i in range(MEMBERS))


def test_a_stacked_twin_has_the_members_weights_in_their_order():
    layers = [nn.Linear(5, 2) for _ in range(MEMBERS)]
    twin = StackedLinear(layers)
    for index, layer in enumerate(layers):
        assert torch.equal(twin.member(index).weight, layer.weight)
        assert torch.equal(twin.member(index).bias, layer.bias)


def test_a_frozen_layer_stays_frozen_when_stacked():
    layers = [nn.Linear(5, 2).requires_grad_(False) for _ in range(MEMBERS)]
    assert not any(parameter.requires_grad for parameter in StackedLinear(layers).parameters())


@pytest.mark.parametrize(
    ("twin", "text"),
    [
        (
            RankOneLinear(nn.Linear(5, 2), 3),
            "(in_features=5, out_features=2, bias=True, members=3, multiplicative)",
        ),
        (
            RankOneLinear(nn.Linear(5, 2, bias=False), 3, mode="additive", rank=2),
            "(in_features=5, out_features=2, bias=False, members=3, additive, rank=2)",
        ),
        (
            StackedLinear([nn.Linear(5, 2)] * 3),
            "(in_features=5, out_features=2, bias=True, members=3)",
        ),
    ],
)
def test_printing_a_twin_tells_its_layers_settings_its_members_and_mode(twin, text):
    assert repr(twin) == type(twin).__name__ + text


def test_alpha_over_rank_scales_what_is_added():
    twin = rank_one(mode="additive", rank=2, alpha=3.0)
    added = sum(torch.outer(twin.s[2][k], twin.r[2][k]) for k in range(2))
    torch.testing.assert_close(twin.member(2).weight, twin.weight + 1.5 * added)


def test_the_layer_of_transformers_keeps_its_weight_the_other_way_round():
    layer = Conv1D(2, 5)
    twin = RankOneConv1D(layer, MEMBERS, init="normal")
    assert (twin.in_features, twin.out_features) == (5, 2)
    assert (twin.r.shape, twin.s.shape) == ((MEMBERS, 5), (MEMBERS, 2))
    assert twin.weight is layer.weight
    assert type(twin.member(0)) is Conv1D
    torch.testing.assert_close(
        twin.member(1).weight, layer.weight * torch.outer(twin.r[1], twin.s[1])
    )


def test_a_plain_layer_is_made_of_copies_of_its_weights():
    weight, bias = torch.randn(2, 5), torch.randn(2)
    layer = plain_linear(weight, bias)
    assert torch.equal(layer.weight, weight)
    assert torch.equal(layer.bias, bias)
    assert layer.weight.data_ptr() != weight.data_ptr()
    assert layer.weight.dtype == torch.float64
    assert plain_linear(weight, None).bias is None


@pytest.mark.parametrize("outputs", [2, 7])
def test_a_stacked_twin_computes_in_the_precision_of_autocast(outputs):
    layers = [nn.Linear(5, outputs).float() for _ in range(MEMBERS)]
    twin, x = StackedLinear(layers), torch.randn(MEMBERS * 4, 5).float()
    with torch.autocast("cpu", torch.bfloat16):
        rows = twin(x)
        expected = torch.cat([f(part) for f, part in zip(layers, x.chunk(MEMBERS), strict=True)])
    assert rows.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(rows, expected, rtol=0.05, atol=0.05)
    rows.float().sum().backward()
    assert twin.weight.grad.dtype == torch.float32


def test_double_precision_stays_under_autocast():
    twin, x = rank_one(), torch.randn(MEMBERS * 4, 5)
    with torch.autocast("cpu", torch.bfloat16):
        rows = twin(x)
    torch.testing.assert_close(rows, twin(x))


@pytest.mark.parametrize("space", ["activation", "weight"])
def test_the_space_that_is_asked_for_is_the_one_that_computes(space, monkeypatch):
    asked = []

    def spy(*tensors, space):
        asked.append(space)
        return multiplicative(*tensors, space=space)

    monkeypatch.setattr("batchensemble.layers.rank_one.arithmetic.multiplicative", spy)
    model = BatchEnsemble(nn.Linear(3, 2), members=4, space=space)
    model(torch.zeros(5, 3))
    assert asked == [space]
