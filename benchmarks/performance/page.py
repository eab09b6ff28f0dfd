"""All of docs/performance.md: every part in a fresh process, one after the other.

    python benchmarks/performance/page.py                         # about a quarter of an hour
    python benchmarks/performance/page.py --write                 # and puts all into the page
    python benchmarks/performance/page.py --only layers,latency   # these parts anew
    python benchmarks/performance/page.py --only none --write     # the page from what was kept

Each part keeps its numbers under runs/performance/; the page is made of what is kept there. A part
that fails leaves what was kept of it before. What runs on a GPU is apart: ``gpu.py``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

if not __package__:  # run as a file: imports start at the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.pages import ROOT
from benchmarks.performance import (
    cheaper_steps,
    data_growth,
    deep,
    frozen_steps,
    growth,
    latency,
    layers,
    memory,
    networks,
    overhead,
    predicting,
    processes,
    scores,
    streaming,
)
from benchmarks.performance.parts import PAGE, arguments_of, write_page

PARTS = {
    part.name: part
    for part in (
        networks.PART,
        cheaper_steps.PART,
        frozen_steps.PART,
        deep.PART,
        layers.PART,
        latency.PART,
        growth.PART,
        data_growth.PART,
        memory.PART,
        processes.PART,
        overhead.PART,
        streaming.PART,
        predicting.PART,
        scores.PART,
    )
}


def main() -> None:
    """Measure, and write the page if asked."""
    parser = arguments_of(__doc__)
    parser.add_argument(
        "--only",
        metavar="PART,...",
        type=chosen,
        default=list(PARTS),
        help=f"of {', '.join(PARTS)}; or none",
    )
    arguments = parser.parse_args()
    failed = []
    for number, name in enumerate(arguments.only, 1):
        print(f"part {number} of {len(arguments.only)}: {name}", flush=True)
        start = time.monotonic()
        if code := run(name, arguments.seconds):
            failed.append(f"{name} (exit code {code})")
        print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
    if arguments.write:
        missing = write_page(PARTS.values())
        print(f"wrote {PAGE.relative_to(ROOT)}")
        if missing:
            print(f"no numbers are kept of {', '.join(missing)}: their tables are as they were")
    if failed:
        raise SystemExit(f"failed, its message is above: {', '.join(failed)}")


def chosen(text: str) -> list[str]:
    """Return the parts named on the command line.

    Raises:
        argparse.ArgumentTypeError: a name is not one of a part.
    """
    names = [] if text == "none" else text.split(",")
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"takes {', '.join(PARTS)}, or none, got {', '.join(map(repr, unknown))}"
        )
    return names


def run(name: str, seconds: float) -> int:
    """Run one part in a fresh process; return its exit code."""
    script = Path(__file__).with_name(f"{name}.py")
    return subprocess.call([sys.executable, str(script), "--seconds", str(seconds)])


if __name__ == "__main__":
    main()
