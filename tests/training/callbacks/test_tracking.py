"""Tracking: what the files of a training hold, and what trackers are told."""

import json
import re
import sys
import time

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

    def __init__(self, step=7):
        self.step = step

    def on_step(self, run):
        if run.step == self.step:
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


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("every", [None, 2])
def test_tensorboard_has_no_step_twice_after_a_resume(tmp_path, every):
    """The checkpoint is of the end of an epoch, or of its last step, before its scores."""
    pytest.importorskip("accelerate")
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def train(name, *callbacks, resume=True):
        torch.manual_seed(0)
        be.fit(
            be.BatchEnsemble(network(), 2),
            data(),
            validation=data(),
            evaluate_every=3,
            epochs=3,
            batch_size=16,
            checkpoints=tmp_path / f"{name}-checkpoints",
            checkpoint_every=every,
            resume=resume,
            callbacks=callbacks,
            trackers=[be.Tracking("tensorboard", tmp_path, project=name, every=1)],
        )
        events = EventAccumulator(str(tmp_path / name))
        events.Reload()
        tags = events.Tags()["scalars"]
        return {tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in tags}

    expected = train("whole")
    with pytest.raises(KeyboardInterrupt):
        train("broken", Killed(7 if every is None else 9))
    time.sleep(1.1)  # TensorBoard orders files by the second in their name
    found = train("broken")
    assert found.keys() == expected.keys()
    for tag, points in expected.items():
        assert found[tag] == points, tag


STAND_INS = {
    "wandb": """
calls = []

class Run:
    def log(self, values, step=None):
        calls.append(("log", values, step))

    def finish(self):
        calls.append(("finish",))

class config:
    @staticmethod
    def update(values, allow_val_change):
        calls.append(("config", values))

def init(project, **options):
    calls.append(("init", project, options))
    return Run()
""",
    "mlflow": """
from types import SimpleNamespace

calls = []
utils = SimpleNamespace(
    validation=SimpleNamespace(MAX_PARAM_VAL_LENGTH=500, MAX_PARAMS_TAGS_PER_BATCH=100)
)

def search_experiments(filter_string):
    return []

def create_experiment(name, **options):
    calls.append(("init", name, {}))
    return "1"

def start_run(**options):
    calls[-1][2].update({name: each for name, each in options.items() if name == "tags"})

def log_params(values):
    calls.append(("config", values))

def log_metrics(values, step=None):
    calls.append(("log", values, step))

def end_run():
    calls.append(("finish",))
""",
}


@pytest.mark.parametrize("name", STAND_INS)
def test_the_others_are_called_as_their_packages_want_it(tmp_path, monkeypatch, name):
    """By stand-ins that note their calls, behind accelerate's own trackers."""
    pytest.importorskip("accelerate")
    (tmp_path / f"{name}.py").write_text(STAND_INS[name])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, name, raising=False)
    losses, settings = Losses(), {"members": 2}
    tracker = be.Tracking(name, project="moons", every=2, config=settings, tags=["first"])
    history = be.fit(
        be.BatchEnsemble(network(), 2),
        data(),
        validation=data(),
        epochs=2,
        batch_size=16,
        callbacks=[losses],
        trackers=[tracker],
    )
    calls = sys.modules.pop(name).calls
    assert calls[0] == ("init", "moons", {"tags": ["first"]})
    assert calls[1] == ("config", settings)
    assert calls[-1] == ("finish",)
    assert [call[0] for call in calls].count("finish") == 1
    steps = [call for call in calls if call[0] == "log" and "lr" in call[1]]
    assert [step for *_, step in steps] == [2, 4, 6, 8]
    for _, values, step in steps:
        assert values["loss/member_1"] == pytest.approx(losses.seen[step - 1][1])
    scores = [call for call in calls if call[0] == "log" and "held_out/nll" in call[1]]
    assert [values["held_out/nll"] for _, values, _ in scores] == history.validation_nll
    assert [step for *_, step in scores] == [4, 8]
    every = [step for *_, step in calls[2:-1]]
    assert every == sorted(every)  # Weights & Biases drops a step that lies before the last one


@pytest.mark.filterwarnings("ignore")
def test_mlflow_itself_reads_back_what_was_trained(tmp_path, monkeypatch):
    pytest.importorskip("accelerate")
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri(tmp_path.as_uri())
    tracker = be.Tracking("mlflow", project="moons", every=2, config={"members": 2})
    model, losses = be.BatchEnsemble(network(), 2), Losses()
    be.fit(model, data(), epochs=2, batch_size=16, callbacks=[losses], trackers=[tracker])
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("moons").experiment_id
    (run,) = client.search_runs([experiment])
    assert run.data.params == {"members": "2"}
    points = client.get_metric_history(run.info.run_id, "loss/member_1")
    assert {each.step: each.value for each in points} == {
        step: pytest.approx(losses.seen[step - 1][1]) for step in (2, 4, 6, 8)
    }


@pytest.mark.filterwarnings("ignore")
def test_wandb_itself_keeps_an_offline_run(tmp_path, monkeypatch, capsys):
    pytest.importorskip("accelerate")
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    tracker = be.Tracking("wandb", project="moons", every=2, dir=str(tmp_path))
    model, losses = be.BatchEnsemble(network(), 2), Losses()
    be.fit(model, data(), epochs=2, batch_size=16, callbacks=[losses], trackers=[tracker])
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    told = re.findall(r"loss/member_1 +(\d\S*)\n", capsys.readouterr().err)  # its last value
    assert float(told[-1]) == pytest.approx(losses.seen[7][1], abs=1e-4)


def test_unknown_and_missing_trackers_are_refused_before_training(monkeypatch):
    with pytest.raises(ValueError, match="did you mean 'tensorboard'"):
        be.fit(be.Single(network()), data(), trackers=["tensorbord"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install"):
        be.fit(be.Single(network()), data(), trackers=["wandb"])
