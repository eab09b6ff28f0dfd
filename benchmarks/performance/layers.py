"""What an ensemble layer costs beside a plain one on the same rows, and what others' cost.

    python benchmarks/performance/layers.py            # about five minutes
    python benchmarks/performance/layers.py --write    # puts the tables into docs/performance.md

Every number is a ratio of medians of interleaved repetitions; the plain layer is ``nn.Linear`` or
``nn.Conv2d`` on ``members * batch`` rows in the same run. Columns of libraries that are not
installed hold a dash; ``contenders.py`` says how to get them:

    pip install --no-deps --ignore-requires-python --target runs/peer-layers \\
        tabm==0.0.3 rtdl-num-embeddings torch-uncertainty==0.13.0 einops probly==0.9.1
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import track

if not __package__:  # run as a file: imports start at the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.pages import Lines
from benchmarks.performance import contenders
from benchmarks.performance.contenders import Contender
from benchmarks.performance.interleaved import Clock, ratios, seconds_of
from benchmarks.performance.parts import Numbers, Part, cell

INFERENCE_TO_REACH = 1.05
COLUMNS = {
    "additive": "ours, additive",
    "tabm": "tabm",
    "torch-uncertainty": "torch-uncertainty",
    "probly": "probly",
    "einsum": "einsum, as in the notebook",
    "loop": "a layer a member, in a loop",
    "stacked": "a layer a member, stacked",
}


@dataclass(frozen=True)
class Case:
    """A shape that is measured.

    Attributes:
        name: as printed.
        make: makes the contenders; takes ``peers``, device and type.
        to_reach: of a plain layer's time in training.
        inference_to_reach: in inference, where there is an aim.
    """

    name: str
    make: Callable[..., dict[str, Contender]]
    to_reach: float
    inference_to_reach: float | None = None


def linear(batch: int, members: int, inputs: int, outputs: int, to_reach: float) -> Case:
    """Return a linear layer's case."""
    make = functools.partial(contenders.linear, batch, members, inputs, outputs)
    return Case(f"B {batch}, M {members}, {inputs} → {outputs}", make, to_reach, INFERENCE_TO_REACH)


CASES = [
    linear(4096, 32, 64, 64, 1.00),
    linear(2048, 16, 128, 128, 1.05),
    linear(1024, 4, 512, 512, 1.10),
    linear(256, 4, 512, 512, 1.12),
    linear(128, 3, 128, 128, 1.15),
    linear(256, 32, 384, 384, 1.12),
    linear(96, 4, 768, 3072, 1.15),
    Case(
        "Conv2d 3x3, B 32, M 4, 64 → 64, 32x32",
        functools.partial(contenders.convolution, 32, 4, 64, 32),
        1.10,
    ),
]


def measure(seconds: float) -> Numbers:
    """Time all layers."""
    return [measure_case(case, case.make(), seconds) for case in track(CASES, "layers")]


def measure_case(
    case: Case, found: dict[str, Contender], seconds: float, clock: Clock = seconds_of
) -> dict[str, Any]:
    """Time the contenders of one shape."""
    training = {name: contender.train() for name, contender in found.items()}
    inference = {name: contender.infer() for name, contender in found.items()}
    ours = found["ours"]
    assert isinstance(ours, contenders.Layer)
    inference["frozen"] = ours.infer_frozen()
    return {
        "layer": case.name,
        "to reach": {"training": case.to_reach, "inference": case.inference_to_reach},
        "training": ratios(training, seconds=seconds, clock=clock),
        "inference": ratios(inference, seconds=seconds, clock=clock),
    }


def training_lines(numbers: Numbers, columns: dict[str, str] = COLUMNS) -> Lines:
    """Return the table of forward and backward passes."""
    return _lines(numbers, "training", columns)


def inference_lines(numbers: Numbers, columns: dict[str, str] = COLUMNS) -> Lines:
    """Return the table of forward passes in evaluation."""
    columns = {"frozen": "ours, frozen", **columns}
    return _lines(numbers, "inference", columns)


def _lines(numbers: Numbers, what: str, columns: dict[str, str]) -> Lines:
    speed = "of the machine's own matrix product speed: ours (plain)"
    lines = [["layer", "ours (to reach)", *columns.values(), speed]]
    for each in numbers:
        found, bar = each[what], each["to reach"][what]
        cells = [cell(found, name) for name in columns]
        share = found["products"] / found["ours"]
        shares = f"{share:.0%} ({found['products']:.0%})"
        lines.append([each["layer"], cell(found, "ours", bar), *cells, shares])
    return lines


PART = Part("layers", __doc__, measure, {"layers": training_lines, "inference": inference_lines})

if __name__ == "__main__":
    PART.main()
