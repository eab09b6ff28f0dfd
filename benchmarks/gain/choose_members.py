"""Choose 8 of 32 members after training: what does it gain?

    python benchmarks/gain/choose_members.py            # five minutes on one core; runs are kept
    python benchmarks/gain/choose_members.py --write    # and puts the tables into docs/gain.md

Half of the rows train (at most 1,000), a quarter stops the training and chooses the members (at
most 500), the last quarter scores them (at most 2,000). A seed draws the parts and the weights,
and differences are paired within it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from scipy.stats import t as student
from sklearn import datasets
from torch import nn

import batchensemble as be
from batchensemble.metrics.subsets import subset_score

if not __package__:  # run as a file: imports start at the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.gain.data import KEPT, SOURCES
from benchmarks.pages import ROOT, Lines, as_markdown, as_rich, keep, kept, machine, write_texts

PAGE = ROOT / "docs" / "gain.md"
MEMBERS, CHOSEN = 32, 8
RANDOM = 20  # subsets, whose scores are averaged
WIDTH = 64  # of both hidden layers
EPOCHS, PATIENCE = 100, 16
MOST = {"train": 1_000, "choose": 500, "score": 2_000}
KEEL = ("phoneme", "satimage")
WAYS = {
    "all": f"all {MEMBERS}",
    "greedy": f"{CHOSEN} chosen",
    "count": "best count chosen",
    "random": f"{CHOSEN} at random",
    "alone": f"{CHOSEN} trained",
}
DIFFERENCES = [("greedy", "random"), ("greedy", "all"), ("count", "all"), ("greedy", "alone")]
Run = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Table:
    """One data set.

    Attributes:
        load: function that returns features and targets.
        numbers: whether the targets are numbers, otherwise classes.
    """

    load: Callable[[], tuple[np.ndarray, np.ndarray]]
    numbers: bool = False

    @property
    def scores(self) -> tuple[str, str]:
        """What members are chosen by, each by itself."""
        return ("nll", "rmse") if self.numbers else ("nll", "accuracy")


def of_keel(name: str) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
    """Return what loads a data set of all classes."""

    def load() -> tuple[np.ndarray, np.ndarray]:
        X, labels = SOURCES[name].examples()
        return X, np.unique(labels, return_inverse=True)[1]

    return load


TABLES = {
    "digits": Table(lambda: datasets.load_digits(return_X_y=True)),
    "breast_cancer": Table(lambda: datasets.load_breast_cancer(return_X_y=True)),
    "moons": Table(lambda: datasets.make_moons(4_000, noise=0.3, random_state=0)),
    **{name: Table(of_keel(name)) for name in KEEL},
    "diabetes": Table(lambda: datasets.load_diabetes(return_X_y=True), numbers=True),
    "friedman1": Table(
        lambda: datasets.make_friedman1(4_000, noise=1.0, random_state=0), numbers=True
    ),
}


def main() -> None:
    """Train what is missing, print the tables, and put them into the page if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5, help="a data set (default 5)")
    parser.add_argument("--data", nargs="+", choices=TABLES, default=list(TABLES), metavar="NAME")
    parser.add_argument("--folder", type=Path, default=KEPT / "choose_members", help="of runs")
    parser.add_argument("--write", action="store_true", help="put the tables into the page")
    arguments = parser.parse_args()
    os.nice(19)
    torch.set_num_threads(1)
    console = Console(width=200)
    todo = [(name, seed) for seed in range(arguments.seeds) for name in arguments.data]
    found: dict[str, list[Run]] = {name: [] for name in arguments.data}
    for name, seed in track(todo, "training", console=console, transient=True):
        file = arguments.folder / f"{name}-{seed}.json"
        run = kept(file)
        if run is None:
            run = measure(TABLES[name], seed)
            keep(file, run)
        found[name].append(run)
    tables = {"chosen members": score_lines(found), "gain of choosing": difference_lines(found)}
    for name, lines in tables.items():
        console.print(as_rich(name, lines))
    console.print(sentence(found), markup=False, highlight=False)
    if arguments.write:
        note = f"{arguments.seeds} seeds; {machine('one thread')}"
        texts = {name: as_markdown(lines, note=note) for name, lines in tables.items()}
        write_texts(PAGE, {**texts, "what choosing gains": sentence(found)})
        console.print(f"wrote {PAGE.relative_to(ROOT)}")


def measure(table: Table, seed: int) -> Run:
    """Return the held-out scores by what the members were chosen by, and how they were chosen."""
    parts = split(table, seed)
    large, small = (trained(table, parts, members, seed) for members in (MEMBERS, CHOSEN))
    random = np.random.default_rng(seed)
    subsets: list[Sequence[int]] = [
        random.choice(MEMBERS, CHOSEN, replace=False).tolist() for _ in range(RANDOM)
    ]
    X, y = parts["score"]
    prediction = be.predict(large, X)
    result: Run = {}
    for score in table.scores:
        best, greedy = (_chosen(large, parts["choose"], count, score) for count in (None, CHOSEN))
        _, collector, finish = subset_score(prediction, score)
        collector.add(prediction, y)
        ways: dict[str, list[Sequence[int]]] = {
            "all": [range(MEMBERS)],
            "greedy": [greedy],
            "count": [best],
            "random": subsets,
        }
        result[score] = {
            way: float(np.mean([finish(collector.of(members)) for members in each]))
            for way, each in ways.items()
        }
        result[score] |= {"alone": be.evaluate(small, (X, y))[score], "members": len(best)}
    return result


def _chosen(model: be.Ensemble, data: Any, count: int | None, score: str) -> Sequence[int]:
    choice = be.choose_members(model, data, count, score=score).choice
    assert choice is not None
    return choice.chosen


def split(table: Table, seed: int) -> dict[str, Any]:
    """Return features and targets of the three parts, standardised on the one that trains."""
    X, y = table.load()
    order = np.random.default_rng(seed).permutation(len(X))
    ends = np.cumsum([len(X) // 2, len(X) // 4])
    rows = {
        name: part[: MOST[name]] for name, part in zip(MOST, np.split(order, ends), strict=True)
    }
    mean, spread = X[rows["train"]].mean(0), X[rows["train"]].std(0)
    X = ((X - mean) / np.where(spread > 0, spread, 1)).astype(np.float32)
    y = y.astype(np.float32) if table.numbers else y
    return {name: (X[each], y[each]) for name, each in rows.items()}


def trained(table: Table, parts: Mapping[str, Any], members: int, seed: int) -> be.Ensemble:
    """Return a BatchEnsemble as TabM has it: random signs at first, each member its own head."""
    torch.manual_seed(seed)
    X, y = parts["train"]
    outputs = 2 if table.numbers else int(y.max()) + 1
    layers = [nn.Linear(X.shape[1], WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU()]
    network = nn.Sequential(*layers, nn.Linear(WIDTH, outputs))
    model = be.BatchEnsemble(network, members, init="tabm", independent=["4"])
    be.fit(
        model,
        parts["train"],
        validation=parts["choose"],
        epochs=EPOCHS,
        batch_size=256,
        lr=2e-3,
        optimizer="adamw",
        weight_decay=3e-4,
        patience=PATIENCE,
        loss="gaussian_nll" if table.numbers else "cross_entropy",
        standardise_targets=table.numbers,
        seed=seed,
        progress=False,
    )
    return model


def score_lines(found: Mapping[str, list[Run]]) -> Lines:
    """Return the mean scores, and how many members the best count has."""
    lines = [["data, chosen by", *WAYS.values(), "best count"]]
    for title, runs in _rows(found):
        means = [np.mean([run[way] for run in runs]) for way in WAYS]
        count = np.mean([run["members"] for run in runs])
        lines.append([title, *(f"{mean:.4f}" for mean in means), f"{count:.1f}"])
    return lines


def difference_lines(found: Mapping[str, list[Run]]) -> Lines:
    """Return differences, above 0 where the first is better, with 95 % intervals over seeds."""
    heading = [f"{WAYS[ours]} over {WAYS[other]}" for ours, other in DIFFERENCES]
    lines = [["data, chosen by", *heading]]
    for title, runs in _rows(found):
        lines.append([title, *(_interval(gains(title, runs, *each)) for each in DIFFERENCES)])
    return lines


def gains(title: str, runs: list[dict[str, float]], ours: str, other: str) -> np.ndarray:
    """Return how much better the first is, by seed."""
    sign = 1 if title.endswith("accuracy") else -1
    return np.array([sign * (run[ours] - run[other]) for run in runs])


def sentence(found: Mapping[str, list[Run]]) -> str:
    """Return how often each difference is significant."""
    texts = []
    for ours, other in DIFFERENCES:
        counts = []
        for score in ("nll", "accuracy", "rmse"):
            rows = [(t, runs) for t, runs in _rows(found) if t.endswith(score)]
            if rows:
                signs = [_sign(gains(title, runs, ours, other)) for title, runs in rows]
                counts.append(
                    f"{score} better on {signs.count(1)}, worse on {signs.count(-1)} of {len(rows)}"
                )
        texts.append(f"{WAYS[ours]} against {WAYS[other]}: {'; '.join(counts)}")
    return ". ".join(each[0].upper() + each[1:] for each in texts) + "."


def _rows(found: Mapping[str, list[Run]]) -> Iterator[tuple[str, list[dict[str, float]]]]:
    for name, runs in found.items():
        for score in TABLES[name].scores:
            yield f"{name}, {score}", [run[score] for run in runs]


def _half(values: np.ndarray) -> float:
    """Return half the 95 % interval of the mean."""
    count = len(values)
    return float(student.ppf(0.975, count - 1) * values.std(ddof=1) / count**0.5)


def _sign(values: np.ndarray) -> int:
    """Return 1 or -1 where the interval of the mean leaves 0 out, otherwise 0."""
    mean = float(values.mean())
    return int(np.sign(mean)) if len(values) > 1 and abs(mean) > _half(values) else 0


def _interval(values: np.ndarray) -> str:
    """Return a mean and half its 95 % interval, and a star where that leaves 0 out."""
    mean = float(values.mean())
    if len(values) < 2:
        return f"{mean:+.4f}"
    return f"{mean:+.4f} ± {_half(values):.4f}{' *' if _sign(values) else ''}"


if __name__ == "__main__":
    main()
