"""What the tests of processes run in several: a training, or several, by name."""

import contextlib
import io
import os
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, Sampler, TensorDataset

import batchensemble as be
from batchensemble.cli.app import app
from batchensemble.training.checkpoints.store import CheckpointError

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


def blocks(**options):
    """A network of blocks, which fsdp brings together one by one; 3 does not divide by 2."""

    def block():
        return nn.Sequential(nn.Tanh(), nn.Linear(8, 8))

    layers = [nn.Linear(4, 8), nn.ModuleList([block(), block()]), nn.Linear(8, 3)]
    return be.BatchEnsemble(Blocks(*layers).double(), members=3, **options)


class Blocks(nn.Module):
    def __init__(self, first, between, last):
        super().__init__()
        self.first, self.between, self.last = first, between, last

    def forward(self, x):
        x = self.first(x)
        for block in self.between:
            y = block(x)
            y += x  # in place, on what a block returns
            x = y
        return self.last(x)


class OneAfterTheOther(nn.Module):
    """Not torch's own: its members run as copies, with batch norm."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)
        self.double()

    def forward(self, x):
        return self.last(torch.tanh(self.norm(self.first(x))))


class TimeFirst(nn.Module):
    """Folds two steps before the batch, so that members run one by one, or adds positions."""

    def __init__(self, positions):
        super().__init__()
        self.first, self.last = nn.Linear(2, 8), nn.Linear(8, 3)
        self.positions = nn.Embedding(2, 8) if positions else None
        self.double()

    def forward(self, x):
        steps = x.view(-1, 2, 2)
        if self.positions is not None:
            return self.last(torch.tanh(self.first(steps) + self.positions(torch.arange(2)))).sum(1)
        folded = self.last(torch.tanh(self.first(steps.transpose(0, 1).flatten(0, 1))))
        return folded.view(2, -1, 3).sum(0)


def time_first():
    return be.BatchEnsemble(TimeFirst(positions=False), members=3)


def positions():
    return be.BatchEnsemble(TimeFirst(positions=True), members=3)


def copies():
    return be.DeepEnsemble(OneAfterTheOther(), members=3)


def squares(outputs, targets):
    return outputs.square().mean(-1) + targets.unsqueeze(-1)


LOADER = DataLoader(TensorDataset(X, Y), 8, shuffle=True)
FSDP = {"strategy": "fsdp"}
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
    "each its class": (batch, (X, Y.unsqueeze(1).repeat(1, 3)), {"per_member_targets": True}),
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
    "ignored": (batch, (X, Y), {"ignore_index": 0, "validation": HELD_OUT}),
    "members, ignored": (deep, (X, Y), {"strategy": "members", "ignore_index": 0}),
    "mixes": (time_first, (X, Y), SGD),
    "positions": (positions, (X, Y), {}),
    "fsdp, mixes": (time_first, (X, Y), {**FSDP, **SGD}),
    "fsdp, positions": (positions, (X, Y), FSDP),
    "fsdp": (blocks, (X, Y), {**FSDP, "validation": HELD_OUT, "stop_on": "brier", "patience": 1}),
    "fsdp, again": (blocks, (X, Y), {**FSDP, "gradient_checkpointing": ["between.*"], **SGD}),
    "fsdp, additive": (
        lambda: blocks(mode="additive", rank=2),
        (X, Y, torch.rand(57, dtype=torch.float64)),
        {**FSDP, "micro_batch": 3, "optimizer": "adamw", "weight_decay": 0.1},
    ),
    "fsdp, deep": (deep, LOADER, {**FSDP, "validation": HELD_OUT, "optimizer": torch.optim.NAdam}),
    "fsdp, copies": (lambda: be.DeepEnsemble(network(), 3, stacked=False), (X, Y), FSDP),
    "fsdp, mimo": (lambda: be.MIMO(network(), 3), (X, Y), FSDP),
    "one member": (batch, (X, Y), {"members": [1], "validation": HELD_OUT}),
    "two of deep": (deep, (X, Y), {"members": [2, 0], "strategy": "members"}),
    "fsdp, single": (lambda: be.Single(network()), (X, Y), {**FSDP, "schedule": "cosine"}),
}


def train(model, data, folder=None, **options):
    settings = {"epochs": 2, "batch_size": 8, "lr": 0.02, "seed": 4, **options}
    return be.fit(model, data, checkpoints=folder, **settings)


def results(model, history):
    kept = history.to_dict()
    del kept["seconds"], kept["plan"]  # the strategy is another
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

    every_process = True

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


class Holding(be.Callback):
    """Counts the numbers that this process holds."""

    every_process = True

    def on_step(self, run):
        weights = list(run.model.parameters())
        moments = [
            each
            for state in run.updater.optimizer.state.values()
            for name, each in state.items()
            if name != "step"
        ]
        self.found = {
            "of all": sum(each.numel() for each in weights),
            "weights": _held(weights),
            "gradients": _held([each.grad for each in weights]),
            "moments": _held(moments),
        }


def _held(tensors):
    return sum(each.to_local().numel() for each in tensors)


def in_pieces():
    """Return what a process holds while it trains, and what it has afterwards."""
    torch.manual_seed(1 + RANK)
    model, holding = blocks(), Holding()
    before = list(model.parameters())
    train(model, (X, Y), callbacks=[holding], **FSDP)
    after = list(model.parameters())
    return {
        **holding.found,
        "the same parameters": all(a is b for a, b in zip(before, after, strict=True)),
        "plain": all(type(each) is nn.Parameter for each in after),
        "probs": torch.from_numpy(be.predict(model, X).probs),
        "member": model.member(1)(X).detach(),
        "of members": model(X)[:, 1].detach(),
    }


def broken(out):
    """Go on with what one process wrote, write what one is to go on with, and go on here."""
    found = {"of one": go_on(batch, out / "of one", -1), "mine": go_on(batch, out / "mine", 11)}
    found["of one, pieces"] = go_on(batch, out / "of one, pieces", -1, **FSDP)
    found["mine, pieces"] = go_on(batch, out / "mine, pieces", 11, **FSDP)

    def dropping():
        return batch(dropout=0.3)

    for name, make, options in (
        ("dropout", dropping, {}),
        ("spread", deep, {"strategy": "members", "patience": 1, "average": 0.5}),
        ("pieces", blocks, {**FSDP, "patience": 1, **SGD}),
    ):
        found[f"{name} whole"] = go_on(make, out / f"{name} whole", -1, **options)
        found[f"{name} ended"] = go_on(make, out / name, 11, signal.SIGTERM, **options)
        found[name] = go_on(make, out / name, -1, **options)
    return found


class Noting(be.Callback):
    """Writes down what it was told in a file that all processes have in common."""

    def __init__(self, path):
        self.path = path

    def note(self, run, what):
        with self.path.open("a") as file:
            file.write(f"{what} {run.step} in {RANK}\n")

    def on_start(self, run):
        self.note(run, "start")

    def on_epoch(self, run):
        self.note(run, "epoch")

    def on_end(self, run):
        self.note(run, "end")

    def state_dict(self):
        assert self.path.exists(), "only where it runs"
        return {"lines": len(self.path.read_text().splitlines())}


class Everywhere(Noting):
    every_process = True


class Stopping(be.Callback):
    """Ends the training, or fails, in the process where it runs."""

    def __init__(self, hook, fails=None):
        self.fails, self.hook = fails, hook

    def act(self, run):
        if run.step >= 11 and self.fails is None:
            run.stop("it is enough")
        elif run.step >= 11:
            raise self.fails

    def on_step(self, run):
        if self.hook == "step":
            self.act(run)

    def on_epoch(self, run):
        if self.hook == "epoch":
            self.act(run)

    def on_evaluation(self, run):
        if self.hook == "evaluation":
            self.act(run)


class OfRank(Sampler):
    """Draws another order in each process."""

    def __len__(self):
        return len(X)

    def __iter__(self):
        return iter(np.random.default_rng(RANK).permutation(len(X)).tolist())


def other_batches():
    """Return what is said of loaders that differ in the processes."""
    found = []
    for sampler in (OfRank(), DistributedSampler(TensorDataset(X, Y), 2, RANK)):
        loader = DataLoader(TensorDataset(X, Y), 8, sampler=sampler)
        try:
            train(batch(), loader)
        except ValueError as error:
            found.append(str(error))
    return found


class UnsentError(Exception):
    """Cannot be sent to another process."""

    def __init__(self, lock):
        super().__init__("held")
        self.lock = lock


def callbacks(out):
    """Return what the callbacks of some trainings did, and what became of those."""
    found = {}
    noted = [Noting(out / "first"), Everywhere(out / "every")]
    lines = be.JsonLines(out / "lines.jsonl", every=3)
    model = batch()
    tracker = be.Tracking("tensorboard", out / "tracked")
    told = {"callbacks": [*noted, lines], "trackers": [tracker]}
    written = train(model, (X, Y), out / "kept", **told)
    found["history"] = results(model, written)["history"]
    be.save(model, out / "saved")
    for hook in ("step", "evaluation", "epoch"):
        options = {"validation": HELD_OUT, "evaluate_every": 3}
        torch.manual_seed(1)
        model = batch()
        ended = train(model, (X, Y), callbacks=[Stopping(hook)], **options)
        found[f"ended by {hook}"] = results(model, ended)
        for error in (KeyError("power"), UnsentError(threading.Lock())):
            try:
                train(batch(), (X, Y), callbacks=[Stopping(hook, error)], **options)
            except (KeyError, UnsentError, RuntimeError) as caught:
                found[f"{type(error).__name__} at {hook}"] = repr(caught)
    return found


def command_line(out):
    """Return what the command prints that trains a model."""
    settings = ["--members", "2", "--epochs", "2", "--hidden", "4", "--batch-size", "9999", "--out"]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        app(["train", *settings, str(out / "model")], standalone_mode=False)
    return printed.getvalue()


if __name__ == "__main__":
    what, out = sys.argv[1], Path(sys.argv[2])
    if what == "all":
        found = {"held": in_pieces(), "callbacks": callbacks(out), "printed": command_line(out)}
        found["other batches"] = other_batches()
        torch.save({**all_cases(), **broken(out), **found}, out / f"{RANK}.pt")
    else:  # a training, by its strategy, that waits to be killed
        (out / f"pid-{RANK}").write_text(str(os.getpid()))
        train(batch(), (X, Y), out / "killed", epochs=10**6, strategy=what)
