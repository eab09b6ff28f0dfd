"""What `fit` costs over the bare loop that a careful person writes, and checkpoints over none.

    python benchmarks/performance/overhead.py            # about three minutes
    python benchmarks/performance/overhead.py --write    # puts the table into docs/performance.md

The bare loop shuffles, indexes tensors in memory, sums the members' cross-entropies, and steps
torch's fused Adam; it checks nothing and writes nothing down. Both train the same ensemble; the
ratio is of the medians of interleaved epochs, for `fit` of its second one: before its first step it
tries the network and its members, and after an epoch it looks at them, which is printed apart, in
steps. Checkpoints: an ensemble of 50 million
parameters, one checkpoint in 100 steps, as the share of the run that the training waits for them.
"""

from __future__ import annotations

import copy
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor, nn

import batchensemble as be
from batchensemble.comparison.compare import Settings, build_ensemble
from batchensemble.data.datasets import load_dataset

if not __package__:  # run as a file: imports start at the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.operators import declare_operators
from benchmarks.pages import Lines
from benchmarks.performance.parts import Numbers, Part, cell

MEMBERS = 4
TO_REACH = 1.03
CHECKPOINTS_TO_REACH = 0.03

Case = tuple[be.Ensemble, Tensor, Tensor, int]


def moons() -> Case:
    data = load_dataset("moons")
    X, y = (torch.from_numpy(part) for part in data.train)
    return build_ensemble("batch", Settings(members=3), data, seed=0), X, y, 128


def resnet() -> Case:
    declare_operators()
    from torchvision.models import resnet18

    model = be.BatchEnsemble(resnet18(num_classes=10), members=MEMBERS)
    return model, torch.randn(128, 3, 32, 32), torch.randint(10, (128,)), 32


CASES: dict[str, Callable[[], Case]] = {
    "two moons, 2 → 128 → 128 → 2, B 128, M 3": moons,
    "ResNet-18, 32x32, B 32, M 4": resnet,
}


def measure(seconds: float) -> Numbers:
    """Time all cases, then checkpoints."""
    warnings.filterwarnings("ignore", "member")  # the labels are random, and few
    warnings.filterwarnings("ignore", "the members")
    found = [measure_case(name, seconds) for name in track(CASES, "overhead")]
    return [*found, {"what": "checkpoints", "share": checkpoint_share()}]


def measure_case(name: str, seconds: float) -> dict[str, object]:
    """Time an epoch of `fit` and of the bare loop."""
    model, X, y, batch_size = CASES[name]()
    ours, bare = copy.deepcopy(model), copy.deepcopy(model).train()
    optimiser = torch.optim.Adam(bare.parameters(), lr=1e-3, fused=True)

    def by_hand() -> float:
        start = time.perf_counter()
        for index in torch.randperm(len(X)).split(batch_size):
            optimiser.zero_grad()
            logits = bare(X[index])
            targets = y[index].repeat(bare.members)
            loss = F.cross_entropy(logits.transpose(0, 1).flatten(0, 1), targets)
            (bare.members * loss).backward()
            optimiser.step()
        return time.perf_counter() - start

    bare_times, epochs, starts = [], [], []
    by_hand()
    for _ in range(max(3, round(4 * seconds))):
        bare_times.append(by_hand())
        start = time.perf_counter()
        history = be.fit(ours, (X, y), epochs=2, batch_size=batch_size, progress=False)
        epochs.append(history.seconds[1])
        starts.append(time.perf_counter() - start - 2 * history.seconds[1])
    plain, steps = statistics.median(bare_times), -(-len(X) // batch_size)
    start = statistics.median(starts) / (plain / steps)
    return {"what": name, "ours": statistics.median(epochs) / plain, "start": start}


class Clock(be.Callback):
    """Notes when each step ends."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step(self, run: object) -> None:
        """Note the time."""
        self.ends.append(time.perf_counter())


def checkpoint_share() -> float:
    """Return which share of a run of 200 steps is spent waiting for a checkpoint each 100."""
    net = nn.Sequential(*(nn.Linear(3536, 3536) for _ in range(4)), nn.Linear(3536, 2))
    model = be.BatchEnsemble(net, members=MEMBERS)
    X, y = torch.randn(200 * 16, 3536), torch.randint(2, (200 * 16,))
    with tempfile.TemporaryDirectory() as folder:
        clock = Clock()
        be.fit(
            model,
            (X, y),
            epochs=1,
            batch_size=16,
            checkpoints=folder,
            checkpoint_every=100,
            callbacks=[clock],
            progress=False,
        )
    steps = [after - before for before, after in zip(clock.ends, clock.ends[1:], strict=False)]
    usual = statistics.median(steps)
    # What is beyond the usual step from the first checkpoint to just before the second.
    return max(0.0, sum(steps[99:198]) / (99 * usual) - 1)


def lines(numbers: Numbers) -> Lines:
    """Return the table."""
    *cases, checkpoints = numbers
    rows = [
        [each["what"], cell(each, "ours", TO_REACH), f"{each['start']:.1f} steps"] for each in cases
    ]
    share = f"{checkpoints['share']:.1%} ({CHECKPOINTS_TO_REACH:.0%})"
    name = "50 million parameters, a checkpoint each 100 steps: share of the run"
    heading = ["training", "fit over the bare loop (to reach)", "besides, once"]
    return [heading, *rows, [name, share, "-"]]


PART = Part("overhead", __doc__, measure, {"overhead": lines})

if __name__ == "__main__":
    PART.main()
