"""Train with and without ``compile=True`` and print as JSON how that went.

A script, since the compiler cannot look through the type checker that the tests run with.
"""

import json

import torch
from torch import nn

import batchensemble as be
from batchensemble.training.callbacks.compilation import EAGER_STEPS

torch.manual_seed(0)
X, Y = torch.randn(120, 4), torch.randint(2, (120,))


def trained(**options):
    """Return the history and the weights of a small training."""
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    model = be.BatchEnsemble(network, 3)
    history = be.fit(model, (X, Y), lr=0.01, **options)
    return history, torch.cat([each.detach().flatten() for each in model.parameters()])


def main():
    """Leave out the compiler's last stage, which takes a minute."""
    compile_ = torch.compile
    torch.compile = lambda function, mode: compile_(function, backend="aot_eager")
    # The last batch is smaller, and there are too few steps in one epoch.
    several = {"epochs": EAGER_STEPS, "batch_size": 25}
    plain, expected = trained(**several)
    history, weights = trained(**several, compile=True)
    _, one_expected = trained(**several, members=[1])
    _, one = trained(**several, members=[1], compile=True)
    short, _ = trained(epochs=2, batch_size=60, compile="default")
    results = {
        "difference": float((weights - expected).abs().max()),
        "difference of one member": float((one - one_expected).abs().max()),
        "losses": [plain.losses, history.losses],
        "history": history.to_dict(),
        "message": str(history.compilation),
        "short": short.compilation is None,
    }
    print(json.dumps(results))


if __name__ == "__main__":
    main()
