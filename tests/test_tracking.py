"""Tracking: what the files of a training hold, and what trackers are told."""

import json

import pytest
import torch
from torch import nn

import batchensemble as be


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2))


def data(examples: int = 64):
    torch.manual_seed(1)
    X = torch.randn(examples, 2)
    return X, (X[:, 0] > 0).long()


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


class Losses(be.Callback):
    """The slow way: every step's losses of each member."""

    def __init__(self) -> None:
        self.seen = []

    def on_step(self, run):
        self.seen.append([float(run.losses[:, index].mean()) for index in range(run.model.members)])


def test_json_lines_hold_each_members_losses_and_the_scores(tmp_path):
    model, losses = be.BatchEnsemble(network(), 3), Losses()
    path = tmp_path / "new" / "history.jsonl"
    history = be.fit(
        model,
        data(),
        validation=data(),
        epochs=2,
        batch_size=16,
        callbacks=[losses, be.JsonLines(path, every=3)],
    )
    found = lines(path)
    steps = [line for line in found if line["event"] == "step"]
    assert [line["step"] for line in steps] == [3, 6]
    for line in steps:
        assert line["losses"] == pytest.approx(losses.seen[line["step"] - 1])
    scores = [line["nll"] for line in found if line["event"] == "evaluation"]
    assert scores == history.validation_nll
    epochs = [line for line in found if line["event"] == "epoch"]
    assert [line["loss"] for line in epochs] == history.losses
    assert [line["diagnostics"] for line in epochs] == history.diagnostics
    assert found[-1] == {"event": "end", "step": 8, "epoch": 2, "stopped": ""}


class Killed(be.Callback):
    """Ends the training as a kill does, some steps after a checkpoint."""

    def on_step(self, run):
        if run.step == 7:
            raise KeyboardInterrupt


@pytest.mark.parametrize("every", [2, 4])
def test_a_training_that_goes_on_writes_no_step_twice(tmp_path, every):
    def train(name, *callbacks):
        torch.manual_seed(0)
        path = tmp_path / f"{name}.jsonl"
        be.fit(
            be.BatchEnsemble(network(), 2),
            data(),
            epochs=3,
            batch_size=16,
            checkpoints=tmp_path / name,
            checkpoint_every=every,
            resume=True,
            callbacks=[be.JsonLines(path, every=1), *callbacks],
        )
        return [{**line, "seconds": 0} for line in lines(path)]

    with pytest.raises(KeyboardInterrupt):
        train("broken", Killed())
    assert len(lines(tmp_path / "broken.jsonl")) == 8
    assert train("broken") == train("whole")


def test_a_fresh_training_replaces_the_lines(tmp_path):
    path = tmp_path / "history.jsonl"
    for _ in range(2):
        be.fit(be.Single(network()), data(), epochs=1, callbacks=[be.JsonLines(path)])
    assert [line["event"] for line in lines(path)] == ["epoch", "end"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_tensorboard_reads_back_what_was_trained(tmp_path):
    pytest.importorskip("accelerate")
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    losses = Losses()
    tracker = be.Tracking("tensorboard", tmp_path, project="mine", every=2)
    history = be.fit(
        be.BatchEnsemble(network(), 2),
        data(),
        validation=data(),
        epochs=2,
        batch_size=16,
        callbacks=[losses],
        trackers=[tracker],
    )
    events = EventAccumulator(str(tmp_path / "mine"))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {"loss/member_0", "loss/member_1", "loss/mean", "lr", "held_out/nll"} <= tags
    assert {"diagnostics/disagreement", "diagnostics/member_nll/1"} <= tags
    member = events.Scalars("loss/member_1")
    assert [each.step for each in member] == [2, 4, 6, 8]
    for each in member:
        assert each.value == pytest.approx(losses.seen[each.step - 1][1])
    nll = [each.value for each in events.Scalars("held_out/nll")]
    assert nll == pytest.approx(history.validation_nll)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_tracker_by_name_writes_to_runs(tmp_path, monkeypatch):
    pytest.importorskip("accelerate")
    pytest.importorskip("tensorboard")
    monkeypatch.chdir(tmp_path)
    be.fit(be.Single(network()), data(), epochs=1, trackers="tensorboard", label="first")
    assert list((tmp_path / "runs" / "first").glob("events*"))


def test_unknown_and_missing_trackers_are_refused_before_training():
    with pytest.raises(ValueError, match="did you mean 'tensorboard'"):
        be.fit(be.Single(network()), data(), trackers=["tensorbord"])
    with pytest.raises(ImportError, match="pip install"):
        be.fit(be.Single(network()), data(), trackers=["wandb"])
