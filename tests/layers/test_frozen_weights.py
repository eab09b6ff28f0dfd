"""Shared weights that are frozen: no gradient for them, and nothing kept that only it needs."""

import pytest
import torch
from torch import nn

from batchensemble.layers import RankOneConvolution, RankOneLinear
from batchensemble.layers.rank_one import arithmetic as rank_one
from catalogue import ATTENTIONS, BAGS, CONVOLUTIONS, RANK_ONE, TRANSPOSED
from reference import OPTIONS, build, gradcheck, gradients, joined, parts_of, tensors_in

KINDS = {
    name: case
    for name, case in RANK_ONE.items()
    if name not in ATTENTIONS and name not in BAGS  # of linear twins; one by one
}
WAYS = {**OPTIONS, "additive, rank 3": {"mode": "additive", "rank": 3}}


def freeze(twin):
    """Freeze what all members share of a twin's weights, and return the other parameters."""
    for name, parameter in twin.named_parameters():
        if name in twin.matrices:
            parameter.requires_grad_(False)
    return [each for each in twin.parameters() if each.requires_grad]


def bytes_kept(run):
    """Return what autograd keeps for the backward, in bytes; memory that two share counts once."""
    kept = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda each: each):
        run()
    return sum(kept.values())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradients_of_all_else_are_unchanged(kind, way):
    case = KINDS[kind]
    twin = build(case.make(), **WAYS[way])
    rows = joined(parts_of(case, 2), case.axes)
    variables = [each for each in tensors_in(rows) if each.requires_grad]
    others = [parameter for name, parameter in twin.named_parameters() if name not in twin.matrices]
    before = gradients(twin(*rows), variables + others)
    assert freeze(twin) == others
    after = gradients(twin(*rows), variables + others)
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", ["linear", "conv 2d", "conv 1d in groups", "transposed conv 1d"])
@pytest.mark.parametrize("way", WAYS)
def test_they_are_those_of_finite_differences(kind, way):
    twin = build(KINDS[kind].make(), **WAYS[way])
    freeze(twin)
    assert gradcheck(KINDS[kind], twin)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
def test_no_more_is_kept_than_where_the_weights_are_trained(kind, way):
    case = KINDS[kind]
    twin = build(case.make(), **WAYS[way])
    rows = joined(parts_of(case, 2), case.axes)
    before = bytes_kept(lambda: twin(*rows))
    freeze(twin)
    assert bytes_kept(lambda: twin(*rows)) <= before


def test_a_linear_layer_keeps_its_input_and_a_product():
    twin, x = RankOneLinear(nn.Linear(6, 5), 3), torch.randn(3, 4, 6, requires_grad=True)
    freeze(twin)
    weights = sum(each.untyped_storage().nbytes() for each in twin.parameters())
    numbers = (bytes_kept(lambda: twin(x)) - weights) // x.element_size()
    assert numbers == x.numel() + 3 * 4 * 5


@pytest.mark.parametrize("space", ["activation", "weight"])
def test_the_backward_of_a_linear_layer_computes_no_gradient_that_nobody_asks_for(
    monkeypatch, space
):
    twin, x = RankOneLinear(nn.Linear(6, 5), 3, space=space), torch.randn(3, 4, 6)
    for parameter in twin.parameters():
        parameter.requires_grad_(False)
    monkeypatch.setattr(rank_one, "weight_gradient", pytest.fail)
    twin(x.requires_grad_()).sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("kind", [*CONVOLUTIONS, *TRANSPOSED])
def test_a_convolution_does_not_scale_its_input_again(kind, monkeypatch):
    case = KINDS[kind]
    twin = build(case.make(), space="activation")
    freeze(twin)
    rows = joined(parts_of(case, 2), case.axes)
    y = twin(*rows)
    monkeypatch.setattr(RankOneConvolution, "_scaled", pytest.fail)
    y.sum().backward()
    assert all(each.grad is not None for each in twin.parameters() if each.requires_grad)


@pytest.mark.parametrize("trained", [True, False])
def test_what_was_chosen_for_a_shape_ends_where_the_weight_freezes_or_thaws(trained):
    twin, x = RankOneLinear(nn.Linear(6, 5), 3), torch.randn(3, 4, 6)
    twin.weight.requires_grad_(trained)
    twin(x)
    twin.weight.requires_grad_(not trained)
    for _ in range(2):
        twin(x).sum().backward()
    assert (twin.weight.grad is None) is trained
