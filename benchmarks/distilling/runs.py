"""How much of an ensemble's gain does one network keep that is distilled from it?

    python benchmarks/distilling/runs.py             # eight minutes on one core; runs are kept
    python benchmarks/distilling/runs.py --write     # and puts the tables into docs/distil.md

The deep ensemble, the one network and the distilled one have the same architecture and see the same
rows. Some classes, or of numbers the rows with the highest body mass index, are in no training: the
AUROC is that of detecting them among held-out rows. How many synthetic inputs there are and how
they are made was chosen on seeds 0 to 2; those printed start at 10.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from sklearn.datasets import load_diabetes, load_digits
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler
from torch import nn

import batchensemble as be

if not __package__:  # run as a file: imports start at the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.pages import ROOT, Lines, as_markdown, as_rich, keep, kept, machine, write_texts

PAGE = ROOT / "docs" / "distil.md"
KEPT = ROOT / "runs" / "distilling"
MNIST = ROOT / "benchmarks" / "data" / "mnist10k.npz"
FIRST_SEED = 10
MOST_SCORED = 5_000
WAYS = {
    "one": "one network",
    "ensemble": "deep ensemble",
    "distilled": "distilled",
    "unmixed": "without synthetic inputs",
}
SCORES = ("nll", "epistemic", "total")
Run = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Source:
    """One data set, and how its ensemble trains.

    Attributes:
        title: in tables.
        rows: number of training rows.
        members: of the ensemble.
        width: of both hidden layers.
        epochs: of the ensemble and of the one network.
        lr: the same of the learning rate.
        seeds: how many.
        outputs: of a network.
        numbers: whether the targets are numbers, otherwise classes.
    """

    title: str
    rows: int
    members: int
    width: int
    epochs: int
    lr: float
    seeds: int
    outputs: int
    numbers: bool = False


SOURCES = {
    "digits": Source("300 digits, 7 classes", 300, 8, 64, 60, 3e-3, 8, 7),
    "diabetes": Source("200 rows of the diabetes table", 200, 8, 64, 30, 1e-3, 6, 2, numbers=True),
    "mnist": Source("1,000 digits of MNIST, 8 classes", 1_000, 16, 128, 50, 1e-3, 3, 8),
}


def main() -> None:
    """Train what is missing, print the tables, and put them into the page if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, help="a data set (default 8, 6 and 3)")
    parser.add_argument("--data", nargs="+", choices=SOURCES, default=list(SOURCES), metavar="NAME")
    parser.add_argument("--mnist", type=Path, default=MNIST, help="the file of MNIST's digits")
    parser.add_argument("--folder", type=Path, default=KEPT, help="of runs")
    parser.add_argument("--write", action="store_true", help="put the tables into the page")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=200)
    todo = [
        (name, FIRST_SEED + seed)
        for name in arguments.data
        for seed in range(arguments.seeds or SOURCES[name].seeds)
    ]
    found: dict[str, list[Run]] = {name: [] for name in arguments.data}
    for name, seed in track(todo, "training", console=console, transient=True):
        file = arguments.folder / f"{name}-{seed}.json"
        run = kept(file)
        if run is None:
            run = measure(name, seed, arguments.mnist)
            keep(file, run)
        found[name].append(run)
    tables = {
        "distilled scores": score_lines(found),
        "gain kept": kept_lines(found),
        "cost of distilling": cost_lines(found),
    }
    for name, lines in tables.items():
        console.print(as_rich(name, lines))
    if arguments.write:
        counts = ", ".join(f"{len(runs)} of {name}" for name, runs in found.items())
        note = f"seeds: {counts}; {machine('one thread')}"
        write_texts(PAGE, {name: as_markdown(lines, note=note) for name, lines in tables.items()})
        console.print(f"wrote {PAGE.relative_to(ROOT)}")


def measure(name: str, seed: int, mnist: Path = MNIST) -> Run:
    """Return the scores and the costs of each way, of one seed."""
    source = SOURCES[name]
    train, held_out, outside = split(name, seed, mnist)
    features = train[0].shape[1]

    def network() -> nn.Module:
        width = source.width
        return nn.Sequential(
            nn.Linear(features, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, source.outputs),
        )

    def trained(model: be.Ensemble) -> be.Ensemble:
        loss = "gaussian_nll" if source.numbers else "cross_entropy"
        options = {"loss": loss, "standardise_targets": source.numbers}
        plan = {
            "epochs": source.epochs,
            "lr": source.lr,
            "batch_size": 64,
            "seed": seed,
            "progress": False,
        }
        be.fit(model, train, **plan, **options)
        return model

    found: Run = {}
    models: dict[str, be.Ensemble] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for way in WAYS:
            torch.manual_seed(seed)
            start = time.process_time()
            if way == "one":
                models[way] = trained(be.Single(network()))
            elif way == "ensemble":
                models[way] = trained(be.DeepEnsemble(network(), source.members))
            else:
                options: dict[str, Any] = {"seed": seed, "progress": False}
                if way == "unmixed":
                    options |= {"mixing": "none", "epochs": 4 * source.epochs, "batch_size": 64}
                models[way] = be.distil(models["ensemble"], network(), train[0], **options)
            found[way] = {
                **scores(models[way], held_out, outside),
                "training": time.process_time() - start,
                "parameters": float(models[way].parameter_counts()["parameters"]),
            }
    for way, seconds in prediction_seconds(models, held_out[0]).items():
        found[way]["prediction"] = seconds
    return found


def split(name: str, seed: int, mnist: Path = MNIST) -> tuple[Any, Any, np.ndarray]:
    """Return rows to train on and to score, and the inputs of rows from outside."""
    if name == "mnist":
        with np.load(mnist) as file:
            X, y = file["X"].reshape(len(file["X"]), -1) / 255.0, file["y"].astype(np.int64)
        outside = y > 7
    elif name == "digits":
        X, y = load_digits(return_X_y=True)
        outside = y > 6
    else:
        X, y = load_diabetes(return_X_y=True)
        outside = X[:, 2] > np.quantile(X[:, 2], 0.8)  # the body mass index
    order = np.random.default_rng(seed).permutation(len(X))
    X, y, outside = X[order], y[order], outside[order]
    inner, rows = (X[~outside], y[~outside]), SOURCES[name].rows
    if name != "mnist":
        scaler = StandardScaler().fit(inner[0][:rows])
        X, inner = scaler.transform(X), (scaler.transform(inner[0]), inner[1])
    features = inner[0].astype(np.float32)
    scored = slice(rows, rows + MOST_SCORED)
    return (
        (features[:rows], inner[1][:rows]),
        (features[scored], inner[1][scored]),
        X[outside].astype(np.float32),
    )


def scores(model: be.Ensemble, held_out: Any, outside: np.ndarray) -> dict[str, float]:
    """Return the NLL on held-out rows, and how well each uncertainty detects those from outside."""
    inner, outer = be.predict(model, held_out[0]), be.predict(model, outside)
    there = np.repeat([0, 1], [len(inner), len(outer)])
    found = {"nll": float(be.evaluate(model, held_out)["nll"])}
    for name in ("epistemic", "total"):
        values = np.concatenate([getattr(inner, name), getattr(outer, name)])
        found[name] = float(roc_auc_score(there, values))
    return found


def prediction_seconds(models: Mapping[str, be.Ensemble], X: np.ndarray) -> dict[str, float]:
    """Return the processor time of a forward pass of each model, the median of 30 in turns."""
    batch = torch.from_numpy(X[:512])
    spent: dict[str, list[float]] = {way: [] for way in models}
    with torch.no_grad():
        for _ in range(30):
            for way, model in models.items():
                model.eval()
                start = time.process_time()
                for _ in range(5):
                    model(batch)
                spent[way].append(time.process_time() - start)
    return {way: float(np.median(each)) for way, each in spent.items()}


def score_lines(found: Mapping[str, Sequence[Run]]) -> Lines:
    """Return the mean scores of each way."""
    lines = [["", *WAYS.values()]]
    for name, runs in found.items():
        for score in SCORES:
            title = "NLL, nats" if score == "nll" else f"AUROC, {score}"
            means = [np.mean([run[way][score] for run in runs]) for way in WAYS]
            lines.append([f"{SOURCES[name].title}: {title}", *(f"{each:.4f}" for each in means)])
    return lines


def kept_lines(found: Mapping[str, Sequence[Run]]) -> Lines:
    """Return the share of the ensemble's gain over one network that is kept, with intervals."""
    lines = [["share of the gain kept", "distilled", "without synthetic inputs", "to reach"]]
    for name, runs in found.items():
        for score, title, goal in (
            ("nll", "NLL", "≥ 70 %"),
            ("epistemic", "AUROC, epistemic", "≥ 80 %"),
        ):
            shares = [share_kept(runs, way, score) for way in ("distilled", "unmixed")]
            lines.append([f"{SOURCES[name].title}: {title}", *shares, goal])
    return lines


def share_kept(runs: Sequence[Run], way: str, score: str) -> str:
    """Return the ratio of two mean gains over one network, with a 95 % bootstrap interval."""
    sign = -1 if score == "nll" else 1
    ours, all_of_it = (
        sign * np.array([run[each][score] - run["one"][score] for run in runs])
        for each in (way, "ensemble")
    )
    drawn = np.random.default_rng(0).integers(len(runs), size=(10_000, len(runs)))
    low, high = np.quantile(ours[drawn].mean(1) / all_of_it[drawn].mean(1), [0.025, 0.975])
    return f"{ours.mean() / all_of_it.mean():.0%} [{low:.0%}, {high:.0%}]"


def cost_lines(found: Mapping[str, Sequence[Run]]) -> Lines:
    """Return what each way costs, as multiples of one network's."""
    ways = ("ensemble", "distilled")
    lines = [["times one network's", *(WAYS[way] for way in ways)]]
    for name, runs in found.items():
        for cost in ("prediction", "parameters", "training"):
            ratios = [
                np.median([run[way][cost] / run["one"][cost] for run in runs]) for way in ways
            ]
            lines.append([f"{SOURCES[name].title}: {cost}", *(f"{each:.2f}" for each in ratios)])
    return lines


if __name__ == "__main__":
    main()
