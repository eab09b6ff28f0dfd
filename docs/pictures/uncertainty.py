"""Draw the three uncertainties over two noisy moons, and say whether the ensembles are one model.

python docs/pictures/uncertainty.py   # about half a minute; writes docs/images/uncertainty.png
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import make_moons

import batchensemble as be
from batchensemble.core.atomic_files import write_whole
from batchensemble.ensembles.networks import multilayer_perceptron
from batchensemble.report.plots.saving import png
from batchensemble.report.plots.style import INK, SOFT, drawing, row_of_panels

PICTURE = Path(__file__).parents[1] / "images" / "uncertainty.png"
PARTS = {
    "total": "Total = aleatoric + epistemic",
    "aleatoric": "Aleatoric: where the moons meet",
    "epistemic": "Epistemic: where members part",
}
X_RANGE, Y_RANGE, GRID = (-3.5, 4.5), (-3.0, 3.5), 160
METHODS = {"single": be.Single, "batch": be.BatchEnsemble, "deep": be.DeepEnsemble}
NAMES = {"batch": "BatchEnsemble", "deep": "deep ensemble"}


def train() -> dict[str, be.Ensemble]:
    """Return one network, a BatchEnsemble and a deep ensemble, trained alike."""
    models = {}
    for name, method in METHODS.items():
        torch.manual_seed(0)
        network = multilayer_perceptron(2, [64, 64], 2)
        models[name] = method(network) if name == "single" else method(network, 4)
        be.fit(models[name], moons(400, seed=0), epochs=40, batch_size=50, lr=3e-3, seed=0)
    return models


def moons(examples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return moons that overlap."""
    return make_moons(examples, noise=0.25, random_state=seed)


def draw(models: dict[str, be.Ensemble]) -> None:
    """Draw a row an ensemble and a column an uncertainty, each column on one scale."""
    x, y = np.linspace(*X_RANGE, GRID), np.linspace(*Y_RANGE, GRID)
    points = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
    predictions = {name: be.predict(models[name], points) for name in NAMES}
    shown, classes = moons(400, seed=0)
    with drawing():
        figure, rows = row_of_panels(3, 5.4, rows=2, sharex=True, sharey=True)
        for column, (part, title) in enumerate(PARTS.items()):
            values = {name: getattr(each, part) for name, each in predictions.items()}
            highest = max(each.max() for each in values.values())
            for row, (name, each) in enumerate(values.items()):
                ax = rows[row][column]
                mesh = ax.pcolormesh(
                    x, y, each.reshape(GRID, GRID), vmin=0, vmax=highest, cmap="Blues",
                    rasterized=True, shading="auto",
                )  # fmt: skip
                for label, marker, colour in ((0, "o", SOFT), (1, "^", INK)):
                    ax.scatter(
                        *shown[classes == label].T, s=5, marker=marker, color=colour, linewidths=0
                    )
                ax.set_xlim(X_RANGE)
                ax.set_ylim(Y_RANGE)
                if row == 0:
                    ax.set_title(title, fontsize=9)
                if column == 0:
                    ax.set_ylabel(NAMES[name].capitalize() if name == "deep" else NAMES[name])
            bar = figure.colorbar(
                mesh, ax=[panels[column] for panels in rows], location="bottom", aspect=30
            )
            bar.set_label("nats")
    PICTURE.parent.mkdir(exist_ok=True)
    write_whole(PICTURE, png(figure))


def main() -> None:
    """Train, draw, and print the verdicts on 20,000 examples."""
    models = train()
    draw(models)
    X, y = moons(20_000, seed=1)
    predictions = {name: be.predict(model, X) for name, model in models.items()}
    single, deep = predictions["single"], predictions["deep"]
    for name, title in NAMES.items():
        for others in ({}, {"single": single, "deep": deep}):
            found = be.metrics.is_one_model(predictions[name], y, **others)
            beside = " beside one network and a deep ensemble" if others else " alone"
            print(f"{title}{beside}\n  {found.verdict}")
    share = be.metrics.share_of_gain(single, predictions["batch"], deep, y)
    print(
        f"share of the gain: {share.share:.2f} [{share.low:.2f}, {share.high:.2f}] {share.reason}"
    )


if __name__ == "__main__":
    main()
