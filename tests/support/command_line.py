"""The command line, called in this process, and a small table to call it with."""

from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from batchensemble.cli.app import app

QUICK = ["--data", "breast_cancer", "--epochs", "1", "--hidden", "8"]


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def write_csv(path: Path, rows: int = 40, target: str = "kind") -> Path:
    rng = np.random.default_rng(0)
    lines = [f"width,height,depth,{target}"]
    for index in range(rows):
        numbers = rng.normal(index % 2, 1, 3)
        lines.append(",".join(f"{number:.3f}" for number in numbers) + f",{'ab'[index % 2]}")
    path.write_text("\n".join(lines) + "\n")
    return path
