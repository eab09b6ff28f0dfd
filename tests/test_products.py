"""Stacked linear layers are the loop over plain ones, wide or narrow."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from batchensemble.products import stacked_linear, weight_gradient

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
