"""Fast weights are found where there are any, zeros in the weight or not."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from batchensemble.layers.rank_one.factorise import fit_low_rank, fit_rank_one

few = settings(deadline=None, max_examples=50)


def entries(draw, *shape, zeros):
    """Return numbers away from 0, some of them 0."""
    torch.manual_seed(draw(st.integers(0, 1000)))
    values = torch.randn(shape).sign() * (0.5 + torch.rand(shape))
    return values.masked_fill(torch.rand(shape) < zeros, 0.0)


def factor(a, b, groups):
    """Return ``a bᵀ`` with a ``b`` for each block of rows."""
    size = len(a) // groups
    return torch.cat(
        [torch.outer(a[k * size : (k + 1) * size], part) for k, part in enumerate(b.chunk(groups))]
    )


@st.composite
def problems(draw):
    groups, rows, columns = (draw(st.integers(1, 3)) for _ in range(3))
    kernel = draw(st.sampled_from([(), (2,), (2, 2)]))
    zeros = st.sampled_from([0.0, 0.3, 0.7])
    weight = entries(draw, groups * rows, columns, *kernel, zeros=draw(zeros))
    a = entries(draw, groups * rows, zeros=draw(zeros))
    b = entries(draw, groups * columns, zeros=draw(zeros))
    scale = factor(a, b, groups).view(*weight.shape[:2], *[1] * len(kernel))
    return weight, weight * scale, groups


@few
@given(problems())
def test_factors_are_found_around_zeros_of_the_weight_and_of_the_factors(problem):
    weight, target, groups = problem
    a, b = fit_rank_one(weight, target, groups)
    assert a.isfinite().all()
    assert b.isfinite().all()
    scale = factor(a, b, groups).view(*weight.shape[:2], *[1] * (weight.dim() - 2))
    torch.testing.assert_close(weight * scale, target, rtol=1e-9, atol=1e-9)


def test_a_part_that_zeros_cut_off_may_begin_with_a_factor_of_0():
    # Rows 2 and 3 and columns 2 and 3 have nothing to do with the others, and column 2 becomes 0.
    weight = torch.block_diag(torch.ones(2, 2), torch.ones(2, 2))
    target = weight * torch.tensor([20.0, 30.0, 0.0, 5.0])
    a, b = fit_rank_one(weight, target)
    torch.testing.assert_close(weight * torch.outer(a, b), target)


def test_factors_have_the_same_size():
    weight = torch.randn(4, 3)
    a, b = fit_rank_one(weight, weight * 100.0)
    assert a.abs().mean() == pytest.approx(b.abs().mean().item())
    assert a.dtype == b.dtype == torch.float64


def test_a_weight_of_zeros_takes_any_factors():
    a, b = fit_rank_one(torch.zeros(2, 3), torch.zeros(2, 3))
    assert a.isfinite().all()
    assert b.isfinite().all()


@pytest.mark.parametrize("weight", [torch.ones(2, 2), torch.tensor([[1.0, 0.0], [1.0, 1.0]])])
def test_what_no_factors_fit_is_left_to_the_caller_to_see(weight):
    target = weight * torch.tensor([[1.0, 2.0], [3.0, 4.0]]) + torch.tensor(
        [[0.0, 1.0], [0.0, 0.0]]
    )
    a, b = fit_rank_one(weight, target)
    assert not torch.allclose(weight * torch.outer(a, b), target)


@few
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 3), st.integers(1, 5))
def test_a_product_of_low_rank_is_found(rows, columns, true_rank, rank):
    torch.manual_seed(0)
    true_rank = min(true_rank, rank)
    added = torch.randn(rows, true_rank) @ torch.randn(true_rank, columns)
    a, b = fit_low_rank(added, rank)
    assert (a.shape, b.shape) == ((rank, rows), (rank, columns))
    torch.testing.assert_close(a.mT @ b, added, rtol=1e-9, atol=1e-9)


def test_too_low_a_rank_comes_as_near_as_it_can():
    added = torch.diag(torch.tensor([3.0, 2.0, 1.0]))
    a, b = fit_low_rank(added, 2)
    torch.testing.assert_close(a.mT @ b, torch.diag(torch.tensor([3.0, 2.0, 0.0])))
