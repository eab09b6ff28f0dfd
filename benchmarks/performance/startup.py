"""Start-up time over that of ``import torch``: medians of interleaved fresh processes.

python benchmarks/performance/startup.py
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

from rich.console import Console
from rich.progress import track
from rich.table import Table

REFERENCE = "import torch"
CODES = {
    REFERENCE: REFERENCE,
    "import batchensemble": "import batchensemble",
    "from batchensemble import BatchEnsemble": "from batchensemble import BatchEnsemble",
    "from batchensemble import fit, evaluate": "from batchensemble import fit, evaluate",
    "batchensemble --help": "import sys; sys.argv = ['batchensemble', '--help']\n"
    "from batchensemble.cli.app import main; main()",
}
TO_REACH = {"import batchensemble": 1.25}
REPETITIONS = 11


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in CODES}
    for repetition in track(range(REPETITIONS + 1), "starting", transient=True):
        for name, code in CODES.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
            if repetition:  # the first fills the disk's cache
                seconds[name].append(time.perf_counter() - start)
    table = Table(title=f"Start-up over import torch, median of {REPETITIONS}")
    for heading in ("", "ratio", "to reach"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, values in seconds.items():
        ratios = [
            own / reference for own, reference in zip(values, seconds[REFERENCE], strict=True)
        ]
        bar = TO_REACH.get(name)
        table.add_row(name, f"{statistics.median(ratios):.2f}", "" if bar is None else f"{bar}")
    Console().print(table)


if __name__ == "__main__":
    main()
