"""A row alone, which batch norm does not take, is told before the training."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import batchensemble as be

torch.manual_seed(0)
X, Y = torch.randn(130, 4), torch.randint(3, (130,))
MEMBERS = 3


def network(norm=True):
    between = [nn.BatchNorm1d(8)] if norm else []
    return nn.Sequential(nn.Linear(4, 8), *between, nn.ReLU(), nn.Linear(8, 3))


def build(kind=be.BatchEnsemble, **options):
    torch.manual_seed(1)
    return be.Single(network()) if kind is be.Single else kind(network(), MEMBERS, **options)


class OfOwn(nn.Module):
    """Standardises its rows as a user might: by their deviation, which one row does not have."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        if self.training and len(x) < 2:
            raise RuntimeError("needs two rows")
        return self.linear(x)


def examples(number):
    return X[:number], Y[:number]


@pytest.mark.parametrize("kind", [be.Single, be.BatchEnsemble, be.DeepEnsemble, be.MIMO])
@pytest.mark.parametrize("form", ["arrays", "dataset", "loader"])
def test_a_last_batch_of_one_is_told_with_a_size_that_works(kind, form):
    model, data = build(kind), examples(129)
    if form != "arrays":
        data = TensorDataset(*data)
        data = data if form == "dataset" else DataLoader(data, 128)
    before = {name: each.clone() for name, each in model.state_dict().items()}
    with pytest.raises(ValueError, match="129 examples in batches of 128 leave one over; give "):
        be.fit(model, data, epochs=1)
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
    if form != "loader":
        assert be.fit(model, data, epochs=1, batch_size=127).epochs == 1


@pytest.mark.parametrize(
    ("number", "options", "sentence", "cure"),
    [
        (
            128,
            {"batch_size": 32, "micro_batch": 31},
            "in parts of micro_batch=31 end in such a",
            32,
        ),
        (30, {"batch_size": 9, "micro_batch": 4}, "batches of 9 in parts of micro_batch=4", 5),
        (99, {"batch_size": 32, "batches": "split"}, "gives each member one of them as its", 31),
        (2, {"batches": "split"}, "a batch of 2 examples gives each member one", None),
        (128, {"batch_size": 1}, "batch_size=1 is such a row", 2),
        (1, {}, "there is one example; give at least two", None),
    ],
)
def test_parts_and_shares_of_one_row_are_told_too(number, options, sentence, cure):
    with pytest.raises(ValueError, match=sentence) as caught:
        be.fit(build(), examples(number), epochs=1, **options)
    if cure is not None:
        name = "micro_batch" if "micro_batch" in options else "batch_size"
        assert f"give {name}={cure}" in str(caught.value)
        be.fit(build(), examples(number), epochs=1, **{**options, name: cure})


def test_a_file_that_is_streamed_is_told_too(tmp_path):
    path = tmp_path / "points.csv"
    rows = [f"{','.join(map(str, x.tolist()))},{y}" for x, y in zip(*examples(129), strict=True)]
    path.write_text("\n".join(["a,b,c,d,y", *rows]))
    with pytest.raises(ValueError, match="leave one over; give batch_size=31"):
        be.fit(build(), path, target="y", memory_limit=1000, batch_size=32, epochs=1)


def test_any_network_that_wants_two_rows_is_told():
    model = be.DeepEnsemble(OfOwn(), MEMBERS, stacked=False)
    with pytest.raises(ValueError, match=r"take one row alone \(needs two rows\), and 9 examples"):
        be.fit(model, examples(9), batch_size=4, epochs=1)


def test_nothing_is_said_where_one_row_is_taken_or_left_out():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        be.fit(be.BatchEnsemble(network(norm=False), MEMBERS), examples(129), epochs=1)
        be.fit(build(be.MIMO, batch_repetition=2), examples(129), epochs=1)
        dropped = DataLoader(TensorDataset(*examples(129)), 16, drop_last=True)
        be.fit(build(), dropped, validation=examples(1), epochs=1)
        pictures = torch.randn(9, 1, 4, 4), Y[:9]  # four pixels a channel are more than one value
        convolution = nn.Sequential(
            nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3)
        )
        be.fit(be.BatchEnsemble(convolution, MEMBERS), pictures, batch_size=4, epochs=1)


def test_trying_it_leaves_no_trace(monkeypatch):
    """Neither in running statistics nor in what dropout draws: here one row has several values."""
    layers = [nn.Linear(4, 8), nn.Unflatten(1, (2, 4)), nn.BatchNorm1d(2), nn.Dropout(0.5)]

    def trained():
        torch.manual_seed(2)
        network = nn.Sequential(*copy.deepcopy(layers), nn.Flatten(), nn.Linear(8, 3))
        model = be.BatchEnsemble(network, MEMBERS)
        be.fit(model, examples(33), batch_size=32, epochs=2)
        return model.state_dict()

    found = trained()
    monkeypatch.setattr("batchensemble.training.preparation.check_smallest_batch", lambda *_: None)
    for name, value in trained().items():
        assert torch.equal(value, found[name]), name


@pytest.mark.parametrize("kind", ["sampler", "iterable"])
def test_what_no_one_could_know_is_told_when_it_happens(kind):
    class Rows(IterableDataset):
        def __iter__(self):
            yield from zip(*examples(5), strict=True)

    data = Rows() if kind == "iterable" else TensorDataset(*examples(5))
    options = {"batch_size": 4} if kind == "iterable" else {"batch_sampler": [[0, 1], [2]]}
    with pytest.raises(ValueError, match=r"is one row alone, .* drop_last=True to the DataLoader"):
        be.fit(build(), DataLoader(data, **options), epochs=1, cooldown=0.0)


@pytest.mark.parametrize("kind", [be.Single, be.BatchEnsemble])
def test_a_call_outside_of_fit_is_told_what_batch_norm_needs(kind):
    class Net(nn.Module):  # rows, as networks of one's own have them
        def __init__(self):
            super().__init__()
            self.layers = network()

        def forward(self, x):
            return self.layers(x)

    model = be.Single(Net()) if kind is be.Single else kind(Net(), MEMBERS)
    with pytest.raises(be.ensembles.base.ForwardError, match="Batch norm needs two rows") as said:
        model.train()(X[:1])
    assert "verify" not in str(said.value)
