"""A full disk ends a training with a sentence, and what was written before is gone on with."""

import os
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import batchensemble as be
from batchensemble.cli.app import app
from batchensemble.core import atomic_files as disk
from batchensemble.core.atomic_files import WriteError, write_whole
from batchensemble.training.checkpoints.store import CheckpointError, LostCheckpointError

X, Y = torch.randn(64, 4), torch.randint(2, (64,))


def build(width=200):
    torch.manual_seed(1)
    return be.BatchEnsemble(
        nn.Sequential(nn.Linear(4, width), nn.Dropout(), nn.Linear(width, 2)), 2
    )


def train(model, folder, **options):
    return be.fit(
        model, (X, Y), epochs=2, batch_size=8, checkpoints=folder, checkpoint_every=2, **options
    )


class Slow(be.Callback):
    """Waits for each checkpoint, so that it is known which was the last."""

    def on_step(self, run):
        keeping = run.callbacks[-1]
        keeping.checkpoints.wait()


@contextmanager
def tmpfs(folder, *options):
    """Mount a small file system, where the tests may."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a file system needs root, and a container that lets it")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_ends_a_training_which_goes_on_when_there_is_room(tmp_path):
    unbroken, again = build(), build()
    train(unbroken, tmp_path / "unbroken")
    with tmpfs(tmp_path / "small", "size=200k") as folder:
        with pytest.raises(LostCheckpointError) as caught:
            train(build(), folder / "run", keep=50, callbacks=[Slow()])
        assert "could not be written: No space left on device; the earlier ones" in str(
            caught.value
        )
        assert isinstance(caught.value, CheckpointError)
        last = max((folder / "run").iterdir()).name
        assert last.startswith("step-")
        assert not list((folder / "run").glob(".*"))
        subprocess.run(["mount", "-o", "remount,size=4m", str(folder)], check=True)
        steps = []

        class Started(be.Callback):
            def on_start(self, run):
                steps.append(run.step)

        train(again, folder / "run", keep=50, resume=True, callbacks=[Started()])
    assert steps == [int(last.removeprefix("step-"))]
    assert steps[0] > 2
    for name, value in unbroken.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_a_read_only_disk_is_refused_before_training(tmp_path):
    with tmpfs(tmp_path / "fixed", "ro") as folder:
        with pytest.raises(CheckpointError, match=r"cannot write checkpoints to .*; give"):
            train(build(), folder / "run")
        done = CliRunner().invoke(app, ["train", "--epochs", "1", "--out", str(folder / "run")])
    assert done.exit_code == 2
    assert "Error: cannot write to" in done.stderr
    assert "give another folder with --out" in done.stderr


@pytest.mark.parametrize("name", ["checkpoint", "history"])
def test_the_command_says_it_and_leaves_with_1(tmp_path, name):
    """No file may grow beyond some bytes from a moment on; a full disk is the same to a program."""
    (tmp_path / "filling.py").write_text(
        "import os, resource, signal\n"
        "from pathlib import Path\n"
        "from torch import nn\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "class Filling(nn.Module):\n"
        "    def forward(self, x):\n"
        "        if list(Path(os.environ['OUT']).glob(os.environ['FULL_AFTER'])):\n"
        "            limit = int(os.environ['BYTES'])\n"
        "            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))\n"
        "        return x\n"
        "def make():\n"
        "    return nn.Sequential(nn.Linear(30, 40), Filling(), nn.ReLU(), nn.Linear(40, 2))\n"
    )
    limits = {
        "checkpoint": ("checkpoints/step-*", 4000),
        "history": ("history.jsonl", 10),
    }
    full_after, size = limits[name]
    every = "100" if name == "history" else "4"
    command = [sys.executable, "-m", "batchensemble", "train", "--network", "filling:make"]
    command += ["--data", "breast_cancer", "--epochs", "3", "--checkpoint-every", every, "--resume"]
    command += ["--out", str(tmp_path / "run"), "--quiet"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    where = {"OUT": str(tmp_path / "run"), "FULL_AFTER": full_after, "BYTES": str(size)}
    done = subprocess.run(command, env={**environment, **where}, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("Failed: ")
    assert "Traceback" not in done.stderr
    said = {
        "checkpoint": "could not be written: File too large; the earlier ones are complete",
        "history": "history.jsonl: File too large",
    }
    assert said[name] in done.stderr
    assert not (tmp_path / "run" / "model.safetensors").exists()
    if name == "checkpoint":
        where["FULL_AFTER"] = "nothing"
        done = subprocess.run(command, env={**environment, **where}, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert (tmp_path / "run" / "model.safetensors").exists()


def test_what_was_there_stays_where_nothing_can_be_written(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    path = tmp_path / "file"
    path.write_bytes(b"before")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(WriteError, match=r"cannot write .*file: No space left on device"):
        write_whole(path, b"after")
    assert path.read_bytes() == b"before"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("whole", [1 << 26, 4096], ids=["read whole", "read in pieces"])
def test_a_checksum_tells_content_by_its_bytes_and_their_order(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "READ_WHOLE", whole)
    monkeypatch.setattr(disk, "PIECES", 64)
    monkeypatch.setattr(disk, "PIECE", 64)
    rows = [f"{row:09d}\n" for row in range(2000)]
    one, other = tmp_path / "one.csv", tmp_path / "other.csv"
    one.write_text("".join(rows))
    other.write_text("short\n")
    expected = disk.file_checksum([one, other])
    assert disk.file_checksum([other, one]) != expected
    moved = tmp_path / "moved.csv"
    one.rename(moved)
    assert disk.file_checksum([moved, other]) == expected
    for changed in (rows[::-1], rows[1:], [*rows, rows[0]], [*rows[1:], rows[0]]):
        moved.write_text("".join(changed))
        assert disk.file_checksum([moved, other]) != expected
