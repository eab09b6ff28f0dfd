"""Learn tasks one after the other in six ways, and print what is left of each.

    python benchmarks/learning/runs.py            # what is not there yet, and the tables
    python benchmarks/learning/runs.py --seeds 0  # the tables of what was measured
    python benchmarks/learning/runs.py --write    # and puts them into docs/learn.md
    python benchmarks/learning/runs.py --kinds sets   # twenty tasks, a ResNet

A finished run is a line of ``runs/learning/KIND.jsonl`` and is not run again. Three seeds take ten
minutes of one processor, a seed of sets six. All methods know the task of an example, have a head
for each task, and train for ten epochs of each (five of sets) with Adam at 1e-3. Rates of fast
weights and the penalty of EWC were chosen on validation rows of another seed, with five tasks.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from rich.console import Console

if not __package__:  # run as a file: imports start at the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.learning.data import tasks_of
from benchmarks.learning.methods import METHODS
from benchmarks.pages import ROOT, Lines, as_markdown, as_rich, machine, write_texts

KEPT = ROOT / "runs" / "learning"
PAGE = ROOT / "docs" / "learn.md"
TITLES = {
    "split": "ten pairs of digits",
    "permuted": "ten orders of the pixels",
    "sets": "twenty sets of five digits, a small ResNet",
}
HEADING = [
    "method",
    "accuracy after all",
    "less a network each",
    "worst task",
    "forgetting",
    "parameters",
    "task inferred",
]
# Student's t for a 95 % interval of the mean, by degrees of freedom.
QUANTILES = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}


def main() -> None:
    """Run what is not there yet, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kinds", default="split,permuted")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--write", action="store_true", help="put the tables into docs/learn.md")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    kinds = arguments.kinds.split(",")
    for seed in range(arguments.seeds):
        for kind in kinds:
            run_missing(kind, seed, arguments.methods.split(","))
    console, texts = Console(width=150), {}
    for kind in kinds:
        found = kept(kind)
        table = lines(found)
        console.print(as_rich(TITLES[kind], table))
        seeds = max(map(len, found.values()), default=0)
        note = f"{machine('one thread')}; {seeds} {'seed' if seeds == 1 else 'seeds'}"
        texts[f"learning, {kind}"] = as_markdown(table, note=note)
    if arguments.write:
        write_texts(PAGE, texts)


def run_missing(kind: str, seed: int, methods: Sequence[str]) -> None:
    """Run the methods that a seed has no line of, and add one for each."""
    there, tasks = {(each["seed"], each["method"]) for each in read(kind)}, None
    for name in methods:
        if (seed, name) in there:
            continue
        tasks = tasks or tasks_of(kind, seed)
        start = time.process_time()
        found = METHODS[name].learn(tasks, kind, seed)
        last = found.accuracy[-1]
        line = {
            "seed": seed,
            "method": name,
            "accuracy": mean(last),
            "worst": min(last),
            "forgetting": forgetting(found.accuracy),
            "parameters": found.parameters,
            "inferred": found.inferred,
            "refused": found.refused,
            "seconds": time.process_time() - start,
        }
        KEPT.mkdir(parents=True, exist_ok=True)
        with (KEPT / f"{kind}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(kind, line, flush=True)


def forgetting(accuracy: Sequence[Sequence[float]]) -> float:
    """Return the mean loss of accuracy since a task was learnt, over all tasks but the last.

    As avalanche's ``StreamForgetting`` after the last task: the accuracy on a task right after it
    was learnt, less the one after all tasks.

    Args:
        accuracy: on task ``k`` after task ``t``, ``[t][k]`` for ``k <= t``.
    """
    last = accuracy[-1]
    return mean(accuracy[task][task] - last[task] for task in range(len(accuracy) - 1))


def read(kind: str) -> list[dict[str, Any]]:
    """Return the finished runs of a kind."""
    file = KEPT / f"{kind}.jsonl"
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


def kept(kind: str) -> dict[str, list[dict[str, Any]]]:
    """Return the finished runs of a kind by method, in the order of the methods."""
    found = read(kind)
    return {name: [each for each in found if each["method"] == name] for name in METHODS}


def lines(runs: dict[str, list[dict[str, Any]]]) -> Lines:
    """Return a table: means over seeds, and 95 % intervals where there are several.

    The accuracy less that of separate networks is paired by seed.
    """
    table = [HEADING]
    others = {each["seed"]: each["accuracy"] for each in runs["separate"]}
    for name, method in METHODS.items():
        found = runs[name]
        if not found:
            continue
        gaps = [e["accuracy"] - others[e["seed"]] for e in found if e["seed"] in others]
        inferred, refused = "-", [each["refused"] for each in found if each["refused"] is not None]
        if refused:
            inferred = interval([each["inferred"] for each in found])
            inferred += f", {sum(refused)} of {len(refused)} refused" if any(refused) else ""
        table.append(
            [
                method.title,
                interval([each["accuracy"] for each in found]),
                interval(gaps, "+.3f") if any(gaps) else "-",
                interval([each["worst"] for each in found]),
                interval([each["forgetting"] for each in found]),
                f"{mean(each['parameters'] for each in found):.2f}",
                inferred,
            ]
        )
    return table


def interval(values: Sequence[float], form: str = ".3f") -> str:
    """Return a mean and half the width of its 95 % interval.

    Example:
        >>> interval([0.5]), interval([0.4, 0.5, 0.6]), interval([0.0, 0.0])
        ('0.500', '0.500 ± 0.248', '0')
    """
    if not any(values):
        return "0"
    if len(values) == 1:
        return format(values[0], form)
    half = QUANTILES.get(len(values) - 1, 1.96) * stdev(values) / math.sqrt(len(values))
    return f"{mean(values):{form}} ± {half:.3f}"


if __name__ == "__main__":
    main()
