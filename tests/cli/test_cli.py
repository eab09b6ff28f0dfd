"""The command line: what it writes, what it prints, and what it says of bad input."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from command_line import QUICK, run, write_csv


@pytest.fixture(autouse=True)
def pictures(request, monkeypatch):
    """Draw no figure but for the test that looks for them: they take most of the time."""
    if request.function is not test_compare_writes_results_figures_and_report:
        monkeypatch.setattr("batchensemble.report.page.draw_all", lambda comparison: {})


def test_compare_writes_results_figures_and_report(tmp_path):
    done = run("compare", *QUICK, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [run["method"] for run in results["runs"]] == ["single", "deep", "batch", "mimo"]
    assert "report.html" in done.output.replace("\n", "")
    assert (tmp_path / "out" / "report.html").read_text().startswith("<!doctype html>")
    figures = {path.suffix for path in (tmp_path / "out" / "figures").iterdir()}
    assert figures == {".svg", ".png"}


def test_compare_ends_with_a_table_of_all_methods(tmp_path):
    done = run("compare", *QUICK, "--methods", "single,batch", "--out", tmp_path)
    assert "Single network" in done.output
    assert "BatchEnsemble" in done.output
    assert "MIMO" not in done.output


def test_json_prints_what_it_writes(tmp_path):
    done = run("compare", *QUICK, "--methods", "deep", "--json", "--out", tmp_path)
    assert json.loads(done.stdout) == json.loads((tmp_path / "results.json").read_text())


def test_quiet_prints_nothing(tmp_path):
    done = run("compare", *QUICK, "--methods", "deep", "--quiet", "--out", tmp_path)
    assert done.exit_code == 0
    assert done.output == ""


def test_compare_takes_a_file_with_labels_of_any_kind(tmp_path):
    table = write_csv(tmp_path / "plants.csv")
    done = run("compare", "--data", table, "--target", "kind", "--epochs", 1, "--out", tmp_path)
    assert done.exit_code == 0, done.output
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["data"]["class_names"] == ["a", "b"]
    assert results["data"]["feature_names"] == ["width", "height", "depth"]


def test_the_same_command_gives_the_same_scores(tmp_path):
    scores = []
    for name in ("one", "two"):
        run("compare", *QUICK, "--methods", "batch", "--out", tmp_path / name)
        results = json.loads((tmp_path / name / "results.json").read_text())
        scores.append([each["scores"] for each in results["runs"]])
    assert scores[0] == scores[1]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--members", 0], "members must be at least 1, got 0"),
        (["--members", -3], "members must be at least 1, got -3"),
        (["--epochs", 0], "epochs must be at least 1, got 0"),
        (["--batch-size", 0], "batch_size must be at least 1, got 0"),
        (["--seeds", 0], "seeds must be at least 1, got 0"),
        (["--lr", 0], "lr must be a finite number above 0, got 0.0"),
        (["--lr", -1], "lr must be a finite number above 0, got -1.0"),
        (["--lr", "nan"], "lr must be a finite number above 0, got nan"),
        (["--lr", "inf"], "lr must be a finite number above 0, got inf"),
        (["--cooldown", 2], "cooldown must be a number from 0 to 1, got 2.0"),
        (["--hidden", "8,x"], "hidden must be whole numbers with commas between"),
        (["--hidden", "8,0"], "hidden must be at least 1, got 0"),
        (["--methods", "depp"], "did you mean 'deep'?"),
        (["--methods", ""], "methods must name at least one"),
        (["--methods", "deep,deep"], "methods must differ"),
        (["--data", "mons"], "did you mean 'moons'?"),
        (["--data", "nowhere.csv"], "there is no file nowhere.csv"),
        (["--target", "x"], "target is for a file"),
        (["--recipe", "notbook"], "did you mean 'notebook'?"),
        (["--recipe", "notebook", "--epochs", 3], "drop --epochs"),
        (["--recipe", "notebook", "--jobs", 2], "drop --jobs"),
        (["--jobs", 0], "jobs must be at least 1, got 0"),
        (["--jobs", 2, "--backend", "rai"], "did you mean 'ray'?"),
        (["--backend", "ray"], "backend='ray' needs jobs of at least 2, got 1"),
        (["--jobs", 2, "--address", "auto"], "address is for backend='ray'"),
        (["--members", "three"], "three"),
        (["--members", "2.5"], "2.5"),
        (["--lr", "fast"], "fast"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(arguments, sentence, tmp_path):
    done = run("compare", *arguments, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert sentence in " ".join(done.stderr.split())
    assert "Traceback" not in done.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"a,b,y\n", "'y' has no values; there is nothing to learn"),
        (b"a,b,y\n1,2,0\n", "must have at least 10 rows"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\xff\xfe", "table.csv"),
        (b"y\n" + b"0\n1\n" * 10, "has only the column 'y'"),
        (b"a,y\n" + b"1,0\n2,0\n" * 10, "must hold at least two classes"),
        (b"a,y\n" + b"1,0\n2,1\n" * 10 + b"1,2,3,4\n", "line 22"),
        (b"a,z\n" + b"1,0\n2,1\n" * 10, "has no column 'y'"),
        (b"a,y\n" + b",0\n,1\n" * 10, "column 'a' is left out: it has no values"),
        (b"a,y\n" + b"1,0\ninf,1\n" * 10, "must hold finite numbers, got inf in row"),
    ],
)
def test_bad_tables_are_refused(content, sentence, tmp_path):
    (tmp_path / "table.csv").write_bytes(content)
    done = run(
        "compare", "--data", tmp_path / "table.csv", "--target", "y", "--out", tmp_path / "out"
    )
    assert done.exit_code == 2, done.output
    assert sentence in " ".join(done.stderr.split())
    assert not (tmp_path / "out").exists()


def test_a_file_needs_its_target(tmp_path):
    done = run("compare", "--data", write_csv(tmp_path / "plants.csv"), "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "name the column" in done.stderr


def test_an_output_path_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "out").write_text("mine")
    done = run("compare", *QUICK, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "cannot write to" in done.stderr
    assert (tmp_path / "out").read_text() == "mine"


def test_a_read_only_folder_is_refused(tmp_path, monkeypatch):
    # Root, who runs the tests in many containers, may write to any folder; so no real one serves.
    def forbidden(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", forbidden)
    done = run("compare", *QUICK, "--out", tmp_path)
    assert done.exit_code == 2
    assert "cannot write to" in done.stderr
    assert "Permission denied" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_cannot_be_written_after_all_is_a_sentence(tmp_path):
    (tmp_path / "report.html").mkdir()
    done = run("compare", *QUICK, "--quiet", "--out", tmp_path)
    assert done.exit_code == 1
    assert f"Failed: cannot write {tmp_path / 'report.html'}" in " ".join(done.stderr.split())
    assert (tmp_path / "results.json").exists()


def test_a_training_that_diverges_is_reported_and_the_others_kept(tmp_path, monkeypatch):
    from batchensemble.comparison import compare

    fit = compare.fit

    def diverging(model, *arguments, **options):
        if type(model).__name__ == "DeepEnsemble":
            raise FloatingPointError("training diverged")
        return fit(model, *arguments, **options)

    monkeypatch.setattr(compare, "fit", diverging)
    done = run("compare", *QUICK, "--methods", "single,deep", "--out", tmp_path)
    assert done.exit_code == 1
    assert "Failed: deep, seed 0: training diverged" in done.stderr
    assert [run["method"] for run in json.loads((tmp_path / "results.json").read_text())["runs"]]


def test_several_jobs_write_a_file_for_each_run_and_the_same_command_reads_them(
    tmp_path, monkeypatch
):
    from batchensemble import report

    monkeypatch.setattr(report, "write_report", lambda *_: "no figures: they take longest")
    arguments = ["compare", *QUICK, "--methods", "single,batch", "--jobs", 2, "--out", tmp_path]
    first = run(*arguments)
    assert first.exit_code == 0, first.output
    assert "single, seed 0: held-out NLL" in first.stderr
    for number in (1, 2):
        assert f": begun, {number} of 2" in first.stderr
    assert "were read from" not in first.stderr
    kept = {path.name for path in (tmp_path / "runs").iterdir()}
    assert kept == {"single-seed-0.npz", "batch-seed-0.npz"}
    again = run(*arguments)
    assert f"2 of the runs were read from {tmp_path / 'runs'}" in again.stderr
    assert again.stdout == first.stdout  # the times of training too


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "batchensemble", *map(str, arguments)]


@pytest.mark.parametrize("jobs", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_ctrl_c_keeps_what_is_finished_and_leaves_with_130(tmp_path, jobs):
    arguments = ["--data", "moons", "--methods", "mimo,deep", "--epochs", 3, "--seeds", 1000]
    arguments += ["--jobs", jobs]
    process = subprocess.Popen(
        command("compare", *arguments, "--out", tmp_path / "out"),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    done = next(line for line in process.stderr if "held-out" in line)
    first = done.partition(",")[0]
    assert first in ("mimo", "deep")[:jobs]  # of two at once either may be done first
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["interrupted"] is True
    assert first in [each["method"] for each in results["runs"]]


def test_ctrl_c_at_the_start_leaves_with_130_and_writes_no_results(tmp_path):
    process = subprocess.Popen(
        command("compare", "--epochs", 1000, "--out", tmp_path),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    time.sleep(6)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


def test_inspect_shows_what_is_shared():
    done = run("inspect", "--methods", "batch", "--hidden", "16")
    assert done.exit_code == 0
    assert "rank_one" in done.output
    assert "2 → 16" in done.output


def test_inspect_refuses_bad_input():
    assert run("inspect", "--members", 0).exit_code == 2


@pytest.mark.parametrize("arguments", [["--help"], ["compare", "--help"], ["inspect", "--help"]])
def test_help_does_not_import_torch(arguments):
    code = (
        "import sys; from batchensemble.cli.app import app\n"
        f"try: app({arguments!r})\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


@pytest.fixture
def my_networks(tmp_path, monkeypatch):
    """Write a module of networks beside the user; return its name."""
    (tmp_path / "networks_of_mine.py").write_text(
        "import torch\n"
        "from torch import nn\n\n"
        "class Tied(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.words, self.head = nn.Embedding(9, 4), nn.Linear(4, 4)\n"
        "    def forward(self, numbers):\n"
        "        return self.head(self.words(numbers)) @ self.words.weight.T\n\n"
        "def plain():\n"
        "    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))\n\n"
        "def number():\n"
        "    return 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield "networks_of_mine"
    sys.modules.pop("networks_of_mine", None)


def test_inspect_shows_what_becomes_of_your_network(my_networks):
    done = run("inspect", f"{my_networks}:plain", "--members", 4)
    assert done.exit_code == 0, done.output
    assert "4 members, 320 parameters" in " ".join(done.output.split())
    assert "4 → 16" in done.output
    assert "rank_one" in done.output
    assert "Warning" not in done.output
    more = run("inspect", f"{my_networks}:plain", "-m", 4, "--mode", "additive", "--rank", 2)
    assert "4 members, 472 parameters" in " ".join(more.output.split())


def test_inspect_warns_of_what_conversion_cannot_follow(my_networks):
    done = run("inspect", f"{my_networks}:Tied")
    assert done.exit_code == 0, done.output
    text = " ".join(done.output.split())
    assert "Warning: the network (Tied), line 2 of its forward" in text
    assert "reads self.words.weight itself" in text


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("plian", [], "networks_of_mine has no 'plian'; did you mean 'plain'?"),
        ("number", [], "must return a torch.nn.Module, got int"),
        ("torch", [], "networks_of_mine:torch must work without arguments"),
        ("plain", ["--members", "0"], "members must be at least 1, got 0"),
        ("plain", ["--rank", "2"], "rank above 1 needs mode='additive'"),
        ("plain", ["--mode", "aditive"], "did you mean 'additive'?"),
    ],
)
def test_inspect_refuses_a_bad_network_with_a_sentence(my_networks, name, options, sentence):
    done = run("inspect", f"{my_networks}:{name}", *options)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.startswith("Error: ")
    assert sentence in done.stderr


@pytest.mark.parametrize("path", ["no_such_package:make", "no_such_file.py", "torch.nn:"])
def test_inspect_refuses_a_path_that_leads_nowhere(path):
    done = run("inspect", path)
    assert done.exit_code == 2
    assert done.stderr.startswith("Error: ")
    assert len(done.stderr.splitlines()) == 1
