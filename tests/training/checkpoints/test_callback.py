"""A training that is interrupted goes on bit by bit as if nothing had happened."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import batchensemble as be
from batchensemble.training.callbacks.base import Callback
from batchensemble.training.checkpoints.snapshot import join_tensors, split_tensors
from batchensemble.training.checkpoints.store import CHECKPOINT_FORMAT, CheckpointError
from batchensemble.training.optim.schedules import Plateau

# Types are checked in other tests; here that would take longer than what is tested.
pytestmark = pytest.mark.usefixtures("as_users_run_it")

torch.manual_seed(0)
X, Y = torch.randn(60, 4), torch.randint(2, (60,))
VALIDATION = torch.randn(20, 4), torch.randint(2, (20,))


class Interrupt(Callback):
    """Ends a training by an error after so many steps."""

    def __init__(self, step):
        self.step = step

    def on_step(self, run):
        if run.step == self.step:
            raise KeyError("power")


def build(method=be.BatchEnsemble, members=3, width=8):
    torch.manual_seed(1)
    layers = [nn.Linear(4, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.3)]
    return method(nn.Sequential(*layers, nn.Linear(width, 2)), members)


def train(model, folder=None, data=(X, Y), **options):
    arguments = {"epochs": 3, "batch_size": 7, "lr": 0.01, "seed": 4, **options}
    return be.fit(model, data, checkpoints=folder, **arguments)


def assert_same_run(models, histories):
    one, other = (model.state_dict() for model in models)
    for name, value in one.items():
        assert torch.equal(value, other[name]), name
    numbers = [history.to_dict() for history in histories]
    for each in numbers:
        del each["seconds"]
    assert numbers[0] == numbers[1]


OPTIONS = {
    "the default": {},
    "validation": {"validation": VALIDATION},
    "patience": {"validation": VALIDATION, "patience": 2, "evaluate_every": 3},
    "plateau": {"validation": VALIDATION, "schedule": Plateau(1)},
    "average": {"validation": VALIDATION, "average": 0.9},
    "sgd, cosine": {"optimizer": "sgd", "schedule": "cosine", "warmup": 3},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.1, "fast_lr_multiplier": 2.0},
    "its own": {"optimizer": lambda p: torch.optim.RMSprop(p, lr=0.01), "micro_batch": 4},
    "scheduler": {"schedule": lambda o: torch.optim.lr_scheduler.StepLR(o, 5), "clip": 0.1},
    "split": {"batches": "split"},
    "independent": {"batches": "independent"},
    "bf16": {"precision": "bf16"},
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("step", [1, 9, 13])
def test_it_goes_on_bit_by_bit(tmp_path, name, step):
    """9 steps are an epoch: one of the interruptions is in it, one at its end, one after it."""
    unbroken, broken = build(), build()
    expected = train(unbroken, **OPTIONS[name])
    with pytest.raises(KeyError):
        train(
            broken,
            tmp_path,
            checkpoint_every=step,
            callbacks=[Interrupt(step + 1)],
            **OPTIONS[name],
        )
    again = build()
    found = train(
        again,
        tmp_path,
        resume=True,
        callbacks=[Interrupt(-1)],
        **OPTIONS[name],
    )
    assert_same_run([unbroken, again], [expected, found])


@pytest.mark.parametrize("method", [be.DeepEnsemble, be.BatchEnsemble])
def test_so_does_a_loader_in_random_order(tmp_path, method):
    data = DataLoader(TensorDataset(X, Y), 7, shuffle=True)
    unbroken, broken, again = build(method), build(method), build(method)
    expected = train(unbroken, data=data)
    with pytest.raises(KeyError):
        train(broken, tmp_path, data=data, checkpoint_every=2, callbacks=[Interrupt(13)])
    found = train(
        again, tmp_path, data=data, checkpoint_every=2, resume=True, callbacks=[Interrupt(-1)]
    )
    assert_same_run([unbroken, again], [expected, found])


def test_checkpoints_change_nothing_in_the_training(tmp_path):
    models = [build(), build()]
    histories = [train(models[0]), train(models[1], tmp_path, checkpoint_every=2)]
    assert_same_run(models, histories)


def test_without_a_checkpoint_it_starts_afresh_and_a_finished_one_is_left_as_it_is(tmp_path):
    models = [build(), build(), build()]
    histories = [train(models[0]), train(models[1], tmp_path, resume=True)]
    assert_same_run(models[:2], histories)
    again = train(models[2], tmp_path, resume=True)
    assert_same_run(models[1:], [histories[1], again])


def test_more_epochs_may_follow(tmp_path):
    model = build()
    train(model, tmp_path, epochs=2, cooldown=0.0)
    history = train(build(), tmp_path, epochs=3, cooldown=0.0, resume=True)
    assert history.epochs == 3
    assert history.losses == train(build(), epochs=3, cooldown=0.0).losses


def test_the_last_few_stay(tmp_path):
    train(build(), tmp_path, checkpoint_every=4, keep=3)
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "step-000000020",
        "step-000000024",
        "step-000000027",
    ]


def test_a_folder_in_use_is_refused_before_a_callback_is_told(tmp_path):
    lines = tmp_path / "lines"
    train(build(), tmp_path / "kept", epochs=1, callbacks=[be.JsonLines(lines)])
    before = lines.read_text()
    with pytest.raises(CheckpointError, match="give resume=True to resume it"):
        train(build(), tmp_path / "kept", epochs=1, callbacks=[be.JsonLines(lines)])
    assert lines.read_text() == before


def squared(outputs, targets):
    return outputs.pow(2).mean(-1)


class Ours:
    """A loss whose repr has an address."""

    def __call__(self, outputs, targets):
        return squared(outputs, targets)


OTHERS = [
    ({}, {"loss": be.losses.CrossEntropy(label_smoothing=0.1)}, "its loss is CrossEntropy"),
    ({}, {"label_smoothing": 0.1}, r"here it is CrossEntropy\(.*label_smoothing=0.1\)"),
    ({}, {"class_weight": [1, 2]}, r"its loss .*class_weight=None.* class_weight=\(1.0, 2.0\)"),
    ({}, {"loss": squared}, "its loss is CrossEntropy.* here it is a function of your own"),
    ({"loss": Ours()}, {"loss": squared}, "its loss is Ours, and here it is a function of your"),
    ({}, {"loss_on": "mean_logits"}, "its loss_on is members, and here it is mean_logits"),
    ({}, {"optimizer": "sgd"}, "its optimizer is adam, and here it is sgd"),
    ({}, {"optimizer": torch.optim.RMSprop}, "its optimizer is adam, and here it is RMSprop"),
    ({}, {"lr": 0.02}, "its lr is 0.01, and here it is 0.02"),
    ({}, {"weight_decay": 0.1}, "its weight_decay is 0.0, and here it is 0.1"),
    ({}, {"fast_lr_multiplier": 2.0}, "its fast_lr_multiplier is 1.0, and here it is 2.0"),
    ({}, {"schedule": "cosine"}, "its schedule is constant, and here it is cosine"),
    ({}, {"cooldown": 0.2}, "its cooldown is 0.1, and here it is 0.2"),
    ({}, {"warmup": 3}, "its warmup is 0, and here it is 3"),
    ({"clip": 1.0}, {"clip": None}, "its clip is 1.0, and here it is None"),
    ({}, {"precision": "bf16"}, "its precision is float32, and here it is bf16"),
    ({"average": 0.9}, {"average": None}, "its average is 0.9, and here it is None"),
    ({}, {"shuffle": False}, "its shuffle is True, and here it is False"),
    ({}, {"batches": "split"}, "its batches is None, and here it is split"),
    (
        {"validation": VALIDATION, "patience": 2},
        {"validation": VALIDATION, "patience": 2, "evaluate_every": 3},
        "its held-out scoring is nll every epoch, and here it is nll every 3",
    ),
]


@pytest.mark.parametrize(("before", "now", "sentence"), OTHERS)
def test_what_makes_other_weights_is_refused(tmp_path, before, now, sentence):
    train(build(), tmp_path, epochs=1, **before)
    with pytest.raises(CheckpointError, match=sentence):
        train(build(), tmp_path, epochs=1, resume=True, **{**before, **now})


def test_what_leaves_the_weights_as_they_are_may_change(tmp_path):
    """Scoring, checkpoints and callbacks may come and go; each state finds its own again."""

    def options(n):
        loss, optimizer = Ours(), lambda p: torch.optim.RMSprop(p, lr=0.01)
        return {"loss": loss, "optimizer": optimizer, "lr": 0.01 * n, "average": 0.9}

    unbroken, broken, again = build(), build(), build()
    expected = train(unbroken, **options(1))
    with pytest.raises(KeyError):
        train(broken, tmp_path, checkpoint_every=1, callbacks=[Interrupt(5)], **options(1))
    found = train(
        again,
        tmp_path,
        resume=True,
        checkpoint_every=3,
        keep=1,
        validation=VALIDATION,
        evaluate_every=4,
        stop_on="accuracy",
        progress=True,
        callbacks=[Callback(), Interrupt(-1), be.JsonLines(tmp_path / "lines")],
        **options(2),
    )
    assert found.losses == expected.losses
    for name, value in unbroken.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


@pytest.mark.parametrize(
    ("options", "step"), [({"schedule": "cosine"}, 3), ({"cooldown": 0.5}, 12)]
)
def test_more_epochs_than_were_meant_are_warned_of_where_the_rate_has_fallen(
    tmp_path, options, step
):
    stopping = {"checkpoint_every": 1, "callbacks": [Interrupt(step)]}
    with pytest.raises(KeyError):
        train(build(), tmp_path, epochs=2, **stopping, **options)
    with pytest.warns(UserWarning, match=r"is of a training of 2 epochs, .* here there are 4"):
        found = train(build(), tmp_path, epochs=4, resume=True, **options)
    assert found.epochs == 4


def test_before_the_rate_falls_more_epochs_are_those_of_the_longer_training(tmp_path):
    unbroken, again = build(), build()
    expected = train(unbroken, epochs=4)
    with pytest.raises(KeyError):
        train(build(), tmp_path, epochs=2, checkpoint_every=1, callbacks=[Interrupt(9)])
    found = train(again, tmp_path, epochs=4, resume=True, callbacks=[Interrupt(-1)])
    assert_same_run([unbroken, again], [expected, found])


@pytest.mark.parametrize(
    ("model", "options", "sentence"),
    [
        (lambda: build(members=4), {}, "its number of members is 3, and here it is 4"),
        (lambda: build(width=9), {}, "its network .* is"),
        (lambda: build(be.DeepEnsemble), {}, "its method is BatchEnsemble, and here it is DeepE"),
        (build, {"data": (X[:52], Y[:52])}, "its data is 60 examples .* and here it is 52 exam"),
        (build, {"data": (X + 1, Y)}, "its data is 60 examples .*checksums"),
        (build, {"batch_size": 10}, "in batches of 7 .* in batches of 10"),
        (build, {"seed": 5}, "its seed is 4, and here it is 5"),
    ],
)
def test_a_checkpoint_of_another_training_says_what_differs(tmp_path, model, options, sentence):
    train(build(), tmp_path)
    with pytest.raises(CheckpointError, match=sentence):
        train(model(), tmp_path, resume=True, **options)


def test_a_damaged_checkpoint_is_passed_over(tmp_path):
    unbroken, broken, again = build(), build(), build()
    expected = train(unbroken)
    with pytest.raises(KeyError):
        train(broken, tmp_path, checkpoint_every=2, callbacks=[Interrupt(13)])
    newest = max(tmp_path.glob("step-*")) / "model.safetensors"
    content = bytearray(newest.read_bytes())
    content[-3] ^= 1
    newest.write_bytes(content)
    with pytest.warns(UserWarning, match=r"model.safetensors was changed; resuming from the one"):
        found = train(again, tmp_path, resume=True, callbacks=[Interrupt(-1)])
    assert_same_run([unbroken, again], [expected, found])


def longest(folder):
    return max(folder.iterdir(), key=lambda path: path.stat().st_size)


def drop_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [drop_half, flip_a_bit, lambda path: path.unlink()])
@pytest.mark.parametrize("file", [longest, lambda folder: folder / "state.json"])
def test_any_damage_is_noticed_and_no_fresh_start_is_made_of_it(tmp_path, damage, file):
    train(build(), tmp_path, epochs=2)
    older, newer = sorted(tmp_path.iterdir())
    damage(file(newer))
    with pytest.warns(UserWarning, match=f"{newer.name} is damaged: .*; resuming from the one bef"):
        assert train(build(), tmp_path, epochs=2, resume=True).epochs == 2
    for folder in tmp_path.iterdir():
        damage(file(folder))
    with pytest.raises(CheckpointError, match=f"no checkpoint in .* is complete: .*{newer.name}"):
        train(build(), tmp_path, epochs=2, resume=True)
    assert older.exists()


def test_a_checkpoint_of_another_version_is_refused_not_passed_over(tmp_path):
    train(build(), tmp_path, epochs=2)
    path = max(tmp_path.iterdir()) / "state.json"
    found = json.loads(path.read_text())
    sums = found.pop("sha256")
    found["format"] = CHECKPOINT_FORMAT + 1
    sums[path.name] = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps({**found, "sha256": sums}))
    sentence = (
        f"is of format {CHECKPOINT_FORMAT + 1}, and this version .* reads formats "
        f".*{CHECKPOINT_FORMAT}; resume with"
    )
    with pytest.raises(CheckpointError, match=sentence):
        train(build(), tmp_path, epochs=2, resume=True)
    assert len(list(tmp_path.iterdir())) == 2


def test_nan_leaves_the_last_good_checkpoint(tmp_path):
    def loss(outputs, targets):
        # Two calls before the first step look at the loss.
        return outputs.pow(2).mean(-1) * (float("nan") if train.steps.pop() == 6 else 1.0)

    train.steps = [*range(30)][::-1]
    with pytest.raises(FloatingPointError, match="nan in epoch 1, step 5"):
        train(build(), tmp_path, checkpoint_every=1, loss=loss)
    assert max(tmp_path.glob("step-*")).name == "step-000000004"


def test_checkpoints_need_a_seed(tmp_path):
    with pytest.raises(ValueError, match="checkpoints need a seed"):
        train(build(), tmp_path, seed=None)


SCRIPT = """
import sys, signal, time
import torch
import batchensemble as be
from torch import nn
torch.set_num_threads(1)
torch.manual_seed(1)
model = be.BatchEnsemble(nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 2)), 3)
X, Y = torch.randn(64, 4), torch.randint(2, (64,))

class Slow(be.Callback):
    def on_start(self, run):
        print("started", run.step, flush=True)
    def on_step(self, run):
        time.sleep(float(sys.argv[3]))

history = be.fit(model, (X, Y), epochs=int(sys.argv[2]), batch_size=8, checkpoints=sys.argv[1],
    checkpoint_every=3, resume=True, callbacks=[Slow()])
print(sum(float(p.double().abs().sum()) for p in model.parameters()))
"""


def start(folder, epochs, pause):
    command = [sys.executable, "-c", SCRIPT, str(folder), str(epochs), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_step_saves_and_leaves_with_its_code(tmp_path, number, code):
    with start(tmp_path, 1000, 0.01) as process:
        assert process.stdout.readline().startswith("started 0")
        process.send_signal(number)
        assert process.wait(60) == code, process.stderr.read()
    newest = max(tmp_path.glob("step-*"))
    state = json.loads((newest / "state.json").read_text())["state"]
    assert state["step"] == int(newest.name.removeprefix("step-"))


def last_line(folder):
    with start(folder, 4, 0.0) as process:
        found, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return found.splitlines()[-1]


@pytest.mark.slow
def test_killed_over_and_over_it_ends_with_the_weights_of_the_unbroken_run(tmp_path):
    expected = last_line(tmp_path / "unbroken")
    generator = torch.Generator().manual_seed(0)
    steps = []
    for _ in range(4):
        with start(tmp_path / "killed", 4, 0.02) as process:
            steps.append(int(process.stdout.readline().split()[1]))
            time.sleep(0.3 * torch.rand((), generator=generator).item())
            process.kill()
    assert last_line(tmp_path / "killed") == expected
    assert steps == sorted(steps)


@pytest.mark.slow
def test_killed_at_20_random_moments_too(tmp_path):
    expected = last_line(tmp_path / "unbroken")
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        with start(tmp_path / "killed", 4, 0.05) as process:
            time.sleep(3 + 2 * torch.rand((), generator=generator).item())
            process.kill()
    assert last_line(tmp_path / "killed") == expected


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_named_before_training(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(CheckpointError, match="cannot write checkpoints to"):
        train(build(), tmp_path / "folder")


def test_a_file_in_the_way_is_named_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"cannot write checkpoints to .*file"):
        train(build(), tmp_path / "file")


def test_nested_values_come_back_as_they_were():
    values = {"a": {0: {"step": torch.ones(()), "n": 1}}, "b": [1.5, None, [torch.zeros(2)]]}
    found = {}
    text = json.dumps(split_tensors(values, found))
    back = join_tensors(json.loads(text), found)
    assert back["a"][0]["n"] == 1
    assert back["a"][0]["step"] is values["a"][0]["step"]
    assert back["b"][:2] == [1.5, None]
    assert back["b"][2][0] is values["b"][2][0]
