"""Train an ensemble on two moons, and write the two files that the page reads.

python examples/browser/make_model.py
"""

import json
from pathlib import Path

import torch
from sklearn.datasets import make_moons
from torch import nn

import batchensemble as be

HERE = Path(__file__).parent
CLASSES = ("upper moon", "lower moon")
RISK = 0.02  # of its answers are wrong, at most; the other examples are for a person


def main(folder: "str | Path" = HERE, epochs: int = 60) -> be.Exported:
    """Write ``model.onnx`` and ``moons.json`` into a folder.

    Args:
        folder: where the page is.
        epochs: of training.
    """
    torch.manual_seed(0)
    X, y = make_moons(2000, noise=0.25, random_state=0)
    X, y = X.astype("float32"), y.astype("int64")
    train, kept = (X[:400], y[:400]), (X[400:], y[400:])

    network = nn.Sequential(
        nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2)
    )
    model = be.BatchEnsemble(network, members=8)
    be.fit(model, train, epochs=epochs, lr=1e-2, seed=0)

    threshold = be.threshold_for(be.predict(model, kept[0]), kept[1], risk=RISK)
    print(threshold)
    file = be.export(model, Path(folder) / "model.onnx", X[:5], threshold=threshold)
    print(file)

    page = {
        "x": train[0].round(3).tolist(),
        "y": train[1].tolist(),
        "classes": CLASSES,
        "risk": RISK,
        "confidence": threshold.confidence,
    }
    (Path(folder) / "moons.json").write_text(json.dumps(page), encoding="utf-8")
    return file


if __name__ == "__main__":
    main()
