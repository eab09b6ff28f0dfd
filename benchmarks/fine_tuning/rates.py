"""Try learning rates of each way to fine-tune, on snippets that no seed is scored on.

python benchmarks/fine_tuning/rates.py --model FOLDER --movies FILE        # an hour
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

if not __package__:  # run as a file: imports start at the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.fine_tuning.data import split, unscored
from benchmarks.fine_tuning.methods import METHODS
from benchmarks.fine_tuning.networks import HEADS
from benchmarks.fine_tuning.runs import SEEDS, SIZES, Source, parsed, run

RATES = {
    "head": (3e-3, 1e-2, 3e-2, 1e-1),
    "full": (5e-5, 1e-4, 2e-4),
    "lora": (3e-4, 1e-3, 3e-3, 1e-2),
    "multiplicative": (1e-3, 3e-3, 1e-2),
    "ours_lora": (1e-3, 3e-3),
}  # 4 heads, 4 LoRAs and the deep ensemble take the rate of one
TRAIN, TEST = 600, 600


def main() -> None:
    """Print the NLL of each rate."""
    arguments = parsed(__doc__)
    torch.set_num_threads(1)
    train, test, epochs = SIZES["full"]
    source = Source(arguments)
    rows = unscored(source.labels, train, test, SEEDS)
    inputs = {name: each[rows] for name, each in source.inputs.items()}
    data = split(inputs, source.labels[rows], TRAIN, TEST, SEEDS)
    for name, rates in RATES.items():
        if name not in arguments.methods.split(","):
            continue
        for rate in rates:
            method = replace(METHODS[name], lr=rate)
            found = run(method, source.network(), HEADS[arguments.network], data, epochs, SEEDS)
            Console().print(f"{method.title:24} {rate:.0e}  NLL {found['nll']:.3f}")


if __name__ == "__main__":
    main()
