"""Stacked linear layers are the loop over plain ones, wide or narrow."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from batchensemble.layers.rank_one import products
from batchensemble.layers.rank_one.arithmetic import additive, multiplicative
from batchensemble.layers.rank_one.products import shared_linear, stacked_linear, weight_gradient

SHAPES = [(3, 5, 2, 7), (3, 5, 7, 2), (1, 4, 3, 3), (2, 1, 6, 1), (2, 0, 4, 2), (2, 0, 2, 4)]


def draw(members, batch, inputs, outputs, bias):
    torch.manual_seed(0)
    x = torch.randn(members, batch, inputs, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(members, inputs, outputs, dtype=torch.float64, requires_grad=True)
    b = torch.randn(members, 1, outputs, dtype=torch.float64, requires_grad=True)
    return (x, weight, b if bias else None)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_outputs_and_gradients_are_those_of_the_loop(shape, bias):
    x, weight, b = arguments = draw(*shape, bias)
    fast = stacked_linear(*arguments)
    slow = torch.stack(
        [F.linear(x[m], weight[m].t(), None if b is None else b[m, 0]) for m in range(shape[0])]
    )
    torch.testing.assert_close(fast, slow, rtol=1e-10, atol=1e-10)
    tensors = [tensor for tensor in arguments if tensor is not None]
    for ours, theirs in zip(
        torch.autograd.grad(fast.sin().sum(), tensors),
        torch.autograd.grad(slow.sin().sum(), tensors),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(2, 3, 2, 4), (2, 3, 4, 2)])
def test_it_can_be_differentiated_twice(shape, bias):
    arguments = draw(*shape, bias)
    assert gradcheck(stacked_linear, arguments)
    assert gradgradcheck(stacked_linear, arguments)


@pytest.mark.parametrize(("inputs", "outputs"), [(2, 7), (7, 2), (4, 4)])
def test_the_gradient_of_a_weight_is_the_same_in_either_orientation(inputs, outputs):
    dy, x = torch.randn(3, 5, outputs), torch.randn(3, 5, inputs)
    expected = torch.stack([own.t() @ each for own, each in zip(dy, x, strict=True)])
    torch.testing.assert_close(weight_gradient(dy, x), expected)


def test_frozen_weights_get_no_gradient():
    x, weight, b = draw(2, 3, 4, 2, True)
    stacked_linear(x, weight.detach(), b).sum().backward()
    assert x.grad is not None
    assert weight.grad is None


@pytest.fixture
def _any_weight_is_large(monkeypatch):
    monkeypatch.setattr(products, "LARGE_WEIGHT", 0)
    monkeypatch.setattr(products, "TRANSPOSED_TYPES", (torch.float32, torch.float64))


@pytest.mark.usefixtures("_any_weight_is_large")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [(), (0,), (1,), (7,), (2, 3), (products.FEW_ROWS + 1,)])
def test_a_large_weight_gives_the_plain_layers_rows_in_their_order_in_memory(rows, bias):
    x, weight, b = torch.randn(*rows, 5), torch.randn(4, 5), torch.randn(4) if bias else None
    y = shared_linear(x, weight, b)
    torch.testing.assert_close(y, F.linear(x, weight, b))
    assert y.is_contiguous()


@pytest.mark.usefixtures("_any_weight_is_large")
@pytest.mark.parametrize("bias", [True, False])
def test_a_large_weight_can_be_differentiated_twice(bias):
    shapes = [(2, 3, 4), (2, 4), (2,)][: 3 if bias else 2]
    tensors = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert gradcheck(shared_linear, tensors)
    assert gradgradcheck(shared_linear, tensors)


@pytest.mark.usefixtures("_any_weight_is_large")
@pytest.mark.parametrize("function", [multiplicative, additive])
@pytest.mark.parametrize("shared", [True, False])
def test_all_members_meet_a_large_weight_at_once(function, shared):
    rank = (2,) if function is additive else ()
    shapes = [(3, 1 if shared else 2, 5), (4, 5), (3, *rank, 5), (3, *rank, 4), (3, 4)]
    x, *rest = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes)
    x = x[:1].detach().expand(3, 2, 5) if shared else x
    y = function(x, *rest)
    weight, r, s, b = rest
    for m in range(3):
        own = weight * torch.outer(s[m], r[m]) if not rank else weight + s[m].t() @ r[m]
        torch.testing.assert_close(y[m], F.linear(x[m], own, b[m]))
    assert gradcheck(lambda *each: function(x, *each), rest)


def test_a_weight_that_is_large_goes_the_other_way_only_with_few_rows(monkeypatch):
    weight, turned = torch.zeros(2**11, 2**10, dtype=torch.float32), []
    monkeypatch.setattr(torch, "mm", lambda a, b: turned.append(a) or a @ b)
    for rows in (1, 2, products.FEW_ROWS, products.FEW_ROWS + 1):
        shared_linear(torch.zeros(rows, 2**10, dtype=torch.float32), weight)
    assert len(turned) == 2
