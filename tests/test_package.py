"""The package as a whole: its names, its start-up, the code of its README."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import batchensemble as be

ROOT = Path(__file__).parent.parent


def test_every_public_name_is_there():
    for name in be.__all__:
        assert getattr(be, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'BachEnsemble'"):
        be.BachEnsemble  # noqa: B018


def test_importing_the_package_does_not_import_torch():
    code = "import sys, batchensemble; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_an_ensemble_needs_nothing_heavy_beside_torch():
    code = (
        "import sys; from batchensemble import BatchEnsemble\n"
        "heavy = {'sklearn', 'pandas', 'matplotlib', 'scipy', 'rich', 'typer'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


PAGES = [
    "README.md",
    *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")) if path.stem != "peers"),
]


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_runs_and_prints_what_it_says(page, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / page).read_text()
    blocks = re.findall(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", text, flags=re.DOTALL)
    assert blocks
    names: dict = {}
    for code, said in blocks:
        torch.manual_seed(0)
        exec(compile(code, page, "exec"), names)
        printed = capsys.readouterr().out
        for line in said.splitlines():
            # What varies between machines: the last digits of differences.
            if line.strip() not in ("", "...") and "largest difference" not in line:
                assert line in printed


def test_the_versions_agree():
    from importlib.metadata import version

    assert version("batchensemble") == be.__version__
