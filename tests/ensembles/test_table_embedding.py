"""Columns into vectors: bins, embeddings of numbers and categories, each against the plain way."""

import copy

import pytest
import torch
from rtdl_num_embeddings import PiecewiseLinearEmbeddings, compute_bins

from batchensemble.ensembles.table_embedding import (
    CategoryEmbeddings,
    NumberEmbeddings,
    OneHot,
    table_bins,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*has just two bin edges")


def columns() -> torch.Tensor:
    """Return columns with many, few, two and equal values, one of them nearly constant."""
    torch.manual_seed(0)
    few, two = torch.randint(0, 5, (400,)), torch.randint(0, 2, (400,))
    rare = torch.zeros(400)
    rare[3] = 2.0
    return torch.stack([torch.randn(400), few, two, torch.full((400,), 3.0), rare], 1)


def test_bins_are_those_of_the_package_where_nothing_is_special():
    numbers = torch.randn(500, 3)
    for ours, theirs in zip(table_bins(numbers), compute_bins(numbers, 48), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_bins_of_columns_with_few_values():
    bins = table_bins(columns())
    assert [len(edges) for edges in bins] == [49, len(bins[1]), 2, 2, 2]
    assert {0, 1, 2, 3, 4} <= set(bins[1].tolist())
    assert bins[2].tolist() == [0, 1]
    assert bins[3].tolist() == [2.5, 3.5]
    assert bins[4].tolist() == [0, 2]
    assert all((edges.diff() > 0).all() for edges in bins)


@pytest.mark.parametrize(("rows", "edges"), [(1, 2), (2, 2), (3, 3), (10, 10), (1_000, 49)])
def test_few_rows_have_few_bins(rows, edges):
    (found,) = table_bins(torch.arange(float(rows))[:, None])
    assert len(found) <= edges
    assert found[0] <= 0
    assert found[-1] >= rows - 1


def test_edges_that_almost_coincide_are_one():
    numbers = torch.cat([torch.linspace(0, 1, 200), 1 + torch.linspace(1e-7, 1e-5, 200)])
    (edges,) = table_bins(numbers[:, None])
    assert edges.diff().min() > 1e-5


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [
        (torch.zeros(0, 2), "at least one row"),
        (torch.tensor([[1.0], [float("nan")]]), "finite numbers"),
        (torch.tensor([[1.0], [float("inf")]]), "finite numbers"),
    ],
)
def test_bins_of_no_numbers_are_refused(numbers, sentence):
    with pytest.raises(ValueError, match=sentence):
        table_bins(numbers)


def test_most_rows_are_enough_for_bins(monkeypatch):
    monkeypatch.setattr("batchensemble.ensembles.table_embedding.MOST_SORTED", 1_000)
    numbers = torch.randn(5_000, 4)
    bins = table_bins(numbers)
    for column, edges in zip(numbers.t(), bins, strict=True):
        assert edges[0] == column.min()
        assert edges[-1] == column.max()


def test_embeddings_of_numbers_are_those_of_the_package():
    bins = table_bins(columns())
    theirs = PiecewiseLinearEmbeddings(bins, 8, activation=False, version="B")
    torch.nn.init.normal_(theirs.linear.weight)
    ours = NumberEmbeddings(bins, 8)
    most = 48
    with torch.no_grad():
        ours.weight.zero_()
        for index, edges in enumerate(bins):
            count = len(edges) - 1
            weight = theirs.linear.weight[index]
            ours.weight[index, : count - 1] = weight[: count - 1]
            ours.weight[index, count - 1] = weight[most - 1]  # where theirs has the last bin
        ours.weight[:, -1] = theirs.linear0.weight
        ours.bias.copy_(theirs.linear0.bias.flatten())
    x = torch.cat([columns(), columns() * 3 - 2])  # beyond the outer edges, too
    torch.testing.assert_close(ours(x), theirs(x).flatten(1), atol=1e-4, rtol=1e-4)


def test_embeddings_of_numbers_start_linear():
    layer = NumberEmbeddings(table_bins(columns()), 4)
    at = [layer(torch.full((1, 5), value)) for value in (-1.0, 0.0, 1.0)]
    torch.testing.assert_close(at[1] - at[0], at[2] - at[1])


def test_embeddings_of_numbers_have_the_right_gradients():
    layer = NumberEmbeddings(table_bins(columns()), 3).double()
    torch.nn.init.normal_(layer.weight)
    x = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))


def test_a_number_of_bins_is_at_the_quantiles_of_the_normal():
    layer = NumberEmbeddings(4, 2, numbers=3)
    assert layer.slope.shape == (3, 1, 5)
    widths = 1 / layer.slope[0, 0, :4]
    assert widths[1:3].tolist() == pytest.approx([0.6745, 0.6745], abs=1e-3)


def test_categories_are_one_hot_and_the_unknown_nothing():
    codes = torch.tensor([[1.0, 3.0], [0.0, 2.0], [2.0, 7.0], [-1.0, 1.0], [float("nan"), 1.0]])
    assert OneHot([2, 3])(codes).tolist() == [
        [1, 0, 0, 0, 1],
        [0, 0, 0, 1, 0],
        [0, 1, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 1, 0, 0],
    ]


def test_embeddings_of_categories_are_looked_up_and_the_unknown_is_zero():
    layer = CategoryEmbeddings([100, 5], 3)
    codes = torch.tensor([[0.0, 0.0], [101.0, 6.0], [100.0, 5.0], [float("nan"), -1.0]])
    found = layer(codes)
    assert found[[0, 1, 3]].abs().sum() == 0
    assert torch.equal(found[2], torch.cat([layer.weight[100], layer.weight[106]]))


def test_a_copy_of_an_embedding_can_be_drawn_anew():
    for layer in (NumberEmbeddings(4, 2, numbers=3), CategoryEmbeddings([100], 3)):
        other = copy.deepcopy(layer)
        other.reset_parameters()
        assert not torch.equal(layer.weight, other.weight)
        ratio = float((other.weight.std() / layer.weight.std()).detach())
        assert ratio == pytest.approx(1, abs=0.5)
