"""What tests/test_processes.py runs in several processes: a training, or several, by name."""

import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import batchensemble as be
from batchensemble.checkpoints import CheckpointError

torch.set_num_threads(1)
torch.manual_seed(0)
X, Y = torch.randn(57, 4, dtype=torch.float64), torch.randint(3, (57,))
HELD_OUT = torch.randn(21, 4, dtype=torch.float64), torch.randint(3, (21,))
RANK = int(os.environ.get("RANK", "0"))


def network(dropout=0.0):
    layers = [nn.Linear(4, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 3)]
    return nn.Sequential(*layers).double()


def batch(**options):
    return be.BatchEnsemble(network(**options), members=3)


def deep(**options):
    return be.DeepEnsemble(network(**options), members=3)


class OneAfterTheOther(nn.Module):
    """Not torch's own: its members run as copies, with batch norm."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)
        self.double()

    def forward(self, x):
        return self.last(torch.tanh(self.norm(self.first(x))))


def copies():
    return be.DeepEnsemble(OneAfterTheOther(), members=3)


def squares(outputs, targets):
    return outputs.square().mean(-1) + targets.unsqueeze(-1)


LOADER = DataLoader(TensorDataset(X, Y), 8, shuffle=True)
SGD = {"optimizer": "sgd", "lr": 0.1}
# Each is an ensemble, data, and options of fit. The last batch has one example.
CASES = {
    "adam": (batch, (X, Y), {}),
    "held out": (batch, (X, Y), {"validation": HELD_OUT, "stop_on": "brier", "patience": 1}),
    "one held out": (batch, (X, Y), {"validation": (X[:1], Y[:1])}),
    "clip": (batch, (X, Y), {"clip": 0.01, "micro_batch": 3, "average": 0.9, **SGD}),
    "split": (batch, (X, Y), {"batches": "split", "schedule": "cosine", **SGD}),
    "mean": (batch, (X, Y), {"loss_on": "mean_logits"}),
    "loss": (batch, (X, Y), {"loss": squares}),
    "each its class": (batch, (X, Y.unsqueeze(1).repeat(1, 3)), {}),
    "loader": (batch, LOADER, {"weight_decay": 0.1, "optimizer": "adamw"}),
    "deep": (deep, (X, Y), {"validation": HELD_OUT}),
    "mimo": (lambda: be.MIMO(nn.Sequential(nn.Linear(4, 3)).double(), 3), (X, Y), {}),
    "members": (deep, (X, Y), {"validation": HELD_OUT, "strategy": "members", "average": 0.9}),
    "members, copies": (copies, (X[:56], Y[:56]), {"strategy": "members", "clip": 0.1, **SGD}),
    "members, loader": (deep, LOADER, {"strategy": "members"}),
    "weights": (
        batch,
        (X, Y, torch.rand(57, dtype=torch.float64)),
        {"class_weight": [1.0, 2.0, 3.0], "validation": HELD_OUT},
    ),
    "members, weights": (deep, (X, Y, torch.rand(57)), {"strategy": "members"}),
}


def train(model, data, folder=None, **options):
    settings = {"epochs": 2, "batch_size": 8, "lr": 0.02, "seed": 4, **options}
    return be.fit(model, data, checkpoints=folder, **settings)


def results(model, history):
    kept = history.as_dict()
    del kept["seconds"]
    return {"weights": model.state_dict(), "history": kept}


def all_cases():
    """Train each case, from other weights in each process."""
    found = {}
    for name, (make, data, options) in CASES.items():
        torch.manual_seed(1 + RANK)
        model = make()
        found[name] = results(model, train(model, data, **options))
    return found


class Interrupt(be.Callback):
    """Ends the training after some steps, by an error or by a signal to one process."""

    def __init__(self, step, number=None):
        self.step, self.number = step, number

    def on_step(self, run):
        if run.step == self.step and self.number is None:
            raise KeyError("power")
        if run.step == self.step and RANK == 1:
            os.kill(os.getpid(), self.number)


def go_on(make, folder, step, number=None, **options):
    """Train until it is interrupted, or to the end; then return what came of it."""
    torch.manual_seed(1)
    model, stop = make(), Interrupt(step, number)
    settings = {"checkpoint_every": 1, "resume": True, "callbacks": [stop], **options}
    try:
        return results(model, train(model, (X, Y), folder, validation=HELD_OUT, **settings))
    except (KeyError, SystemExit, CheckpointError) as error:
        return repr(error)


def broken(out):
    """Go on with what one process wrote, write what one is to go on with, and go on here."""
    found = {"of one": go_on(batch, out / "of one", -1), "mine": go_on(batch, out / "mine", 11)}

    def dropping():
        return batch(dropout=0.3)

    for name, make, options in (
        ("dropout", dropping, {}),
        ("spread", deep, {"strategy": "members", "patience": 1, "average": 0.5}),
    ):
        found[f"{name} whole"] = go_on(make, out / f"{name} whole", -1, **options)
        found[f"{name} ended"] = go_on(make, out / name, 11, signal.SIGTERM, **options)
        found[name] = go_on(make, out / name, -1, **options)
    return found


if __name__ == "__main__":
    what, out = sys.argv[1], Path(sys.argv[2])
    if what == "all":
        torch.save({**all_cases(), **broken(out)}, out / f"{RANK}.pt")
    else:  # a training that waits to be killed
        (out / f"pid-{RANK}").write_text(str(os.getpid()))
        train(batch(), (X, Y), out / "killed", epochs=10**6)
