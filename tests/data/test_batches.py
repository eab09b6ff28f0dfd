"""Batches hold every example once an epoch, and bad data are refused in a sentence."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from batchensemble.data import batches
from batchensemble.data.batches import make_batches

PLACE = {"device": torch.device("cpu"), "dtype": torch.float32}
X = torch.arange(20.0).view(10, 2)
Y = torch.arange(10)


def made(data, batch_size=4, **options):
    return make_batches(data, batch_size, **PLACE, **options)


def three_rolled(order):
    """Give member m the examples of the batch, rolled by m."""
    return torch.stack([order.roll(member, -1) for member in range(3)], -2)


@pytest.mark.parametrize("kind", ["arrays", "dataset", "loader"])
def test_without_shuffling_batches_come_in_order_and_the_last_is_smaller(kind):
    dataset = TensorDataset(X, Y)
    data = {"arrays": (X, Y), "dataset": dataset, "loader": DataLoader(dataset, 4)}[kind]
    parts = list(made(data))
    assert len(made(data)) == len(parts) == 3
    assert [len(inputs) for inputs, _ in parts] == [4, 4, 2]
    assert torch.equal(torch.cat([inputs for inputs, _ in parts]), X)
    assert torch.equal(torch.cat([targets for _, targets in parts]), Y)


@pytest.mark.parametrize("batch_size", [1, 3, 5, 10, 100])
@pytest.mark.parametrize("block_bytes", [1, 24, 1 << 25])
def test_shuffled_every_example_comes_once_with_its_target(batch_size, block_bytes, monkeypatch):
    monkeypatch.setattr(batches, "BLOCK_BYTES", block_bytes)
    parts = list(made((X, Y), batch_size, shuffle=True))
    inputs, targets = (torch.cat(part) for part in zip(*parts, strict=True))
    assert len(parts) == -(-10 // batch_size)
    assert targets.sort().values.tolist() == Y.tolist()
    assert torch.equal(inputs, X[targets])


def test_blocks_change_no_batch(monkeypatch):
    def epoch(block_bytes):
        monkeypatch.setattr(batches, "BLOCK_BYTES", block_bytes)
        torch.manual_seed(0)
        return [targets.tolist() for _, targets in made((X, Y), 3, shuffle=True)]

    assert epoch(1) == epoch(24 * 2) == epoch(1 << 25)


def test_every_epoch_has_another_order():
    loaded = made((X, Y), 10, shuffle=True)
    (_, first), (_, second) = next(iter(loaded)), next(iter(loaded))
    assert not torch.equal(first, second)


def test_the_order_follows_torchs_seed():
    def order(seed):
        torch.manual_seed(seed)
        return next(iter(made((X, Y), 10, shuffle=True)))[1].tolist()

    assert order(3) == order(3)
    assert order(3) != order(4)


@pytest.mark.parametrize("kind", ["arrays", "loader"])
def test_drawn_examples_keep_their_own_targets(kind):
    data = (X, Y) if kind == "arrays" else DataLoader(TensorDataset(X, Y), 4)
    for inputs, targets in made(data, draw=three_rolled):
        assert inputs.shape == (len(targets), 3, 2)
        assert torch.equal(inputs, X[targets])
        for member in range(3):
            assert torch.equal(targets[:, member], targets[:, 0].roll(member))


@pytest.mark.parametrize("kind", ["arrays", "dataset", "loader"])
@pytest.mark.parametrize("drawn", [False, True])
def test_weights_stay_with_their_examples(kind, drawn):
    weights = Y / 2.0
    dataset = TensorDataset(X, Y, weights)
    data = {"arrays": (X, Y, weights), "dataset": dataset, "loader": DataLoader(dataset, 4)}[kind]
    found = made(data, shuffle=True, weighted=True, draw=three_rolled if drawn else None)
    seen = []
    for inputs, (targets, weight) in found:
        assert torch.equal(inputs, X[targets])
        assert torch.equal(weight, targets / 2.0)
        seen += (targets[:, 0] if drawn else targets).tolist()
    assert sorted(seen) == Y.tolist()


def test_weights_tell_data_apart():
    texts = {made((X, Y, w), weighted=True).describe() for w in (Y, Y + 1, Y / 3)}
    assert len(texts | {made((X, Y)).describe()}) == 4


@pytest.mark.parametrize(
    ("weights", "error", "sentence"),
    [
        (Y[:9], ValueError, r"weights must have the shape \[10\], one an example, got \[9\]"),
        (X, ValueError, r"got \[10, 2\]"),
        (Y - 1, ValueError, "finite numbers from 0 on, got -1 in row 1"),
        (Y.double().log(), ValueError, "got -inf in row 1"),
        (Y * np.nan, ValueError, "got nan in row 1"),
        (Y * 0, ValueError, "a number above 0, got only 0"),
        (["much"] * 10, TypeError, "weights must hold numbers"),
    ],
)
def test_bad_weights_are_refused(weights, error, sentence):
    with pytest.raises(error, match=sentence):
        made((X, Y, weights), weighted=True)


@pytest.mark.parametrize(
    "convert",
    [
        lambda a: a.numpy(),
        lambda a: a.tolist(),
        lambda a: pd.DataFrame(a.numpy()).squeeze(),
        lambda a: a.numpy()[::-1],
        lambda a: np.asfortranarray(a.numpy()),
        lambda a: np.broadcast_to(a.numpy(), a.shape),
        lambda a: a.numpy().astype(a.numpy().dtype.newbyteorder(">")),
        lambda a: a.clone().requires_grad_(a.is_floating_point()),
    ],
    ids=["array", "list", "pandas", "reversed", "fortran", "read-only", "big-endian", "grad"],
)
def test_arrays_of_any_making_are_taken(convert, recwarn):
    x, y = convert(X), convert(Y)
    [(inputs, targets)] = made((x, y), 10)
    expected = [X, Y] if np.asarray(y)[0] == 0 else [X.flip(0), Y.flip(0)]
    assert torch.equal(inputs, expected[0])
    assert torch.equal(targets, expected[1])
    assert not inputs.requires_grad
    assert not recwarn.list


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "uint8", "uint16", "uint32", "uint64"])
def test_targets_may_be_whole_numbers_of_any_width(dtype):
    [(_, targets)] = made((X, Y.numpy().astype(dtype)), 10)
    assert targets.dtype == torch.int64
    assert targets.tolist() == list(range(10))


def test_targets_may_be_booleans():
    [(_, targets)] = made((X, (Y % 2).bool().numpy()), 10)
    assert targets.tolist() == [0, 1] * 5


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.longdouble])
def test_inputs_come_in_the_networks_precision(dtype):
    [(inputs, _)] = made((X.numpy().astype(dtype), Y), 10)
    assert inputs.dtype == torch.float32
    assert torch.equal(inputs, X)


def test_whole_number_inputs_stay_as_they_are_for_embeddings():
    [(inputs, _)] = made((X.long(), Y), 10)
    assert inputs.dtype == torch.int64


def with_value(value):
    x = X.clone()
    x[7, 1] = value
    return x


@pytest.mark.parametrize(
    ("data", "error", "sentence"),
    [
        ((X, Y[:9]), ValueError, "the same length, got 10 and 9 examples"),
        ((X[:0], Y[:0]), ValueError, "at least one example, got none"),
        (([], []), ValueError, r"X must have the shape \[examples, features...\], got \[0\]"),
        (
            (with_value(np.nan), Y),
            ValueError,
            "finite, got nan in row 8, X\\[7, 1\\]; fill or drop",
        ),
        ((with_value(np.inf), Y), ValueError, "finite, got inf in row 8, X\\[7, 1\\]"),
        ((with_value(np.nan)[:, :, None], Y), ValueError, r"in row 8, X\[7, 1, 0\]"),
        ((np.full((10, 2), "a"), Y), TypeError, "X must hold numbers, got an array of <U1"),
        ((X.numpy().astype(object), Y), TypeError, "X must hold numbers, got an array of object"),
        ((X[:, 0], Y), ValueError, r"X must have the shape \[examples, features...\], got \[10\]"),
        ((3.0, Y), ValueError, "X must have the shape"),
        ((X, Y.float()), TypeError, r"y must hold class numbers .* got torch.float32; convert"),
        ((X, Y.numpy() / 2), TypeError, "got torch.float64"),
        ((X, Y - 1), ValueError, "y must hold class numbers from 0 on, got -1"),
        ((X, ["cat"] * 10), TypeError, r"y must hold numbers, .*LabelEncoder for labels"),
        ((X, 3), ValueError, "y must have the shape"),
        (X, TypeError, r"a pair \(X, y\), a torch Dataset or a DataLoader, got Tensor"),
        ((X, Y, Y), TypeError, "got tuple"),
        ((X,), TypeError, "got tuple"),
        ({"X": X, "y": Y}, TypeError, "got dict"),
        (None, TypeError, "got NoneType"),
        ("data.csv", TypeError, "got str"),
    ],
)
def test_bad_data_are_refused(data, error, sentence):
    with pytest.raises(error, match=sentence):
        made(data)


@pytest.mark.parametrize("kind", ["arrays", "loader"])
def test_a_target_a_member_does_not_go_with_examples_of_its_own(kind):
    targets = Y[:, None].repeat(1, 3)
    data = (X, targets) if kind == "arrays" else DataLoader(TensorDataset(X, targets), 4)
    with pytest.raises(ValueError, match="or use BatchEnsemble for those"):
        next(iter(made(data, draw=three_rolled)))


@pytest.mark.parametrize("dataset", [TensorDataset(X), TensorDataset(X, Y, Y)])
def test_a_loader_of_something_else_than_pairs_is_refused(dataset):
    with pytest.raises(TypeError, match=r"must yield pairs \(inputs, targets\), got list"):
        next(iter(made(DataLoader(dataset, 4))))


def test_a_loader_without_a_length_says_that_it_has_none():
    class Endless(IterableDataset):
        def __iter__(self):
            while True:
                yield X[0], Y[0]

    assert not made(DataLoader(Endless(), 4)).has_length
    assert made(DataLoader(TensorDataset(X, Y), 4)).has_length
