"""Draw docs/images/ranks.png: four methods ranked over six small data sets of scikit-learn.

python docs/pictures/ranks.py [FOLDER]   # some minutes; the comparisons stay in FOLDER, if given
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch
from sklearn import datasets

from batchensemble.comparison.compare import Settings, compare
from batchensemble.comparison.files import RESULTS
from batchensemble.comparison.ranking import rank_folders, sentence
from batchensemble.data.datasets import Data, load_dataset
from batchensemble.report.embedded import finite
from batchensemble.report.plots import figure_of, mean_ranks, save_as
from batchensemble.report.plots.ranks import described

PICTURE = Path(__file__).resolve().parents[1] / "images" / "ranks.png"
SETTINGS = Settings(members=4, epochs=40, hidden=(64, 64), lr=3e-3, batch_size=32, seeds=3)
NAMED = ("digits", "breast_cancer")
TABLES = {
    "iris": datasets.load_iris,
    "wine": datasets.load_wine,
    "moons_500": lambda **options: datasets.make_moons(500, noise=0.3, random_state=0),
    "circles_500": lambda **options: datasets.make_circles(500, noise=0.2, random_state=0),
}


def main() -> None:
    """Compare on each data set, rank and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = parser.parse_args().folder or Path(temporary)
        folders = [compared(name, folder / name) for name in (*NAMED, *TABLES)]
        print(sentence(rank_folders(folders)))
        ranking = rank_folders(folders, "accuracy")
    print(sentence(ranking))
    save_as(figure_of(mean_ranks(ranking)), PICTURE, described(ranking))


def compared(name: str, folder: Path) -> Path:
    """Compare the methods on one data set and return where its results are."""
    folder.mkdir(parents=True, exist_ok=True)
    comparison = compare(data_of(name, folder), SETTINGS, folder=folder / "runs")
    (folder / RESULTS).write_text(json.dumps(finite(comparison.to_dict())))
    return folder


def data_of(name: str, folder: Path) -> Data:
    """Return a data set by name, or write it as a table and return that."""
    if name in NAMED:
        return load_dataset(name)
    X, y = TABLES[name](return_X_y=True)
    lines = [",".join(map(str, [*row, f"class {label}"])) for row, label in zip(X, y, strict=True)]
    header = ",".join([*(f"x{column}" for column in range(X.shape[1])), "kind"])
    path = folder / f"{name}.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return load_dataset(str(path), "kind")


if __name__ == "__main__":
    main()
