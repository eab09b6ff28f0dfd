"""A training ends when its time is used up, with its best weights and a small learning rate."""

import time
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

import batchensemble as be
from batchensemble.training.callbacks import time_budget as module

torch.manual_seed(0)
X = torch.randn(64, 2)
Y = (X.sum(1) > 0).long()
HELD_OUT = torch.randn(40, 2), torch.randint(2, (40,))


@pytest.fixture
def clock(monkeypatch):
    """A clock that shows what is set."""
    found = SimpleNamespace(now=100.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: found.now))
    return found


class Ticking(be.Callback):
    """A second passes with each step."""

    def __init__(self, clock):
        self.clock, self.rates = clock, []

    def on_step(self, run):
        self.clock.now += 1.0
        self.rates.append(run.lr)


def build():
    torch.manual_seed(1)
    return be.BatchEnsemble(nn.Linear(2, 2), members=2)


def trained(clock, model, seconds, **options):
    ticking = Ticking(clock)
    options = {"epochs": 1000, "batch_size": 16, "lr": 0.1, **options}
    return be.fit(model, (X, Y), time_budget=seconds, callbacks=[ticking], **options), ticking


def test_it_stops_at_the_step_in_which_the_time_is_used_up(clock):
    history, ticking = trained(clock, build(), 10.5)
    # The callback of the user's comes after the budget's, so a second is seen a step later.
    assert len(ticking.rates) == 12
    assert history.stopped == "the time budget of 10.5 s was used up at step 12, in epoch 3 of 1000"
    assert history.epochs == 3


def test_the_learning_rate_falls_within_the_budget(clock):
    _, ticking = trained(clock, build(), 100, cooldown=0.2)
    rates = ticking.rates
    assert rates[:79] == [0.1] * 79
    assert rates[-1] == pytest.approx(0, abs=1e-9)
    assert rates[91] == pytest.approx(0.1 * (100 - 91) / 20)


def test_a_long_budget_changes_nothing():
    model, same = build(), build()
    one = be.fit(model, (X, Y), epochs=3, batch_size=16, time_budget=1e6)
    other = be.fit(same, (X, Y), epochs=3, batch_size=16)
    assert one.losses == other.losses
    assert one.stopped == ""
    assert all(map(torch.equal, model.state_dict().values(), same.state_dict().values()))


def test_the_best_weights_are_restored(clock):
    model = build()
    options = {"validation": HELD_OUT, "evaluate_every": 1, "optimizer": "sgd"}
    history, _ = trained(clock, model, 30, **options)
    values = [each["nll"] for each in history.evaluations]
    assert history.best_score == min(values) < values[-1]
    assert be.evaluate(model, HELD_OUT)["nll"] == pytest.approx(history.best_score, rel=1e-5)


def test_the_time_before_a_checkpoint_counts(clock, tmp_path):
    class Stop(be.Callback):
        def on_step(self, run):
            if run.step == 9:
                raise KeyboardInterrupt

    model, kept = build(), {"checkpoints": tmp_path, "checkpoint_every": 4}
    options = {"epochs": 100, "batch_size": 16, "time_budget": 20.5, **kept}
    with pytest.raises(KeyboardInterrupt):
        be.fit(model, (X, Y), callbacks=[Ticking(clock), Stop()], **options)
    clock.now += 1000  # between the two runs
    ticking = Ticking(clock)
    history = be.fit(build(), (X, Y), resume=True, callbacks=[ticking], **options)
    assert 8 + len(ticking.rates) == 22
    assert "at step 22" in history.stopped


def test_with_more_time_it_goes_on(clock, tmp_path):
    kept = {"checkpoints": tmp_path}
    model = build()
    first, _ = trained(clock, model, 10, **kept)
    again, ticking = trained(clock, build(), 10, resume=True, **kept)
    assert (again.stopped, ticking.rates) == (first.stopped, [])
    more, ticking = trained(clock, build(), 20, resume=True, **kept)
    assert len(ticking.rates) > 5
    assert more.stopped.startswith("the time budget of 20 s")


def test_data_without_a_length_have_a_cooldown_by_time(clock):
    class Endless(IterableDataset):
        def __iter__(self):
            return iter(zip(X, Y, strict=True))

    ticking = Ticking(clock)
    loader = DataLoader(Endless(), 16)
    be.fit(build(), loader, epochs=100, lr=0.1, time_budget=20, callbacks=[ticking])
    assert ticking.rates[5] == 0.1
    assert ticking.rates[-1] == pytest.approx(0, abs=1e-9)


def test_by_the_true_clock():
    before = time.perf_counter()
    history = be.fit(build(), (X, Y), epochs=10**6, time_budget=0.3)
    assert history.stopped.startswith("the time budget of 0.3 s")
    assert time.perf_counter() - before > 0.3


@pytest.mark.parametrize(
    ("seconds", "error"), [(0, ValueError), (-1, ValueError), ("a", TypeError)]
)
def test_what_is_no_time_is_refused(seconds, error):
    with pytest.raises(error, match="time_budget must be a"):
        be.fit(build(), (X, Y), time_budget=seconds)
