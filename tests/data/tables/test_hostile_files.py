"""What lies beside a model, or makes a comparison, is read as carefully as the model itself."""

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import batchensemble as be
import batchensemble.cli.workflows.report  # what it imports would count as the memory of a test
import batchensemble.report
from batchensemble.cli.app import app
from batchensemble.comparison.files import RunFiles
from batchensemble.data.tables.schema import Columns
from batchensemble.training.checkpoints.store import (
    CheckpointError,
    Checkpoints,
    DamagedCheckpointError,
)
from batchensemble.training.checkpoints.store import read_checkpoint as read_checkpoint
from bounds import bounded
from hostile import DEEP

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="it takes pipes, links and limits"),
    pytest.mark.usefixtures("as_users_run_it"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Return a model's folder with a decision, beside ``rows.csv``."""
    base = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    X = torch.randn(90, 2).round(decimals=3)
    rows = "".join(f"{a:.3f},{b:.3f},{'no' if a + b < 0 else 'yes'}\n" for a, b in X.tolist())
    (base / "rows.csv").write_text(f"age,dose,kind\n{rows}")
    model = be.BatchEnsemble(nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2)), 2)
    be.fit(model, (X, (X.sum(1) >= 0).long()), epochs=2, progress=False)
    columns = {"feature_names": ["age", "dose"], "class_names": ["no", "yes"], "target": "kind"}
    be.save(model.eval(), base / "model", data=columns)
    assert asked("decide", base / "model", base / "rows.csv").exit_code == 0
    return base / "model"


@pytest.fixture
def model(folder, tmp_path) -> Path:
    """Return a copy of it, to be changed."""
    copy = tmp_path / "model"
    copy.mkdir()
    for each in folder.iterdir():
        if each.is_file():
            (copy / each.name).write_bytes(each.read_bytes())
    return copy


def asked(command: str, folder: Path, rows: Path | None, *more: str):
    data = [] if rows is None else ["--data", str(rows)]
    with bounded():
        return CliRunner().invoke(app, [command, str(folder), *data, *map(str, more)])


def assert_refused(done, said: str) -> None:
    assert done.exit_code == 2, done.output
    assert isinstance(done.exception, SystemExit)
    assert done.output.startswith("Error: ")
    assert said in done.output
    assert len(done.output) < 1_000


def changed(**values):
    """Change what stands in a decision, ``below`` what stands in its threshold."""

    def change(path: Path) -> None:
        found = json.loads(path.read_text())
        for name, value in values.items():
            part, _, key = name.rpartition("__")
            (found[part] if part else found)[key] = value
        path.write_text(json.dumps(found))

    return change


def text(content: str):
    return lambda path: path.write_text(content)


def pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def device(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize(
    "change",
    [
        pipe,
        device,
        text("{"),
        text("[]"),
        text('{"format": 1, "threshold": ' + DEEP + "}"),
        changed(format=[1]),
        changed(examples="many"),
        changed(examples=1e300),
        changed(data=["rows"]),
        changed(notes="one"),
        changed(notes=[1]),
        changed(threshold=[1]),
        changed(threshold__by="os.abort"),
        changed(threshold__answers="sometimes"),
        changed(threshold__answers="some", threshold__below="nan"),
        changed(threshold__coverage=7),
        changed(threshold__confidence=-1),
        changed(threshold__target=True),
        changed(sets__confidence=2),
        changed(sets__highest_score="high"),
        changed(sets__share_of_one=[]),
        changed(sets=None),
    ],
)
def test_a_decision_that_cannot_be_is_refused(change, model, folder, tmp_path):
    change(model / "decision.json")
    out = tmp_path / "out.csv"
    done = asked("predict", model, folder.parent / "rows.csv", "--out", out)
    assert_refused(done, "decision.json")
    assert not out.exists()


@pytest.mark.parametrize(
    "settings",
    [
        "data = 7",
        'data = ["rows.csv"]',
        "data = true",
        'data = "rows.csv"\ntarget = 1',
        'data = "rows.csv"\nmemory_limit = "much"',
        'data = "rows.csv"\nmemory_limit = -1',
        'data = "rows.csv"\nbatch_size = "all"',
        'data = "rows.csv"\nvalidation = 1.5',
        "data = ",
        f"data = {DEEP}",
        'data = "' + "a" * 2**21 + '"',
        "data = " + "9" * 10_000,
        'data = "/dev/zero"',
        'data = "a pipe"',
    ],
)
@pytest.mark.parametrize("command", ["evaluate", "decide", "report"])
def test_settings_that_cannot_be_are_refused(command, settings, model, monkeypatch):
    monkeypatch.chdir(model)
    os.mkfifo("a pipe")
    (model / "run.toml").write_text(settings)
    assert_refused(asked(command, model, None), "")


def test_a_pipe_in_the_place_of_settings_is_not_waited_for(model):
    pipe(model / "run.toml")
    assert_refused(asked("report", model, None), "does not name its training data")


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[1]",
        DEEP,
        '{"losses": 1}',
        '{"losses": ["a"]}',
        '{"member_losses": [[1.0, 2.0], [1.0]]}',
        '{"member_losses": [["a"]]}',
        '{"stopped": 3}',
        '{"evil": 3}',
        '{"compilation": 3}',
        '{"evaluations": [[1]]}',
    ],
)
def test_a_history_that_cannot_be_is_refused(content, model, folder):
    (model / "history.json").write_text(content)
    done = asked("report", model, folder.parent / "rows.csv", "--format", "md")
    assert_refused(done, "history.json")


def test_data_that_are_not_those_of_the_network_are_refused(model):
    config = json.loads((model / "config.json").read_text())
    for values in ({"feature_names": ["age"]}, {"class_names": ["no", "yes", "maybe"]}):
        with pytest.raises(ValueError, match="takes 2 features and predicts 2 classes"):
            Columns.from_config({**config, "data": {**config["data"], **values}})


def test_names_do_not_steer_the_terminal(model, folder, tmp_path):
    config = json.loads((model / "config.json").read_text())
    config["data"]["class_names"] = ["no\x1b[31m", "y\x1b]0;evil\x07s"]
    (model / "config.json").write_text(json.dumps(config))
    (model / "decision.json").unlink()
    done = asked("evaluate", model, folder.parent / "rows.csv")
    assert_refused(done, "knows no [31m")
    assert "\x1b" not in done.output


RESULTS = {
    "settings": {"seeds": 1, "methods": ["single"]},
    "data": {"name": "moons"},
    "runs": [],
    "failures": [],
}


@pytest.mark.parametrize(
    "results",
    [
        "{",
        DEEP,
        {**RESULTS, "runs": [1]},
        {**RESULTS, "settings": []},
        {**RESULTS, "settings": {"evil": 1}},
        {**RESULTS, "settings": {"seeds": 10**9}},
        {**RESULTS, "settings": {"methods": ["evil"]}},
        {**RESULTS, "failures": {"a": 1}},
        {**RESULTS, "failures": [1]},
        {**RESULTS, "data": {"name": "/dev/zero", "target": "y"}},
        {key: value for key, value in RESULTS.items() if key != "failures"},
    ],
)
def test_results_that_cannot_be_are_refused(results, tmp_path):
    content = results if isinstance(results, str) else json.dumps(results)
    (tmp_path / "results.json").write_text(content)
    assert_refused(asked("report", tmp_path, None), "")


@pytest.fixture
def runs(tmp_path) -> RunFiles:
    files = RunFiles(tmp_path, "a1b2")
    files.write("one", {"nll": 0.5}, {"probs": np.zeros(3)})
    return files


def packed(path: Path) -> None:
    """Write an archive that is small and holds much."""
    described = json.dumps({"fingerprint": "a1b2", "values": {}, "arrays": ["probs"]})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, header, content in (
            ("run", f"'<U{len(described)}', 'fortran_order': False, 'shape': ()", described),
            ("probs", "'|u1', 'fortran_order': False, 'shape': (300000000,)", None),
        ):
            start = f"{{'descr': {header}, }}".ljust(117) + "\n"
            with archive.open(f"{name}.npy", "w", force_zip64=True) as part:
                part.write(b"\x93NUMPY\x01\x00" + len(start).to_bytes(2, "little") + start.encode())
                if content is None:
                    for _ in range(30):
                        part.write(bytes(10**7))
                else:
                    part.write(content.encode("utf-32-le"))


def of_objects(path: Path) -> None:
    np.savez(path, run=np.array([{"a": 1}], dtype=object), allow_pickle=True)


def described(content: str):
    return lambda path: np.savez(path, run=np.array(content))


@pytest.mark.parametrize(
    "change",
    [
        pipe,
        device,
        text(""),
        text("PK\x03\x04"),
        of_objects,
        described("[1]"),
        described(DEEP),
        described('{"fingerprint": "a1b2"}'),
        described('{"fingerprint": "a1b2", "values": {}, "arrays": 3}'),
        described('{"fingerprint": "a1b2", "values": {}, "arrays": ["none"]}'),
    ],
)
def test_a_file_of_a_run_that_cannot_be_counts_as_none(change, runs):
    assert runs.read("one") is not None
    change(runs.path("one"))
    with bounded():
        assert runs.read("one") is None


def test_a_file_of_a_run_that_grows_when_it_is_read_counts_as_none(runs):
    packed(runs.path("one"))
    assert runs.path("one").stat().st_size < 2e6
    with bounded():
        assert runs.read("one") is None


def elsewhere(folder: Path) -> None:
    """Let a checkpoint name a file that has no end."""
    path = folder / "state.json"
    found = json.loads(path.read_text())
    found["sha256"]["../../../../../../../../../dev/zero"] = "0" * 64
    path.write_text(json.dumps(found))


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: pipe(folder / "state.json"),
        lambda folder: device(folder / "state.json"),
        lambda folder: pipe(folder / "model.safetensors"),
        lambda folder: device(folder / "model.safetensors"),
        lambda folder: text(DEEP)(folder / "state.json"),
        lambda folder: text("[]")(folder / "state.json"),
        lambda folder: (folder / "state.json").write_bytes(b"\xff\xfe"),
        elsewhere,
    ],
)
def test_a_checkpoint_that_cannot_be_is_damaged(change, tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save("step-1", {"model": {"weight": torch.zeros(3)}}, {"step": 1}, wait=True)
    checkpoints.close()
    assert read_checkpoint(tmp_path / "step-1").state == {"step": 1}
    change(tmp_path / "step-1")
    with bounded(), pytest.raises(DamagedCheckpointError, match=r"damaged|elsewhere"):
        read_checkpoint(tmp_path / "step-1")
    with bounded(), pytest.raises(CheckpointError, match=r"no checkpoint in .* is complete"):
        checkpoints.latest()
