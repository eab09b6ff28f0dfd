"""One training on two processes is the training of one, whatever is done to it."""

import json
import os
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch

import batchensemble as be
from batchensemble.cli.app import main
from batchensemble.training.distributed.data_parallel import DataParallel
from batchensemble.training.distributed.fully_sharded import FullySharded
from batchensemble.training.distributed.member_parallel import MemberParallel
from batchensemble.training.distributed.processes import Processes, split_evenly
from batchensemble.training.distributed.strategies import choose_strategy
from batchensemble.training.plan import TrainingPlan
from on_processes import CASES, X, Y, all_cases, batch, deep, go_on, network

SCRIPT = Path(__file__).parents[2] / "support" / "on_processes.py"
BREAKS = ("of one", "mine", "of one, pieces", "mine, pieces", "dropout", "spread", "pieces")


def launch(what, folder):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, "--standalone", str(SCRIPT), what, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where two processes did everything, and one began a training that they went on with."""
    folder = tmp_path_factory.mktemp("processes")
    go_on(batch, folder / "of one", 11)
    shutil.copytree(folder / "of one", folder / "of one, pieces")
    with launch("all", folder) as process:
        said, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors
    assert said == ""
    return folder


@pytest.fixture(scope="module")
def alone():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the network mixes the rows")
        return all_cases()


@pytest.fixture(scope="module")
def together(folder):
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


def close(found, expected):
    """Assert that nested values are the same up to rounding."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            close(found[key], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            close(one, other)
    elif isinstance(expected, torch.Tensor):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    else:
        assert found == (pytest.approx(expected) if isinstance(expected, float) else expected)


@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_what_one_trains(alone, together, name):
    """The same weights, losses, held-out scores and diagnostics; starts that differ become one."""
    close(together[0][name], alone[name])


@pytest.mark.parametrize("name", [*CASES, *BREAKS])
def test_all_processes_return_the_same(together, name):
    one, other = (each[name] for each in together)
    if name.startswith("mine"):
        assert one == other == "KeyError('power')"
        return
    assert one["history"] == other["history"]
    for key, value in one["weights"].items():
        assert torch.equal(value, other["weights"][key])


def test_one_goes_on_with_what_two_wrote_and_two_with_what_one_wrote(folder, together, tmp_path):
    unbroken = go_on(batch, tmp_path, -1)
    close(go_on(batch, folder / "mine", -1), unbroken)
    close(together[0]["of one"], unbroken)
    close(go_on(batch, folder / "mine, pieces", -1), unbroken)
    close(together[0]["of one, pieces"], unbroken)


@pytest.mark.parametrize(("what", "times"), [("weights", 1), ("gradients", 1), ("moments", 2)])
def test_of_weights_in_pieces_each_process_holds_about_half(together, what, times):
    held = [each["held"][what] for each in together]
    of_all = times * together[0]["held"]["of all"]
    assert sum(held) == of_all
    assert max(held) < 0.6 * of_all


def test_weights_are_whole_and_plain_again_after_the_training(together):
    for each in together:
        assert each["held"]["the same parameters"]
        assert each["held"]["plain"]
        close(each["held"]["member"], each["held"]["of members"])
    close(together[1]["held"]["probs"], together[0]["held"]["probs"])


def test_callbacks_run_in_the_first_process_unless_they_say_that_they_run_in_all(folder, together):
    """Each would else write each line twice, and take the other's for its own after a resume."""
    noted = (folder / "first").read_text().splitlines()
    assert noted == ["start 0 in 0", "epoch 8 in 0", "epoch 16 in 0", "end 16 in 0"]
    everywhere = (folder / "every").read_text().splitlines()
    assert sorted(everywhere) == sorted([*noted, *(line[:-1] + "1" for line in noted)])
    lines = [json.loads(line) for line in (folder / "lines.jsonl").read_text().splitlines()]
    assert [each["step"] for each in lines if each["event"] == "step"] == [3, 6, 9, 12, 15]
    assert len(lines) == 5 + 2 + 1
    assert len(list((folder / "tracked").rglob("events.*"))) == 1
    assert together[0]["callbacks"]["history"] == together[1]["callbacks"]["history"]


def test_a_model_that_each_process_saves_is_whole(folder, together):
    assert be.load(folder / "saved", network=network()).members == 3
    assert sorted(each.name for each in (folder / "saved").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]


@pytest.mark.parametrize(("hook", "rows"), [("step", 24), ("evaluation", 32), ("epoch", 57)])
def test_an_end_in_the_first_process_is_that_of_all_after_the_same_step(together, hook, rows):
    one, other = (each["callbacks"][f"ended by {hook}"] for each in together)
    assert one["history"] == other["history"]
    assert one["history"]["examples"] == [57, rows]
    assert one["history"]["stopped"] == "it is enough"
    close(one["weights"], other["weights"])


@pytest.mark.parametrize("hook", ["step", "evaluation", "epoch"])
def test_an_error_in_the_first_process_is_that_of_all(together, hook):
    """The others would wait for it until their patience is at its end."""
    one, other = (each["callbacks"] for each in together)
    assert one[f"KeyError at {hook}"] == other[f"KeyError at {hook}"] == "KeyError('power')"
    assert one[f"UnsentError at {hook}"] == "UnsentError('held')"
    assert "a callback of process 0 raised UnsentError: held" in other[f"UnsentError at {hook}"]


def test_loaders_that_differ_in_the_processes_are_refused(together):
    """Each would train on its share of other batches, and no example count as often as the next."""
    for each in together:
        assert len(each["other batches"]) == 2
        for said in each["other batches"]:
            assert "in epoch 1 the first batch of process 1 differs from that of process 0" in said


def test_the_command_that_trains_prints_and_writes_once(folder, together):
    printed = [each["printed"] for each in together]
    assert "held-out examples of moons" in " ".join(printed[0].split())
    assert printed[1] == ""
    assert not list((folder / "model").glob(".*"))
    lines = (folder / "model" / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["evaluation", "epoch"] * 2 + ["end"]
    assert be.load(folder / "model").members == 2


@pytest.mark.parametrize("command", ["compare", "predict", "report"])
def test_other_commands_say_that_they_run_in_one_process(monkeypatch, capsys, command):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(sys, "argv", ["batchensemble", command])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert (
        f"Error: {command} runs in one process, and torchrun started 2" in capsys.readouterr().err
    )


@pytest.mark.parametrize("name", ["dropout", "spread", "pieces"])
def test_a_signal_to_one_ends_all_after_the_same_step_and_they_go_on_bit_by_bit(together, name):
    for each in together:
        assert each[f"{name} ended"] == "SystemExit(143)"
        assert each[name]["history"] == each[f"{name} whole"]["history"]
        for key, value in each[name]["weights"].items():
            assert torch.equal(value, each[f"{name} whole"]["weights"][key])


def test_spread_members_go_on_in_as_many_processes(folder, together):
    said = go_on(deep, folder / "spread", -1, patience=1, average=0.5)
    assert "is of members on 2 processes, and here they are on one process" in said


def test_each_process_has_dropout_of_its_own(together, tmp_path):
    """One process draws other masks for the rows that the second one has here."""
    one = go_on(lambda: batch(dropout=0.3), tmp_path, -1)["weights"]
    assert any(
        (one[k] - v).abs().max() > 1e-3 for k, v in together[0]["dropout"]["weights"].items()
    )


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_one_that_dies_ends_the_run_with_its_reason(tmp_path, strategy):
    with launch(strategy, tmp_path) as process:
        limit = time.monotonic() + 100
        while not list(tmp_path.glob("killed/step-*")) and time.monotonic() < limit:
            time.sleep(0.1)
        os.kill(int((tmp_path / "pid-1").read_text()), 9)
        _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Signal 9 (SIGKILL)" in errors
    assert "ProcessLostError: another process of this training has ended" in errors
    assert len(list(tmp_path.glob("killed/step-*"))) in (1, 2)


def test_one_alone_says_what_the_others_would():
    alone = Processes()
    assert alone.sum(torch.ones(2)).tolist() == [1, 1]
    assert alone.gather(torch.ones(2), [2]).tolist() == [1, 1]
    with pytest.raises(KeyError):
        alone.on_first(lambda: {}["missing"])


@pytest.mark.parametrize(("size", "count"), [(0, 3), (2, 3), (7, 3), (9, 3)])
def test_pieces_cover_all_and_differ_by_one_at_most(size, count):
    pieces = [range(size)[each] for each in split_evenly(size, count)]
    assert [each for piece in pieces for each in piece] == list(range(size))
    lengths = [len(each) for each in pieces]
    assert max(lengths) - min(lengths) <= 1


def test_each_row_of_a_batch_counts_once():
    for batch_size in (1, 5, 6, 7):
        counted = torch.zeros(batch_size)
        for rank in range(3):
            sharing = DataParallel.__new__(DataParallel)
            sharing.processes = Processes(rank, 3)
            rows, counts = sharing.rows(batch_size)
            counted[rows] += counts
        assert counted.tolist() == [1] * batch_size


def test_a_wrong_strategy_is_named(as_users_run_it):
    with pytest.raises(ValueError, match="strategy must be one of ddp, fsdp, members, got 'fsdb'"):
        be.fit(batch(), (X, Y), strategy="fsdb")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"clip": 1.0}, "clip= needs the norm"),
        ({"average": 0.9}, "average= keeps a copy"),
        ({"compile": True}, "compile= traces"),
        ({"precision": "fp16"}, "take 'bf16', or another strategy"),
        ({"micro_batch": 1}, "micro_batch must be at least 2"),
        ({"optimizer": torch.optim.SGD(batch().parameters(), 0.1)}, "give a function that makes"),
    ],
)
def test_what_needs_whole_weights_does_not_go_with_pieces(options, sentence):
    strategy = FullySharded.__new__(FullySharded)
    strategy.check(TrainingPlan(precision="bf16", micro_batch=2))
    with pytest.raises(ValueError, match=sentence):
        strategy.check(TrainingPlan(**options))


@pytest.mark.parametrize("batch_size", [2, 4, 5, 7, 15])
def test_all_processes_run_as_many_parts_and_each_row_once(batch_size):
    """One with more parts would wait for the others to bring the weights together."""
    found = []
    for rank in range(2):
        sharing = FullySharded.__new__(FullySharded)
        sharing.processes = Processes(rank, 2)
        rows = range(batch_size)[sharing.rows(batch_size)[0]]
        parts = [rows[each] for each in sharing.parts(len(rows), batch_size, 2)]
        assert [each for part in parts for each in part] == list(rows)
        assert all(1 <= len(part) <= 2 for part in parts)
        found.append(len(parts))
    assert found[0] == found[1]


def test_members_that_share_weights_cannot_be_spread():
    with pytest.raises(ValueError, match=r"share no weights, DeepEnsemble .*, got BatchEnsemble"):
        MemberParallel(batch(), Processes(0, 2))


def test_more_processes_than_members_are_refused():
    with pytest.raises(ValueError, match="got 3 members and 4 processes"):
        MemberParallel(deep(), Processes(0, 4))


def test_without_accelerate_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ImportError, match=r"pip install 'batchensemble\[distributed\]'"):
        choose_strategy(batch(), "ddp", torch.device("cpu"))
