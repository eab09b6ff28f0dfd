"""A share of the rows is held out: exact, drawn by the seed, with the classes' proportions."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import batchensemble as be
from batchensemble.data.tables.split import hold_out

RNG = np.random.default_rng(0)
X = RNG.normal(size=(100, 3)).astype(np.float32)
Y = np.repeat([0, 1, 2], [70, 20, 10])


def build(outputs=3):
    torch.manual_seed(1)
    return be.BatchEnsemble(nn.Linear(3, outputs), members=2)


class Seen(be.Callback):
    """Keeps what a training trains on and is scored on."""

    def on_start(self, run):
        stopping = next(each for each in run.callbacks if hasattr(each, "stop_on"))
        self.train, self.held_out = run.batches, stopping.batches


def parts(data, share=0.2, **options):
    seen = Seen()
    history = be.fit(build(), data, validation=share, callbacks=[seen], epochs=1, **options)
    return seen.train, seen.held_out, history


@pytest.mark.parametrize("share", [0.1, 0.2, 0.35, 0.5, 0.9])
def test_every_row_is_in_one_part_and_classes_keep_their_shares(share):
    train, held_out = hold_out(100, share, seed=3, classes=Y)
    assert sorted([*train, *held_out]) == list(range(100))
    assert len(held_out) == round(100 * share)
    for label, count in Counter(Y.tolist()).items():
        held = int((Y[held_out] == label).sum())
        assert abs(held - share * count) <= 1
        assert held < count


def test_few_rows_and_classes_of_one_row():
    train, held_out = hold_out(2, 0.01, seed=0)
    assert len(train) == len(held_out) == 1
    labels = np.array([0, 1, 2, 3, 3])
    for seed in range(5):
        assert labels[hold_out(5, 0.5, seed=seed, classes=labels)[1]].tolist() == [3]
    train, held_out = hold_out(4, 0.5, seed=0, classes=np.arange(4))  # not one class has two
    assert len(train) == len(held_out) == 2
    with pytest.raises(ValueError, match="at least 2 rows"):
        hold_out(1, 0.5, seed=0)


def test_what_is_held_out_is_not_trained_on():
    weights = np.arange(1.0, 101.0)
    train, held_out, history = parts((X, Y, weights))
    assert (len(train.inputs), len(held_out.inputs)) == (80, 20)
    both = torch.cat([train.inputs, held_out.inputs]).numpy()
    order = np.lexsort(both.T)
    assert np.array_equal(both[order], X[np.lexsort(X.T)])
    for part in (train, held_out):
        rows = [np.flatnonzero((each.numpy() == X).all(1))[0] for each in part.inputs]
        assert part.targets.tolist() == Y[rows].tolist()
        assert part.weights.tolist() == weights[rows].tolist()
    assert Counter(held_out.targets.tolist()) == {0: 14, 1: 4, 2: 2}
    assert history.examples == [80]
    assert len(history.evaluations) == 1


def test_the_seed_decides_which():
    one, other = parts((X, Y), seed=1)[1], parts((X, Y), seed=2)[1]
    assert torch.equal(one.inputs, parts((X, Y), seed=1, batch_size=7)[1].inputs)
    assert not torch.equal(one.inputs, other.inputs)
    torch.manual_seed(5)
    first = parts((X, Y), seed=None)[1]
    torch.manual_seed(5)
    assert torch.equal(first.inputs, parts((X, Y), seed=None)[1].inputs)


def test_it_is_the_training_on_the_parts():
    model, same = build(), build()
    train, held_out, history = parts((X, Y))
    given = (held_out.inputs, held_out.targets)
    expected = be.fit(same, (train.inputs, train.targets), validation=given, epochs=1)
    be.fit(model, (X, Y), validation=0.2, epochs=1)
    assert history.validation_nll == expected.validation_nll
    assert all(map(torch.equal, model.state_dict().values(), same.state_dict().values()))


def test_tables_are_divided_with_their_classes(tmp_path):
    frame = pd.DataFrame(X, columns=list("abc"))
    frame["kind"] = np.array(["x", "y", "z"])[Y]
    frame.to_csv(tmp_path / "table.csv", index=False)
    for data in (frame, tmp_path / "table.csv"):
        train, held_out, history = parts(data, target="kind")
        assert (len(train.inputs), len(held_out.inputs)) == (80, 20)
        assert history.class_names == ["x", "y", "z"]


def test_means_of_targets_are_those_of_the_rows_to_train_on():
    y = np.where(np.arange(100) < 50, 0.0, 1000.0) + X[:, 0]
    seen = Seen()
    model = build(1)
    options = {"loss": "mse", "standardise_targets": True, "epochs": 1}
    be.fit(model, (X, y), validation=0.3, callbacks=[seen], **options)
    assert model.loss.mean[0] == pytest.approx(seen.train.targets.double().mean().item())


def test_a_resumed_training_holds_the_same_rows_out(tmp_path):
    options = {"seed": 3, "patience": 9, "cooldown": 0.0, "batch_size": 16}
    kept = {**options, "checkpoints": tmp_path}
    model, same = build(), build()
    be.fit(same, (X, Y), validation=0.2, epochs=4, **options)
    be.fit(build(), (X, Y), validation=0.2, epochs=2, **kept)
    with pytest.raises(be.CheckpointError, match="data"):
        be.fit(build(), (X, Y), validation=0.3, epochs=4, resume=True, **kept)
    be.fit(model, (X, Y), validation=0.2, epochs=4, resume=True, **kept)
    assert all(map(torch.equal, model.state_dict().values(), same.state_dict().values()))


@pytest.mark.parametrize(
    ("data", "share", "sentence"),
    [
        ((X, Y), 0, "above 0 and below 1, got 0"),
        ((X, Y), 1.5, "above 0 and below 1, got 1.5"),
        ((X, Y), float("nan"), "above 0 and below 1, got nan"),
        ((X[:1], Y[:1]), 0.5, "at least 2 rows"),
        (DataLoader(TensorDataset(torch.tensor(X), torch.tensor(Y)), 8), 0.2, "random_split"),
        (TensorDataset(torch.tensor(X), torch.tensor(Y)), 0.2, "random_split"),
    ],
)
def test_what_cannot_be_divided_is_refused(data, share, sentence):
    with pytest.raises(ValueError, match=sentence):
        be.fit(build(), data, validation=share, epochs=1)
    with pytest.raises(TypeError, match="above 0 and below 1, got True"):
        be.fit(build(), (X, Y), validation=True)


def test_a_streamed_file_is_not_divided(tmp_path):
    path = tmp_path / "table.csv"
    pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "c": X[:, 2], "y": Y}).to_csv(path, index=False)
    with pytest.raises(ValueError, match="files larger than memory_limit cannot be divided"):
        be.fit(build(), path, target="y", validation=0.2, memory_limit=100, epochs=1)
