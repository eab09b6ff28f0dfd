"""Tasks run at once, die alone, and leave nothing behind."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from batchensemble.comparison.jobs import Failure, prepare_backend, run_many, threads_of

WITHOUT_RAY = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs ray")


def square(number, fate=""):
    if fate == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if fate == "diverges":
        raise FloatingPointError("training diverged")
    if fate == "raises":
        raise ZeroDivisionError("by nothing")
    if fate == "Ctrl-C":
        os.kill(os.getpid(), signal.SIGINT)
    if fate == "threads":
        return torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]
    return number**2


def results(calls, **options):
    found = dict(run_many(square, calls, **{"jobs": 2, **options}))
    return [found[number] for number in range(len(calls))]


FATES = ["", "killed", "diverges", "raises", "Ctrl-C", "threads"]
ENDS = [
    0,
    Failure(
        "its process ended before the training did (SIGKILL(-9)); SIGKILL often means that memory "
        "ran out"
    ),
    Failure("training diverged"),
    Failure("ZeroDivisionError: by nothing (test_jobs.py, line 25)"),
    16,
    (1, "1"),  # two jobs on two cores, or what the tests' own process has
]


def test_each_task_has_its_own_fate_and_the_others_go_on():
    assert results(list(enumerate(FATES))) == ENDS


def test_no_tasks_are_no_results():
    assert results([]) == []


def test_all_jobs_together_use_the_cores_once(monkeypatch):
    monkeypatch.setattr("batchensemble.comparison.jobs.cpu_count", lambda: 16)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    assert [threads_of(jobs) for jobs in (1, 3, 4, 16, 40)] == [16, 5, 4, 1, 1]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)  # OMP_NUM_THREADS=2, the user's word
    assert threads_of(4) == 2
    assert threads_of(4, "ray") == 1


def note_process(folder, seconds):
    (folder / str(os.getpid())).touch()
    time.sleep(seconds)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A child that nobody has waited for yet is dead all the same.
    return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"


def gone(pids, within=20.0):
    end = time.monotonic() + within
    while any(map(alive, pids)) and time.monotonic() < end:
        time.sleep(0.1)
    return not any(map(alive, pids))


def test_leaving_early_ends_the_processes(tmp_path):
    calls = [(tmp_path, 0), (tmp_path, 600), (tmp_path, 600)]
    first = next(iterator := run_many(note_process, calls, jobs=2))
    assert first == (0, None)
    iterator.close()
    pids = [int(path.name) for path in tmp_path.iterdir()]
    assert gone(pids)


def test_processes_whose_parent_is_killed_end(tmp_path):
    code = (
        "from pathlib import Path; from test_jobs import *\n"
        f"list(run_many(note_process, [(Path({str(tmp_path)!r}), 600)] * 2, jobs=2))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parent)
    while len(pids := [int(path.name) for path in tmp_path.iterdir()]) < 2:
        assert parent.poll() is None
        time.sleep(0.1)
    parent.kill()
    parent.wait()
    assert gone(pids)


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ((0,), ValueError, "jobs must be at least 1, got 0"),
        ((-1,), ValueError, "jobs must be at least 1, got -1"),
        ((1.5,), TypeError, "jobs must be a whole number"),
        ((2, "lokki"), ValueError, "did you mean 'loky'"),
        ((2, "loky", "auto"), ValueError, "address is for backend='ray', got 'auto' with 'loky'"),
        ((1, "ray"), ValueError, "backend='ray' needs jobs of at least 2, got 1"),
    ],
)
def test_what_cannot_be_is_refused(arguments, error, sentence):
    with pytest.raises(error, match=sentence):
        prepare_backend(*arguments)


def test_without_ray_a_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'batchensemble\[ray\]'"):
        prepare_backend(2, "ray")


@WITHOUT_RAY
def test_on_ray_each_task_has_its_own_fate_and_the_others_go_on():
    # In a process of its own: Ray's backend changes what joblib's pools are.
    code = (
        "from test_jobs import *\n"
        "prepare(2, 'ray')\n"
        "assert results(list(enumerate(FATES)), backend='ray') == ENDS\n"
        "assert threads_of(2, 'ray') == 1\n"
        "with pytest.raises(ValueError, match='jobs must be at most'): prepare(10_000, 'ray')\n"
    )
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(here), *sys.path])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
