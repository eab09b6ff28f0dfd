"""The twin of ``nn.MultiheadAttention``: its masks, its weights, and what it is made of."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

from batchensemble import BatchEnsemble
from batchensemble.layers import RankOneAttention
from batchensemble.layers.attention import IndependentAttention
from batchensemble.layers.base.rows import NotPerExampleError, running
from catalogue import attention
from reference import (
    MEMBERS,
    OPTIONS,
    assert_same,
    build,
    check,
    drawn,
    gradcheck,
    gradients,
    joined,
    parts_of,
)

HEADS, QUERIES, KEYS, BATCH = 2, 3, 5, 2
ARGUMENTS = {
    "bias": st.booleans(),
    "add_bias_kv": st.booleans(),
    "add_zero_attn": st.booleans(),
    "kdim": st.sampled_from([None, 3]),
    "vdim": st.sampled_from([None, 2]),
    "batch_first": st.booleans(),
}


def causal(boolean):
    mask = torch.ones(QUERIES, KEYS, dtype=torch.bool).triu(1)
    return mask if boolean else torch.zeros(QUERIES, KEYS).masked_fill(mask, -torch.inf)


def attention_mask(kind, boolean):
    """Return no mask, one for all sequences, or one for each sequence and head of each member."""
    if kind == "none":
        return [None] * MEMBERS
    if kind == "one":
        return [causal(boolean)] * MEMBERS
    shape = (BATCH * HEADS, QUERIES, KEYS)
    masks = [torch.randn(shape) for _ in range(MEMBERS if kind == "members" else 1)]
    if boolean:
        masks = [mask > 0.7 for mask in masks]
    return masks if kind == "members" else masks * MEMBERS


def padding_mask(kind, boolean):
    if kind == "none":
        return [None] * MEMBERS
    masks = [torch.rand(BATCH, KEYS) > 0.6 for _ in range(MEMBERS if kind == "members" else 1)]
    for mask in masks:
        mask[:, 0] = False  # a query with nothing to attend to is no number
    if not boolean:
        masks = [torch.zeros(mask.shape).masked_fill(mask, -torch.inf) for mask in masks]
    return masks if kind == "members" else masks * MEMBERS


def given_mask(masks, kind):
    """Return what the twin gets: one mask, or the members' one after the other."""
    return torch.cat(masks) if kind == "members" else masks[0]


KINDS = st.sampled_from(["none", "one", "members"])


@settings(deadline=None, max_examples=40)
@given(
    st.fixed_dictionaries(ARGUMENTS),
    st.sampled_from(list(OPTIONS.values())),
    st.sampled_from(["none", "one", "a batch", "members"]),
    st.sampled_from(["none", "a batch", "members"]),
    st.booleans(),
    st.fixed_dictionaries({"need_weights": st.booleans(), "average_attn_weights": st.booleans()}),
)
def test_attention_of_any_arguments_and_masks_is_its_members(
    arguments, options, attended, padded, boolean, asked
):
    torch.manual_seed(0)
    case = attention(**arguments)
    layer = drawn(case.make())
    twin = build(layer, **options)
    parts = parts_of(case, BATCH)
    masks = attention_mask(attended, boolean), padding_mask(padded, boolean)
    names = "attn_mask", "key_padding_mask"
    loop = [
        functional_call(
            layer,
            case.plain_tensors(layer, twin, index, options),
            parts[index],
            {**asked, **{name: mask[index] for name, mask in zip(names, masks, strict=True)}},
        )
        for index in range(MEMBERS)
    ]
    mine = [given_mask(mask, kind) for mask, kind in zip(masks, (attended, padded), strict=True)]
    outputs = twin(*joined(parts, case.axes), **asked, **dict(zip(names, mine, strict=True)))
    expected = joined(loop, case.output_axes)
    assert_same(outputs, expected)
    variables = [each for part in parts for each in part] + list(twin.parameters())
    assert_same(gradients(outputs, variables), gradients(expected, variables))


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_gradients_of_masked_attention_are_its_slopes(options, need_weights):
    twin = build(attention(batch_first=True).make(), **options)
    settings = {"attn_mask": causal(True), "need_weights": need_weights}
    assert gradcheck(attention(batch_first=True), twin, batch=1, **settings)


@pytest.mark.parametrize("need_weights", [True, False])
def test_a_causal_mask_may_be_called_causal(need_weights):
    case = attention()
    layer = case.make()
    mask = torch.ones(QUERIES, KEYS, dtype=torch.bool).triu(1)
    settings = {"attn_mask": mask, "is_causal": True, "need_weights": need_weights}
    check(case, layer, build(layer), {}, 2, **settings)


def test_a_hint_about_a_mask_that_is_missing_is_refused_as_torch_does():
    case = attention()
    layer = case.make()
    for each in (layer, build(layer)):
        with pytest.raises(RuntimeError, match="attn_mask"):
            each(*case.inputs(3), is_causal=True)


def test_a_sequence_without_its_batch_is_refused_by_the_layers_name():
    twin = build(attention().make())
    twin.name = "encoder.attention"
    x = torch.zeros(MEMBERS, 4)
    with pytest.raises(NotPerExampleError, match=r"'encoder.attention'.*\[3, 4\]"):
        twin(x, x, x)


def test_its_projections_complain_under_the_name_of_the_attention():
    twin = build(attention(batch_first=True).make())
    twin.name = "encoder.attention"
    x = torch.zeros(MEMBERS * 2 + 1, 5, 4)
    with pytest.raises(NotPerExampleError, match=r"'encoder\.attention'"):
        twin(x, x, x)


def test_weights_are_dropped_in_training_only():
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(4, 2, dropout=0.9, batch_first=True)
    twin, x = build(layer), torch.randn(MEMBERS * 20, 3, 4)
    for need_weights in (True, False):
        one, other = (twin.train()(x, x, x, need_weights=need_weights)[0] for _ in range(2))
        assert not torch.equal(one, other)
        one, other = (twin.eval()(x, x, x, need_weights=need_weights)[0] for _ in range(2))
        assert torch.equal(one, other)
    weights = twin.train()(x, x, x, average_attn_weights=False)[1]
    assert (weights == 0).double().mean() == pytest.approx(0.9, abs=0.05)


def test_separate_weights_are_the_plain_layers_parameters():
    layer = nn.MultiheadAttention(4, 2, kdim=3, vdim=2)
    twin = build(layer)
    assert twin.k_proj.weight is layer.k_proj_weight
    assert twin.out_proj.weight is layer.out_proj.weight


@pytest.mark.parametrize("packed", [True, False])
def test_frozen_weights_stay_frozen_in_the_twin_and_in_its_members(packed):
    layer = nn.MultiheadAttention(4, 2, **({} if packed else {"kdim": 3}))
    weights = layer.in_proj_weight if packed else layer.k_proj_weight
    weights.requires_grad_(False)
    layer.in_proj_bias.requires_grad_(False)
    twin = build(layer)
    assert not twin.k_proj.weight.requires_grad
    assert not twin.q_proj.bias.requires_grad
    assert twin.q_proj.r.requires_grad
    expected = {name: each.requires_grad for name, each in layer.named_parameters()}
    assert {n: each.requires_grad for n, each in twin.member(0).named_parameters()} == expected


class Backwards(nn.MultiheadAttention):
    """Attention with a ``forward`` of its own."""

    def forward(self, query, key, value, **settings):
        return super().forward(query.flip(1), key, value, **settings)


def test_a_subclass_with_a_forward_of_its_own_runs_through_that():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = Backwards(4, 2, batch_first=True)

        def forward(self, x):
            return self.attention(x, x, x)[0]

    model = drawn(BatchEnsemble(Network(), MEMBERS))
    x = torch.randn(2, 5, 4)
    outputs = model(x)
    for index in range(MEMBERS):
        member = model.member(index)
        assert type(member.attention) is Backwards
        torch.testing.assert_close(outputs[:, index], member(x))
    outputs.sum().backward()
    assert all(each.grad is not None for each in model.parameters())


def test_torchs_encoder_layer_takes_no_fast_path_around_a_twin():
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).eval()
    model = BatchEnsemble(layer, MEMBERS, init="normal").eval()
    x = torch.randn(2, 5, 4)
    with torch.no_grad():
        outputs = model(x)
        for index in range(MEMBERS):
            torch.testing.assert_close(outputs[:, index], model.member(index)(x))


def test_every_parameter_of_attention_has_a_role():
    twin = build(nn.MultiheadAttention(4, 2, add_bias_kv=True))
    roles = twin.roles()
    assert set(roles) == {name for name, _ in twin.named_parameters()}
    assert roles["q_proj.weight"] == roles["out_proj.weight"] == "shared"
    assert roles["k_proj.r"] == "fast"
    assert roles["v_proj.bias"] == roles["bias_k"] == "bias"


# A copy a member.


@settings(deadline=None, max_examples=15)
@given(
    st.fixed_dictionaries(ARGUMENTS),
    st.sampled_from(["none", "one", "a batch", "members"]),
    st.sampled_from(["none", "a batch", "members"]),
    st.fixed_dictionaries({"need_weights": st.booleans(), "average_attn_weights": st.booleans()}),
)
def test_independent_attentions_of_any_arguments_and_masks_are_their_copies(
    arguments, attended, padded, asked
):
    torch.manual_seed(0)
    case = attention(**arguments)
    layers = [drawn(case.make()) for _ in range(MEMBERS)]
    twin, parts = IndependentAttention(layers), parts_of(case, BATCH)
    masks = attention_mask(attended, True), padding_mask(padded, True)
    names = "attn_mask", "key_padding_mask"
    loop = [
        layer(*part, **asked, attn_mask=own, key_padding_mask=padding)
        for layer, part, own, padding in zip(layers, parts, *masks, strict=True)
    ]
    mine = [given_mask(mask, kind) for mask, kind in zip(masks, (attended, padded), strict=True)]
    outputs = twin(*joined(parts, case.axes), **asked, **dict(zip(names, mine, strict=True)))
    expected = joined(loop, case.output_axes)
    assert_same(outputs, expected)
    variables = [each for part in parts for each in part] + list(twin.parameters())
    assert_same(gradients(outputs, variables), gradients(expected, variables))


@pytest.mark.parametrize("independent", [True, False])
def test_one_sequence_for_all_examples_is_attended_once_by_every_member(independent):
    case = attention(batch_first=True)
    if independent:
        twin = IndependentAttention([case.make() for _ in range(MEMBERS)])
    else:
        twin = build(case.make())
    x, mask = case.inputs(1), torch.tensor([[False, True, False, False, True]])
    with running(rows=MEMBERS * 2):
        rows, weights = twin(*x, key_padding_mask=mask)
    for index in range(MEMBERS):
        member = twin.member(index)
        alone = member(*x, key_padding_mask=mask)
        for got, expected in zip((rows, weights), alone, strict=True):
            assert_same(got[2 * index : 2 * index + 2], expected.expand(2, -1, -1))


def test_independent_attentions_run_alone_as_one_member():
    case = attention()
    twin, x = IndependentAttention([case.make() for _ in range(MEMBERS)]), case.inputs(2)
    with running(member=1):
        assert_same(twin(*x), twin.copies[1](*x))


def test_a_twin_of_attention_is_one():
    assert isinstance(build(attention().make()), RankOneAttention)
