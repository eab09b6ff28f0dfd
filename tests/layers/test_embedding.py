"""Twins of the embeddings: padding, sparse gradients, and bags told apart by offsets."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

from batchensemble import BatchEnsemble
from batchensemble.layers.base.rows import AmbiguousAxisError, running
from catalogue import EMBEDDINGS
from reference import MEMBERS, OPTIONS, Case, build, check, merged

MODES = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


def members_tables(twin, options):
    return [
        merged(twin.weight, twin.r[i], twin.s[i], options, inputs_first=True)
        for i in range(MEMBERS)
    ]


@MODES
def test_padding_gets_no_gradient(options):
    twin = build(nn.Embedding(5, 3, padding_idx=2), **options)
    twin(torch.full((MEMBERS, 4), 2)).sum().backward()
    assert not any(parameter.grad.any() for parameter in twin.parameters())
    twin(torch.tensor([[2, 4]] * MEMBERS)).sum().backward()
    assert twin.weight.grad.any(1).tolist() == [False, False, False, False, True]
    assert twin.r.grad.flatten(0, -2).any(0).tolist() == [False, False, False, False, True]


@MODES
def test_the_gradient_of_a_sparse_table_is_sparse_and_that_of_a_dense_one(options):
    numbers = torch.randint(6, (MEMBERS * 2, 3))
    sparse, dense = nn.Embedding(6, 2, sparse=True), nn.Embedding(6, 2)
    dense.load_state_dict(sparse.state_dict())
    twins = []
    for layer in (sparse, dense):
        torch.manual_seed(1)
        twins.append(build(layer, **options))
        twins[-1](numbers).pow(2).sum().backward()
    assert twins[0].weight.grad.is_sparse
    for one, other in zip(twins[0].parameters(), twins[1].parameters(), strict=True):
        torch.testing.assert_close(one.grad.to_dense(), other.grad)


@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
@MODES
def test_a_sparse_table_can_be_trained_member_by_member_and_stays_sparse_in_members(kind, options):
    twin = build(kind(6, 2, sparse=True), **options)
    with running(member=1):
        twin(torch.randint(6, (2, 3))).sum().backward()
    assert twin.weight.grad.any()
    assert twin.r.grad.flatten(1).any(1).tolist() == [False, True, False]
    member = twin.member(1)
    member(torch.randint(6, (2, 3))).sum().backward()
    assert member.weight.grad.is_sparse


@MODES
def test_numbers_may_be_of_half_the_width(options):
    twin, numbers = build(nn.Embedding(6, 2), **options), torch.randint(6, (MEMBERS * 2, 3))
    assert torch.equal(twin(numbers.int()), twin(numbers))


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(1, 3), max_size=3), st.integers(0, 3), st.sampled_from(list(OPTIONS)))
def test_numbers_of_any_shape_are_looked_up(shape, batch, mode):
    torch.manual_seed(0)
    case = Case(
        EMBEDDINGS["embedding"].make,
        lambda batch: (torch.randint(7, (batch, *shape)),),
        inputs_first=True,
    )
    layer = case.make()
    check(case, layer, build(layer, **OPTIONS[mode]), OPTIONS[mode], batch)


# Bags told apart by offsets.


def bags(layer, tables, numbers, offsets, weights=None):
    """Return the slow loop: each member's numbers, offsets and weights through its own table."""
    each = zip(tables, numbers, offsets, weights or [None] * MEMBERS, strict=True)
    outputs = [functional_call(layer, {"weight": table}, tuple(own)) for table, *own in each]
    return torch.cat(outputs)


def assert_same_with_gradients(twin, rows, expected):
    torch.testing.assert_close(rows, expected)
    factors = torch.randn_like(rows)
    variables = list(twin.parameters())
    for one, other in zip(
        torch.autograd.grad((rows * factors).sum(), variables),
        torch.autograd.grad((expected * factors).sum(), variables),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@MODES
def test_each_member_has_bags_of_its_own_in_flat_numbers(options, mode):
    layer = nn.EmbeddingBag(7, 3, mode=mode, padding_idx=1)
    twin = build(layer, **options)
    sizes = [5, 4, 6]
    numbers = [torch.randint(7, (size,)) for size in sizes]
    offsets = [torch.tensor(each) for each in ([0, 2, 2], [0, 1, 3], [0, 0, 4])]
    flat = torch.cat([own + sum(sizes[:i]) for i, own in enumerate(offsets)])
    weights = [torch.randn(size) for size in sizes] if mode == "sum" else None
    rows = twin(torch.cat(numbers), flat, torch.cat(weights) if weights else None)
    expected = bags(layer, members_tables(twin, options), numbers, offsets, weights)
    assert_same_with_gradients(twin, rows, expected)


@MODES
def test_an_ensemble_repeats_offsets_but_not_flat_numbers(options):
    layer = nn.EmbeddingBag(7, 3, mode="sum")
    twin = build(layer, **options)
    numbers, offsets, weights = torch.randint(7, (6,)), torch.tensor([0, 1, 4]), torch.randn(6)
    with running(rows=MEMBERS * 3):
        rows = twin(numbers, offsets.repeat(MEMBERS), weights)
    each = ([tensor] * MEMBERS for tensor in (numbers, offsets, weights))
    expected = bags(layer, members_tables(twin, options), *each)
    assert_same_with_gradients(twin, rows, expected)


class Bagged(nn.Module):
    def __init__(self):
        super().__init__()
        self.bag = nn.EmbeddingBag(9, 4)

    def forward(self, offsets, numbers):
        return self.bag(numbers, offsets)


@pytest.mark.parametrize("count", [3, 5, 9])
def test_an_ensemble_tells_numbers_that_it_repeated_from_those_that_it_did_not(count):
    # 3 numbers in 3 bags are repeated, being as many as there are examples; 9 are not, though
    # they are as many as the rows.
    model = BatchEnsemble(Bagged(), MEMBERS)
    offsets, numbers = torch.tensor([0, 1, 2]), torch.randint(9, (count,))
    outputs = model(offsets, numbers)
    for index in range(MEMBERS):
        torch.testing.assert_close(outputs[:, index], model.member(index)(offsets, numbers))


def test_as_many_numbers_as_rows_are_looked_at_on_another_size_of_batch():
    twin = build(nn.EmbeddingBag(7, 3))
    with running(rows=MEMBERS * 2), pytest.raises(AmbiguousAxisError):
        twin(torch.zeros(6, dtype=torch.long), torch.tensor([0, 1] * MEMBERS))


def test_no_bags_give_no_rows():
    nothing = torch.zeros(0, dtype=torch.long)
    assert build(nn.EmbeddingBag(7, 3))(nothing, nothing).shape == (0, 3)


@pytest.mark.parametrize(
    ("last_offset", "bags"),
    [(False, 4), (True, 3)],
)
def test_offsets_that_cannot_be_parted_are_refused_in_a_sentence(last_offset, bags):
    twin = build(nn.EmbeddingBag(7, 3, include_last_offset=last_offset))
    twin.name = "words"
    with pytest.raises(ValueError, match="'words' takes the offsets of 3 members' bags"):
        twin(torch.zeros(6, dtype=torch.long), torch.arange(bags))


def test_the_table_is_the_plain_layers_parameter():
    layer = nn.Embedding(4, 2)
    assert build(layer).weight is layer.weight
