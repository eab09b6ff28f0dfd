"""Five hooks, in their order; one may end the training."""

import pytest
import torch
from torch import nn

import batchensemble as be

X, Y = torch.randn(20, 4), torch.randint(2, (20,))


def fit(*callbacks, **options):
    torch.manual_seed(0)
    model = be.BatchEnsemble(nn.Linear(4, 2), 3)
    options = {"epochs": 2, "batch_size": 10, "validation": (X, Y), **options}
    return model, be.fit(model, (X, Y), callbacks=callbacks, **options)


class Diary(be.Callback):
    def __init__(self):
        self.lines = []

    def on_start(self, run):
        self.lines.append(("start", run.step, run.epoch))

    def on_step(self, run):
        assert run.losses.shape == (10, 3)
        assert run.lr >= 0
        self.lines.append(("step", run.step, run.epoch))

    def on_evaluation(self, run):
        self.lines.append(("evaluation", run.history.evaluations[-1]["step"], run.epoch))

    def on_epoch(self, run):
        assert len(run.history.losses) == run.epoch
        self.lines.append(("epoch", run.step, run.epoch))

    def on_end(self, run):
        self.lines.append(("end", run.step, run.epoch))


def test_the_hooks_are_called_in_order():
    fit(diary := Diary())
    assert diary.lines == [
        ("start", 0, 0),
        ("step", 1, 0),
        ("step", 2, 0),
        ("evaluation", 2, 1),
        ("epoch", 2, 1),
        ("step", 3, 1),
        ("step", 4, 1),
        ("evaluation", 4, 2),
        ("epoch", 4, 2),
        ("end", 4, 2),
    ]


def test_one_may_end_the_training_after_a_step():
    class Enough(be.Callback):
        def on_step(self, run):
            if run.step == 3:
                run.stop("it is enough")

    _, history = fit(Enough(), diary := Diary())
    assert history.stopped == "it is enough"
    assert history.to_dict()["stopped"] == "it is enough"
    assert history.examples == [20, 10]
    assert diary.lines[-1] == ("end", 3, 2)


def test_an_error_in_one_ends_the_training_and_leaves_whole_parameters():
    class Broken(be.Callback):
        def on_step(self, run):
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        fit(Broken())


def test_members_can_be_taken_out_while_it_runs():
    class TakesOut(be.Callback):
        def on_epoch(self, run):
            self.member = run.model.member(1)

    model, _ = fit(taker := TakesOut())
    torch.testing.assert_close(taker.member(X), model(X)[:, 1])
