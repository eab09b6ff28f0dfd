"""Calibrate an ensemble's members before their mean, or the mean after it: which is better?

    python benchmarks/claims/calibration.py            # four minutes on two cores
    python benchmarks/claims/calibration.py --write    # and puts the tables into docs/calibrate.md

Networks trained too long on half of a data set, four members each. The other half is cut in two:
one part calibrates, the other scores, and then the other way round. A seed draws the halves and the
weights, and differences are paired within it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from scipy.stats import t as student

import batchensemble as be
from batchensemble.data.datasets import load_dataset
from batchensemble.ensembles.networks import multilayer_perceptron
from batchensemble.metrics import score

if not __package__:  # run as a file: imports start at the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.pages import ROOT, THREADS, Lines, as_markdown, as_rich, machine, write_texts

PAGE = ROOT / "docs" / "calibrate.md"
HELD_OUT = {"moons": 600, "digits": 898, "breast_cancer": 284}  # as many are trained on
EPOCHS = {"moons": 200, "digits": 40, "breast_cancer": 100}
KINDS = {"batch": be.BatchEnsemble, "deep": be.DeepEnsemble}
MEMBERS = 4
WAYS: dict[str, dict[str, Any]] = {
    "temperature before": {"pooling": "before"},
    "temperature before, own": {"pooling": "before", "per_member": True},
    "temperature after": {"pooling": "after"},
    "vector before": {"method": "vector", "pooling": "before"},
    "vector after": {"method": "vector", "pooling": "after"},
    "platt before": {"method": "platt", "pooling": "before"},
    "platt after": {"method": "platt", "pooling": "after"},
}
SCORES = {"nll": "NLL", "ece": "ECE"}
Found = dict[tuple[str, str], list[dict[str, dict[str, float]]]]


def main() -> None:
    """Measure, print the tables, and put them into the page if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5, help="trainings of each kind (default 5)")
    parser.add_argument("--write", action="store_true", help="put the tables into the page")
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    found: Found = {
        (data, kind): [measure(data, kind, seed) for seed in range(arguments.seeds)]
        for data in HELD_OUT
        for kind in KINDS
    }
    tables = {
        "temperatures": temperature_lines(found, "nll"),
        "temperatures' calibration error": temperature_lines(found, "ece"),
        "before less after": difference_lines(found),
    }
    console = Console(width=160)
    for name, lines in tables.items():
        console.print(as_rich(name, lines))
    if arguments.write:
        note = f"{arguments.seeds} seeds; {machine()}"
        texts = {name: as_markdown(lines, note=note) for name, lines in tables.items()}
        write_texts(PAGE, texts)
        console.print(f"wrote {PAGE.relative_to(ROOT)}")


def measure(data: str, kind: str, seed: int) -> dict[str, dict[str, float]]:
    """Return the scores of one training, by the way it was calibrated; means of both directions."""
    named = load_dataset(data)
    X, y = (np.concatenate(both) for both in zip(named.train, named.held_out, strict=True))
    order = np.random.default_rng(seed).permutation(len(X))
    held_out, training = np.split(order[: 2 * HELD_OUT[data]], 2)
    torch.manual_seed(seed)
    model = KINDS[kind](multilayer_perceptron(named.features, (64, 64), named.classes), MEMBERS)
    be.fit(
        model, (X[training], y[training]), epochs=EPOCHS[data], lr=3e-3, seed=seed, progress=False
    )
    halves = [(X[half], y[half]) for half in np.split(held_out, 2)]
    runs = []
    for given, other in (halves, halves[::-1]):
        models = {"none": model}
        models |= {name: be.calibrate(model, given, **way) for name, way in WAYS.items()}
        runs.append(
            {
                name: dict(score(be.predict(each, other[0]), other[1]))
                for name, each in models.items()
            }
        )
    return {
        name: {each: float(np.mean([run[name][each] for run in runs])) for each in SCORES}
        for name in runs[0]
    }


def temperature_lines(found: Found, name: str) -> Lines:
    """Return the mean scores without calibration and by each temperature."""
    ways = ["none", *(way for way in WAYS if way.startswith("temperature"))]
    lines = [[f"{SCORES[name]}, mean", "not calibrated", *ways[1:]]]
    for (data, kind), runs in found.items():
        means = [np.mean([run[way][name] for run in runs]) for way in ways]
        lines.append([f"{data}, {kind}", *(f"{mean:.4f}" for mean in means)])
    return lines


def difference_lines(found: Found) -> Lines:
    """Return what pooling before has more than pooling after, paired, with 95 % intervals."""
    methods = ["temperature", "vector", "platt"]
    heading = [f"{SCORES[name]}, {method}" for name in SCORES for method in methods]
    lines = [["before less after", *heading]]

    def differences(runs: Sequence[dict[str, dict[str, float]]]) -> list[np.ndarray]:
        return [
            np.array([run[f"{each} before"][name] - run[f"{each} after"][name] for run in runs])
            for name in SCORES
            for each in methods
        ]

    for (data, kind), runs in found.items():
        lines.append([f"{data}, {kind}", *map(interval, differences(runs))])
    # A seed's mean over all is one number: the data sets are the same in each.
    by_row = [differences(runs) for runs in found.values()]
    together = [np.mean([row[column] for row in by_row], 0) for column in range(len(heading))]
    return [*lines, ["all", *map(interval, together)]]


def interval(values: np.ndarray) -> str:
    """Return a mean and half its 95 % interval; starred where that leaves 0 out."""
    mean = float(values.mean())
    if len(values) < 2:
        return f"{mean:+.4f}"
    half = float(student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)
    return f"{mean:+.4f} ± {half:.4f}{' *' if abs(mean) > half else ''}"


if __name__ == "__main__":
    main()
