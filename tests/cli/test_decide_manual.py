"""The commands of docs/decide.md: from a table to answers for new rows, as the page says."""

import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
from typer.testing import CliRunner

from batchensemble.cli.app import app


def passed(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


def test_the_manual_goes_from_a_table_to_answers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "decide.md").read_text()
    section = page.partition("## From the command line\n")[2].partition("\n## ")[0]
    code = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    exec(compile("".join(code), "decide.md", "exec"), {"np": np})
    lines = re.findall(r"^batchensemble (.*)$", section, flags=re.MULTILINE)
    assert len(lines) == 8
    said = [
        passed(*shlex.split(line))
        for line in lines
        if not line.startswith("report")  # slow, and tested where it belongs
    ]
    shown = re.findall(r"```text\n(.*?)```", section, flags=re.DOTALL)[0]
    assert without_numbers(said[1]).startswith(without_numbers(shown))
    for name, target, risk in (("moons", "moon", 0.06), ("prices", "price", 0.1)):
        truth = pd.read_csv(f"new_{name}.csv")[target]
        found = pd.read_csv(f"new_{name}_answered.csv")
        said = found["label"] != truth if "label" in found else (found["mean"] - truth).abs() > 2
        assert said[found["answer"]].mean() <= risk
        assert 0.5 < found["answer"].mean() < 1


def without_numbers(text: str) -> str:
    """Which numbers come out, varies between machines."""
    return re.sub(r"\d[\d.,]*\d|\d", "N", " ".join(text.split()))
