"""A callback finds its state again under its key, and what is missing is said."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

import batchensemble as be
from batchensemble.training.callbacks.diagnostics import MemberDiagnostics
from batchensemble.training.callbacks.validation import EarlyStopping
from batchensemble.training.callbacks.weight_averaging import WeightAveraging
from batchensemble.training.checkpoints.callback_states import callbacks_by_name
from batchensemble.training.checkpoints.store import CheckpointError

pytestmark = pytest.mark.usefixtures("as_users_run_it")

# Exact numbers, whose checksum is the same everywhere.
X, Y = torch.arange(240.0).view(60, 4) % 7 / 8, torch.arange(60) // 5 % 2
HELD_OUT = X[:20] / 2, Y[:20]
BEFORE = Path(__file__).parent / "format-3"


class Counting(be.Callback):
    """Counts steps, as early stopping of one's own would count epochs."""

    def __init__(self):
        self.steps = 0

    def on_step(self, run):
        self.steps += 1

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]


def renamed(**attributes):
    """Return the class of another name, and some attributes."""
    return type("Counted", (Counting,), attributes)


def train(folder, *callbacks, **options):
    torch.manual_seed(1)
    model = be.Single(nn.Linear(4, 2))
    settings = {"epochs": 1, "batch_size": 15, "lr": 0.01, "seed": 4, **options}
    return be.fit(model, (X, Y), checkpoints=folder, callbacks=callbacks, **settings)


def go_on(folder, *callbacks, **options):
    return train(folder, *callbacks, **{"epochs": 2, "cooldown": 0.0, "resume": True, **options})


def start(folder, *callbacks, **options):
    return train(folder, *callbacks, cooldown=0.0, **options)


def test_a_renamed_class_goes_on_under_the_key_it_had(tmp_path):
    start(tmp_path, Counting())
    go_on(tmp_path, found := renamed(key="Counting")())
    assert found.steps == 8


def test_so_does_one_whose_key_is_new_or_changed(tmp_path):
    start(tmp_path, Counting())
    go_on(tmp_path, found := type("Counting", (Counting,), {"key": "steps"})())
    assert found.steps == 8
    go_on(tmp_path, found := renamed(key="count", earlier_keys=("steps",))(), epochs=3)
    assert found.steps == 12


def test_a_renamed_class_without_a_key_is_refused(tmp_path):
    start(tmp_path, Counting())
    sentence = r"has the state of 'Counting' and none of Counted; if .* key = 'Counting'"
    with pytest.raises(CheckpointError, match=sentence):
        go_on(tmp_path, renamed()())
    go_on(tmp_path, found := renamed(optional_state=True)(), key := Counting())
    assert (found.steps, key.steps) == (4, 8)


def test_a_state_that_nobody_takes_and_one_that_is_missing_are_said(tmp_path):
    start(tmp_path, Counting())
    with pytest.warns(UserWarning, match=r"has the state of a callback 'Counting', which this"):
        go_on(tmp_path)
    with pytest.warns(
        UserWarning, match=r"Counting starts without a state: the checkpoint has none"
    ):
        go_on(tmp_path, found := Counting(), epochs=3)
    assert found.steps == 4


def test_two_of_one_class_keep_their_own(tmp_path):
    two = renamed(key="first")(), renamed(key="second")()
    two[1].steps = 100
    start(tmp_path, *two)
    found = renamed(key="second")(), renamed(key="first")()
    go_on(tmp_path, *found)
    assert [each.steps for each in found] == [108, 8]


def test_without_keys_they_go_by_their_order_and_one_less_is_refused(tmp_path):
    start(tmp_path, Counting(), Counting())
    with pytest.raises(
        CheckpointError, match=r"the states of 2 callbacks 'Counting', .* there are 1"
    ):
        go_on(tmp_path, Counting())
    go_on(tmp_path, one := Counting(), other := Counting())
    assert one.steps == other.steps == 8


@pytest.mark.parametrize("key", ["a/b", "of 1 of 2", "", ".hidden"])
def test_a_key_is_a_name(tmp_path, key):
    if not key:
        assert list(callbacks_by_name([renamed(key="")()])) == ["Counted 1"]
        return
    with pytest.raises(ValueError, match="the key of a callback must be letters"):
        train(tmp_path, renamed(key=key)())
    assert not list(tmp_path.iterdir())


def dropped(folder, name):
    """Take a state out of a checkpoint, as a rename of a class of the package would."""
    from batchensemble.training.checkpoints.store import Checkpoints, read_checkpoint

    newest = max(folder.glob("step-*"))
    found = read_checkpoint(newest)
    state = {**found.state, "parts": {**found.state["parts"]}}
    del state["parts"][name]
    shutil.rmtree(newest)
    Checkpoints(folder).save(newest.name, found.tensors, state, wait=True)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"patience": 5}, "held-out scores 1"),
        ({"schedule": be.Plateau(1)}, "held-out scores 1"),
        ({"average": 0.9}, "moving average 1"),
    ],
)
def test_a_lost_state_that_the_training_goes_by_is_refused(tmp_path, options, name):
    start(tmp_path, validation=HELD_OUT, **options)
    dropped(tmp_path, name)
    with pytest.raises(CheckpointError, match=f"has no state of '{name[:-2]}', which the training"):
        go_on(tmp_path, validation=HELD_OUT, **options)


def test_keys_are_those_that_checkpoints_have():
    """Other names would lose what users have stored."""
    known = [EarlyStopping, WeightAveraging, MemberDiagnostics, be.JsonLines]
    assert [(each.key, each.earlier_keys) for each in known] == [
        ("held-out scores", ("Evaluating",)),
        ("moving average", ("Averaging",)),
        ("diagnostics", ("Watching",)),
        ("json lines", ("JsonLines",)),
    ]


class Looking(be.Callback):
    """Notes the states with which a training goes on."""

    def on_start(self, run):
        self.evaluating = next(each for each in run.callbacks if isinstance(each, EarlyStopping))
        self.best = self.evaluating.best, self.evaluating.best_step, self.evaluating.waiting
        self.averaged = next(
            each for each in run.callbacks if isinstance(each, WeightAveraging)
        ).steps


def test_a_checkpoint_of_the_version_before_is_gone_on_with(tmp_path):
    """It was written with the classes' names, by the version that knew no keys."""
    shutil.copytree(BEFORE, folder := tmp_path / "checkpoints")
    options = {"epochs": 6, "average": 0.9, "patience": 9, "validation": HELD_OUT}
    lines = be.JsonLines(tmp_path / "lines")
    history = train(folder, count := Counting(), look := Looking(), lines, resume=True, **options)
    stored = json.loads((next(BEFORE.iterdir()) / "state.json").read_text())["state"]
    best = dict(stored["parts"]["Evaluating 1"]["dict"])["best"]
    assert [*look.best, look.averaged] == [*best[:3], 12]
    assert count.steps == 24
    assert history.losses[:2] == stored["history"]["losses"]


def test_in_one_of_the_version_before_a_renamed_class_is_refused_too(tmp_path):
    shutil.copytree(BEFORE, folder := tmp_path / "checkpoints")
    options = {"epochs": 6, "average": 0.9, "patience": 9, "validation": HELD_OUT}
    with pytest.raises(CheckpointError, match="has the state of 'Counting' and none of Counted"):
        train(folder, renamed()(), resume=True, **options)
