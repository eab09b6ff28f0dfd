"""What a call of `fit` costs over the bare loop, on a table of 2,000 rows with early stopping.

    python benchmarks/performance/fit_overhead.py       # about two minutes

Both train the same BatchEnsemble of a perceptron by AdamW on 1,600 rows of 20 columns, score 400
held-out rows after each epoch and keep the best weights. The bare loop is what a careful person
writes: it indexes tensors in memory, steps torch's fused AdamW, and checks nothing. Ratios are of
the medians of interleaved calls, in seconds of this thread's processor, so that other programs
count little: of the whole call, with what `fit` tries and opens before its first step, and of each
further epoch, from the difference to a call with fewer epochs.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import batchensemble as be

if not __package__:  # run as a file: imports start at the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parents[2])

ROWS, HELD_OUT, COLUMNS, MEMBERS = 1600, 400, 20, 8
FEW, MANY = 2, 12  # epochs
REPETITIONS = 9
TO_REACH = 1.05
CASES = [(128, 64), (128, 256), (256, 64), (256, 256)]  # width, batch size

Parts = tuple[Tensor, Tensor]


def table() -> tuple[Parts, Parts]:
    """Return rows to train on and held-out ones."""
    torch.manual_seed(0)
    X = torch.randn(ROWS + HELD_OUT, COLUMNS)
    y = (X[:, 0] * X[:, 1] + X[:, 2] + 0.5 * torch.randn(len(X)) > 0).long()
    return (X[:ROWS], y[:ROWS]), (X[ROWS:], y[ROWS:])


def build(width: int) -> be.Ensemble:
    """Return the ensemble before training."""
    torch.manual_seed(1)
    layers = [nn.Linear(COLUMNS, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
    return be.BatchEnsemble(nn.Sequential(*layers, nn.Linear(width, 2)), members=MEMBERS)


def by_hand(model: be.Ensemble, train: Parts, held_out: Parts, batch: int, epochs: int) -> float:
    """Train in a bare loop; return the best held-out NLL."""
    (X, y), (X_held, y_held) = train, held_out
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4, fused=True)
    best, weights, waiting = float("inf"), {}, 0
    for _ in range(epochs):
        model.train()
        for index in torch.randperm(len(X)).split(batch):
            optimiser.zero_grad()
            logits = model(X[index])
            targets = y[index].repeat(MEMBERS)
            loss = F.cross_entropy(logits.transpose(0, 1).flatten(0, 1), targets)
            (MEMBERS * loss).backward()
            optimiser.step()
        model.eval()
        with torch.no_grad():
            log_probs = model(X_held).log_softmax(-1).logsumexp(1)
            nll = F.nll_loss(log_probs, y_held).item()
        waiting += 1
        if nll < best:
            best, waiting = nll, 0
            weights = {name: each.clone() for name, each in model.state_dict().items()}
        if waiting >= 100:
            break
    model.load_state_dict(weights)
    return best


def by_fit(model: be.Ensemble, train: Parts, held_out: Parts, batch: int, epochs: int) -> float:
    """Train by `fit`; return the best held-out NLL."""
    history = be.fit(
        model,
        train,
        validation=held_out,
        patience=100,
        epochs=epochs,
        batch_size=batch,
        optimizer="adamw",
        weight_decay=1e-4,
        cooldown=0.0,
        progress=False,
    )
    assert history.best_score is not None
    return history.best_score


def seconds_of(run: Callable[..., float], width: int, batch: int, epochs: int) -> float:
    """Return the processor's time of one training, in seconds of this thread."""
    model, parts = copy.deepcopy(BUILT[width]), table()
    start = time.thread_time()
    run(model, *parts, batch, epochs)
    return time.thread_time() - start


BUILT = {width: build(width) for width, _ in CASES}


def main() -> None:
    """Print a line a case."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=REPETITIONS, help="calls of each kind")
    repetitions = parser.parse_args().repetitions
    torch.set_num_threads(1)
    runs: dict[str, tuple[Callable[..., float], int]] = {
        "loop, few": (by_hand, FEW),
        "fit, few": (by_fit, FEW),
        "loop, many": (by_hand, MANY),
        "fit, many": (by_fit, MANY),
    }
    for width, batch in CASES:
        times: dict[str, list[float]] = {name: [] for name in runs}
        for repetition in range(repetitions + 1):
            for name, (run, epochs) in runs.items():
                found = seconds_of(run, width, batch, epochs)
                if repetition:  # the first one warms up
                    times[name].append(found)
        middle = {name: statistics.median(each) for name, each in times.items()}
        whole = middle["fit, many"] / middle["loop, many"]
        further = {
            name: (middle[f"{name}, many"] - middle[f"{name}, few"]) / (MANY - FEW)
            for name in ("fit", "loop")
        }
        start = middle["fit, many"] - MANY * further["fit"]
        print(
            f"width {width}, batch {batch}: fit over the loop {whole:.3f} in {MANY} epochs, "
            f"{further['fit'] / further['loop']:.3f} for each further one (to reach {TO_REACH}); "
            f"{1e3 * further['loop']:.1f} ms an epoch, {1e3 * start:.1f} ms once",
            flush=True,
        )


if __name__ == "__main__":
    main()
