"""Several inputs as arrays train, predict and score like a loader of the same batches."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import batchensemble as be
from batchensemble.data.batches import make_batches
from batchensemble.training.sampling import shares

RNG = np.random.default_rng(0)
N = 37
NUMBERS = RNG.normal(size=(N, 3))
KINDS = RNG.integers(5, size=(N, 2)).astype(np.int32)
FLAG = RNG.normal(size=N)
Y = RNG.integers(2, size=N)
PLACE = {"device": torch.device("cpu"), "dtype": torch.float32}
FORMS = {
    "tuple": (NUMBERS, KINDS, FLAG),
    "dictionary": {"flag": FLAG, "kinds": KINDS, "numbers": NUMBERS},
    "tensors": (torch.tensor(NUMBERS), torch.tensor(KINDS), torch.tensor(FLAG)),
}


class Network(nn.Module):
    """Takes numbers, kinds and a flag an example."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 2)
        self.hidden = nn.Linear(3 + 4 + 1, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, numbers, kinds, flag):
        parts = numbers, self.embedding(kinds).flatten(1), flag[:, None]
        return self.head(self.hidden(torch.cat(parts, 1)).relu())


class Rows(Dataset):
    """The same examples one by one."""

    def __init__(self, form):
        self.form = form

    def __len__(self):
        return N

    def __getitem__(self, row):
        one = np.float32(NUMBERS[row]), KINDS[row].astype(np.int64), np.float32(FLAG[row])
        named = dict(zip(("numbers", "kinds", "flag"), one, strict=True))
        return (named if self.form == "dictionary" else one), Y[row]


def build(kind=be.BatchEnsemble):
    torch.manual_seed(1)
    return kind(Network(), members=3)


def same(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(*pair) for pair in pairs)


@pytest.mark.parametrize("form", FORMS)
def test_a_training_is_that_of_a_loader_of_the_same_batches(form):
    model, loaded = build(), build()
    options = {"epochs": 3, "batch_size": 8, "lr": 0.01}
    history = be.fit(model, (FORMS[form], Y), shuffle=False, **options)
    expected = be.fit(loaded, DataLoader(Rows(form), 8), **options)
    assert history.losses == expected.losses
    assert same(model, loaded)
    whole = DataLoader(Rows(form), N)
    found, known = be.predict(model, FORMS[form]), be.predict(loaded, whole)
    assert np.array_equal(found.member_probs, known.member_probs)
    scores = be.evaluate(model, (FORMS[form], Y))
    assert scores["nll"] == be.evaluate(loaded, whole)["nll"]


@pytest.mark.parametrize("draw", ["shared", "independent", "split"])
def test_each_member_gets_whole_examples(draw):
    steps = {
        "shared": None,
        "independent": lambda order: torch.stack([order, order.flip(-1), order.roll(1, -1)], -2),
        "split": lambda order: shares(order, 3),
    }[draw]
    batches = make_batches((FORMS["tuple"], Y), 8, **PLACE, shuffle=True, draw=steps)
    for inputs, targets in batches.starting_at(0):
        numbers, kinds, flag = inputs.values
        assert kinds.dtype == torch.int64
        assert numbers.dtype == flag.dtype == torch.float32
        assert len(inputs) == len(targets)
        for own_flag, own_numbers, own_kinds, label in zip(
            flag.flatten(), numbers.flatten(0, -2), kinds.flatten(0, -2), targets.flatten(),
            strict=True,
        ):  # fmt: skip
            row = np.abs(FLAG - own_flag.item()).argmin()
            assert np.allclose(own_numbers, NUMBERS[row])
            assert own_kinds.tolist() == KINDS[row].tolist()
            assert label == Y[row]


@pytest.mark.parametrize("draw", ["shared", "independent", "split"])
@pytest.mark.parametrize("kind", [be.BatchEnsemble, be.DeepEnsemble])
def test_every_way_to_draw_trains(kind, draw):
    model = build(kind)
    options = {"batches": draw, "validation": 0.2, "patience": 5, "micro_batch": 4}
    history = be.fit(model, (FORMS["dictionary"], Y), epochs=2, batch_size=8, **options)
    assert np.isfinite(history.losses).all()
    assert be.predict(model, FORMS["dictionary"]).probs.shape == (N, 2)


def test_weights_and_checkpoints_go_with_several_inputs(tmp_path):
    class Stop(be.Callback):
        def on_step(self, run):
            if run.step == 7:
                raise KeyboardInterrupt

    weights = np.linspace(0.5, 2, N)
    data = FORMS["tuple"], Y, weights
    options = {"epochs": 3, "batch_size": 8, "validation": data}
    model, again = build(), build()
    be.fit(model, data, **options)
    kept = {"checkpoints": tmp_path, "checkpoint_every": 2}
    with pytest.raises(KeyboardInterrupt):
        be.fit(build(), data, callbacks=[Stop()], **kept, **options)
    other = (NUMBERS, KINDS, FLAG + 1)
    with pytest.raises(be.CheckpointError, match="data"):
        be.fit(build(), (other, Y, weights), resume=True, **kept, **options)
    be.fit(again, data, resume=True, **kept, **options)
    assert same(model, again)


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize(
    ("X", "error", "sentence"),
    [
        ({**FORMS["dictionary"], "flag": FLAG[1:]}, ValueError, "36 in X.'flag'., 37 in X.'kinds"),
        ((NUMBERS, KINDS, np.where(np.arange(N) == 4, np.nan, FLAG)), ValueError, r"X\[2\] must be"
         r" finite, got nan in row 5, X\[2\]\[4\]"),
        ({**FORMS["dictionary"], "flag": True}, ValueError, "X.'flag'. must have the shape"),
        ({**FORMS["dictionary"], "flag": ["a"] * N}, TypeError, "X.'flag'. must hold numbers"),
        ((pd.DataFrame(NUMBERS), KINDS, FLAG), TypeError, r"X\[0\] must be an array.*to_numpy"),
        ({}, ValueError, "at least one array"),
        ((NUMBERS, KINDS), ValueError, "network does not take"),
        ({**FORMS["dictionary"], "more": FLAG}, ValueError, "network does not take"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(X, error, sentence):
    model = build()
    for run in (lambda: be.fit(model, (X, Y), epochs=1), lambda: be.predict(model, X)):
        with pytest.raises(error, match=sentence):
            run()


def test_lists_of_rows_are_one_array():
    model = be.BatchEnsemble(nn.Linear(2, 2), members=2)
    rows = [np.array([0.0, 1.0]), np.array([1.0, 0.0]), np.array([1.0, 1.0])]
    be.fit(model, (rows, [0, 1, 1]), epochs=1)
    assert be.predict(model, ((0.0, 1.0), (1.0, 0.0))).probs.shape == (2, 2)
