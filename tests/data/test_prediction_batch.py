"""How many examples go through a network at once in prediction."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import IterableDataset, TensorDataset

import batchensemble as be
from batchensemble.data.prediction_batch import prediction_batch, prediction_batch_of

CPU, GPU = torch.device("cpu"), torch.device("cuda")


class Noted(nn.Module):
    """Notes how many rows each call has."""

    def __init__(self, channels, classes=3):
        super().__init__()
        self.head = nn.Linear(channels, classes)
        self.rows = []

    def forward(self, x):
        self.rows.append(len(x))
        return self.head(x.flatten(2).mean(2))


def test_large_examples_go_in_small_batches():
    assert [prediction_batch(4 * numbers, CPU) for numbers in (0, 1, 784, 150_528)] == [
        4096,
        4096,
        83,
        16,
    ]
    assert prediction_batch(4 * 150_528, GPU) == 27


def test_a_dataset_tells_by_its_first_example():
    images, labels = torch.zeros(5, 3, 16, 16), torch.zeros(5, dtype=torch.long)
    assert prediction_batch_of(TensorDataset(images, labels), CPU) == 2**18 // (3 * 256 * 4 + 8)
    assert prediction_batch_of([{"a": np.zeros(256), "b": (torch.zeros(256),)}], CPU) == 2**18 // (
        256 * 12
    )

    class Endless(IterableDataset):
        def __iter__(self):
            raise AssertionError("looked at")

    assert prediction_batch_of(Endless(), CPU) == 256


@pytest.mark.parametrize("dataset", [False, True])
def test_predict_and_evaluate_do_not_hold_all_images_at_once(dataset):
    X, y = torch.randn(100, 3, 64, 64), torch.randint(3, (100,))
    network = Noted(3)
    model = be.BatchEnsemble(network, members=2)
    model(X[:2])  # which looks at how it runs
    called = model.network.rows
    called.clear()
    data = TensorDataset(X, y) if dataset else (X, y)
    one = be.predict(model, TensorDataset(X) if dataset else X)
    assert max(called) == 2 * 16
    be.evaluate(model, data)
    assert max(called) == 2 * 16
    called.clear()
    whole = be.predict(model, X, batch_size=100)
    assert called == [200]
    np.testing.assert_allclose(one.member_probs, whole.member_probs, atol=1e-6)
    called.clear()
    be.fit(model, (X, y), validation=data, epochs=1, batch_size=50, progress=False)
    assert max(called) == 100  # of training
