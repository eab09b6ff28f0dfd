"""The package as a whole: its names, its start-up, the code of its README."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_the_code_of_the_readme_runs():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert blocks
    names: dict = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)


def test_the_versions_agree():
    from importlib.metadata import version

    assert version("batchensemble") == be.__version__
