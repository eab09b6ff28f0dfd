"""Draw docs/images/decide.png: decisions on handwritten digits with noise, by two ensembles.

python docs/pictures/decide.py     # half a minute
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import batchensemble as be
from batchensemble.core.atomic_files import write_whole
from batchensemble.decisions import ConformalSets
from batchensemble.ensembles.networks import multilayer_perceptron
from batchensemble.report.plots import detection_roc, risk_coverage_curves, set_sizes, shift_curves
from batchensemble.report.plots.saving import png
from batchensemble.report.plots.style import drawing

FILE = Path(__file__).resolve().parents[1] / "images" / "decide.png"
NOISE = 0.35  # pixels are from 0 to 1; without noise there are hardly any errors to find
METHODS = {
    "single": be.Single,
    "deep": lambda network: be.DeepEnsemble(network, 4),
    "batch": lambda network: be.BatchEnsemble(network, 4, init="normal", std=0.5),
}


def main() -> None:
    """Train, predict and draw."""
    torch.set_num_threads(1)
    digits = load_digits()
    noise = np.random.default_rng(0).normal(scale=NOISE, size=digits.data.shape)
    X, y = (digits.data / 16 + noise).astype(np.float32), digits.target
    X, rest, y, rest_y = train_test_split(X, y, train_size=500, random_state=0, stratify=y)
    known, new, known_y, new_y = train_test_split(rest, rest_y, train_size=0.5, random_state=0)
    torch.manual_seed(0)
    network = multilayer_perceptron(64, (128, 128), 10)
    models = {name: make(network) for name, make in METHODS.items()}
    for model in models.values():
        be.fit(model, (X, y), epochs=60, batch_size=64, cooldown=1 / 3, progress=False)

    curves = {
        name: be.risk_coverage(be.predict(model, new), new_y) for name, model in models.items()
    }
    ours = be.predict(models["batch"], known), be.predict(models["batch"], new)
    threshold = be.threshold_for(ours[0], known_y, risk=0.1)
    sets = ConformalSets("aps", 0.9).fit(ours[0], known_y)(ours[1])
    rows = {name: be.under_shift(model, new, new_y) for name, model in models.items()}
    with drawing():
        figure = Figure(figsize=(11.5, 7.4), layout="constrained")
        (first, second), (third, fourth) = figure.subplots(2, 2)
        risk_coverage_curves(curves, first, threshold)
        set_sizes(sets, new_y, second)
        detection_roc(be.detect_errors(ours[1], new_y), third)
        shift_curves(rows, "nll", fourth)
    write_whole(FILE, png(figure))


if __name__ == "__main__":
    main()
