"""The picture of docs/calibrate.md: the page's example before and after calibration.

python docs/pictures/calibrate.py
"""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.figure import Figure
from sklearn.datasets import make_moons
from torch import nn

import batchensemble as be
from batchensemble.core.atomic_files import write_whole
from batchensemble.metrics import reliability
from batchensemble.report.plots import reliability_diagram
from batchensemble.report.plots.saving import png
from batchensemble.report.plots.style import drawing

PICTURE = Path(__file__).parents[1] / "images" / "calibrate.png"
BINS = 10


def main() -> None:
    """Train, calibrate and draw."""
    X, y = make_moons(3000, noise=0.5, random_state=0)
    X = X.astype("float32")
    training, calibration, test = slice(0, 300), slice(300, 1000), slice(1000, None)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    model = be.BatchEnsemble(net, members=4)
    be.fit(model, (X[training], y[training]), epochs=200, lr=1e-2)
    calibrated = be.calibrate(model, (X[calibration], y[calibration]))
    with drawing():
        figure = Figure(figsize=(6.6, 3.5), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        temperature = calibrated.calibrator.temperature.item()
        titles = ("as trained", f"calibrated, temperature {temperature:.2f}")
        for panel, each, title in zip(panels, (model, calibrated), titles, strict=True):
            found = reliability(be.predict(each, X[test]), y[test], BINS)
            reliability_diagram(found, panel, title=title)
            panel.set_xlim(0.5, 1.015)
        panels[1].set_ylabel("")
        write_whole(PICTURE, png(figure))


if __name__ == "__main__":
    main()
