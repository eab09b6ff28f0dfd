"""The table of layers on a GPU, by CUDA's own clock. This has never been run on a GPU.

    python benchmarks/performance/gpu.py            # float32 and bfloat16, plain and compiled
    python benchmarks/performance/gpu.py --write    # puts the tables into docs/performance.md
    python benchmarks/performance/gpu.py --device cpu --seconds 0    # a dry run of one small layer

The shapes and columns are those of ``layers.py``, with our layer and the plain one under
``torch.compile(mode="reduce-overhead")`` besides, which replays CUDA graphs. Times are those
between two events on the GPU's stream, waits for the CPU included.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.progress import track

if not __package__:  # run as a file: imports start at the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.pages import Lines
from benchmarks.performance import layers
from benchmarks.performance.contenders import Contender, Layer
from benchmarks.performance.interleaved import Clock, Work, seconds_of
from benchmarks.performance.parts import Numbers, Part, arguments_of

DTYPES = ("float32", "bfloat16")
COMPILED = {
    "compiled": "ours, compiled",
    "additive, compiled": "ours, additive, compiled",
    "plain, compiled": "plain, compiled",
}
COLUMNS = {**COMPILED, **layers.COLUMNS}
DRY_RUN = layers.CASES[4:5]  # B 128, M 3, 128 → 128


def main() -> None:
    """Do what the command line says, where there is a GPU."""
    parser = arguments_of(__doc__)
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a dry run of one layer"
    )
    arguments = parser.parse_args()
    dry = arguments.device == "cpu"
    if dry and arguments.write:
        parser.error("--write puts what a GPU did into the page, got --device cpu")
    if not dry and not torch.cuda.is_available():
        raise SystemExit(
            "torch.cuda.is_available() says there is no GPU here: run this where there is one, or "
            "pass --device cpu for a dry run"
        )
    name = None if dry else torch.cuda.get_device_name()
    part(arguments.device).run(arguments.seconds, write=arguments.write, gpu=name)


def part(device: str = "cuda") -> Part:
    """Return the part, with a pair of tables for each type; a dry run keeps its numbers apart."""
    tables: dict[str, Callable[[Numbers], Lines]] = {}
    for dtype in DTYPES:
        training = functools.partial(of_type, dtype, layers.training_lines)
        inference = functools.partial(of_type, dtype, layers.inference_lines)
        tables |= {f"gpu {dtype}": training, f"gpu inference {dtype}": inference}
    name = "gpu" if device == "cuda" else "gpu_dry_run"
    return Part(name, __doc__, functools.partial(measure, device), tables)


def of_type(dtype: str, lines: Callable[..., Lines], numbers: Numbers) -> Lines:
    """Return the table of one type's numbers."""
    return lines([each for each in numbers if each["dtype"] == dtype], COLUMNS)


def measure(device: str, seconds: float) -> Numbers:
    """Time all layers in each type."""
    cases = layers.CASES if device == "cuda" else DRY_RUN
    clock = milliseconds_of if device == "cuda" else seconds_of
    pairs = [(dtype, case) for dtype in DTYPES for case in cases]
    return [measure_case(case, dtype, device, seconds, clock) for dtype, case in track(pairs)]


def measure_case(
    case: layers.Case, dtype: str, device: str, seconds: float, clock: Clock
) -> dict[str, Any]:
    """Time the contenders of one shape and type."""
    torch.compiler.reset()  # each shape is compiled for itself, not for any shape
    found = case.make(device=device, dtype=getattr(torch, dtype))
    found["compiled"] = compiled(found["ours"])
    found["additive, compiled"] = compiled(found["additive"])
    found["plain, compiled"] = compiled(found["plain"])
    return {"dtype": dtype, **layers.measure_case(case, found, seconds, clock)}


def compiled(contender: Contender) -> Contender:
    """Return the same layer under ``torch.compile``."""
    assert isinstance(contender, Layer)
    module = torch.compile(contender.module, mode="reduce-overhead")
    return replace(contender, module=module)  # type: ignore[arg-type]


def milliseconds_of(function: Work) -> float:
    """Return how long a call takes on the GPU's stream, in milliseconds."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    function()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)


if __name__ == "__main__":
    main()
