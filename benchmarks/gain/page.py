"""The share of a deep ensemble's gain that a BatchEnsemble has, and the best rule of sharing.

    python benchmarks/gain/page.py            # half an hour on one core; finished runs are stored
    python benchmarks/gain/page.py --write    # and the tables into docs/gain.md
    python benchmarks/gain/page.py --epochs   # one network after other numbers of epochs

The share of the gain is (one network - ours) / (one network - deep ensemble): of the negative
log-likelihood on held-out data, and of the area under the ROC curve of detecting classes unseen in
training. An interrupted run is resumed. It trains with the lowest priority.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

if not __package__:  # run as a file: imports start at the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.gain.data import KEPT, SOURCES, Source
from benchmarks.gain.runs import METHODS, Job, after_epochs, jobs_of, run_all
from benchmarks.gain.shares import Runs, scored
from benchmarks.gain.tables import PAGE, Found, conclusion, sentences, tables, write
from benchmarks.pages import ROOT, Lines, as_rich, machine

TRIED = (10, 20, 40, 80)  # epochs
TRIED_ON = (100, 101, 102)  # seeds that no table has


def main() -> None:
    """Train what is missing, then print, and write if asked."""
    arguments = arguments_of().parse_args()
    os.nice(19)  # a long run is no reason for others to wait
    torch.set_num_threads(1)
    console = Console(width=200)
    sources = [SOURCES[name] for name in arguments.data]
    if arguments.epochs:
        console.print(as_rich("NLL of one network", epoch_lines(sources)))
        return
    failed = [] if arguments.no_training else train(sources, arguments, console)
    found = evaluated(sources, arguments.seeds, arguments.folder)
    if not found:
        sys.exit(f"no data set has two seeds of all methods in {arguments.folder} yet")
    for name, lines in tables(found).items():
        console.print(as_rich(name, lines))
    console.print(*sentences(found), conclusion(found), sep="\n", markup=False, highlight=False)
    if arguments.write:
        write(found, machine(f"{arguments.jobs} processes of one thread"))
        console.print(f"wrote {PAGE.relative_to(ROOT)}")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def arguments_of() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=10, help="a data set (default 10)")
    parser.add_argument("--data", nargs="+", choices=SOURCES, default=list(SOURCES), metavar="NAME")
    parser.add_argument("--jobs", type=int, default=1, help="processes of one thread each")
    parser.add_argument("--folder", type=Path, default=KEPT, help="of finished runs")
    parser.add_argument("--no-training", action="store_true", help="score stored runs only")
    parser.add_argument("--epochs", action="store_true", help="how the epochs were chosen")
    parser.add_argument("--write", action="store_true", help="put the tables into the page")
    return parser


def train(sources: list[Source], arguments: argparse.Namespace, console: Console) -> list[str]:
    """Train the missing runs and return the names of those that failed."""
    todo = list(jobs_of(sources, arguments.seeds))
    todo = [job for job in todo if job.read(arguments.folder) is None]
    failed = []
    runs = run_all(todo, arguments.folder, arguments.jobs)
    for job, reason in track(runs, "training", len(todo), console=console, transient=True):
        if reason:
            console.print(f"{job.name}: {reason}", markup=False)
            failed.append(job.name)
    return failed


def evaluated(sources: list[Source], seeds: int, folder: Path) -> list[Found]:
    """Return the scores of each data set that has two seeds with all methods."""
    found = []
    for source in sources:
        whole = [runs for seed in range(seeds) if (runs := read(source, seed, folder)) is not None]
        if len(whole) > 1:
            found.append(Found(source.name, len(whole), scored(whole)))
    return found


def read(source: Source, seed: int, folder: Path) -> Runs | None:
    """Return the runs of all methods, ``None`` where one is missing."""
    runs = {method: Job(source, seed, method).read(folder) for method in METHODS}
    return None if any(run is None for run in runs.values()) else runs


def epoch_lines(sources: list[Source]) -> Lines:
    """Return the NLL of one network after several numbers of epochs, on seeds of their own."""
    lines = [["data", *(f"{epochs} epochs" for epochs in TRIED), "taken"]]
    for source in sources:
        means = [np.mean([after_epochs(source, seed, each) for seed in TRIED_ON]) for each in TRIED]
        lines.append([source.name, *(f"{mean:.4f}" for mean in means), str(source.epochs)])
    return lines


if __name__ == "__main__":
    main()
