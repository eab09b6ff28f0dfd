"""How tasks are learnt one after the other: by one network, by EWC, and by members."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import batchensemble as be
from benchmarks.learning.data import CLASSES, Pair, Task

WIDTH, LR = 256, 1e-3
BATCH_SIZE = {"split": 128, "permuted": 128, "sets": 32}
EPOCHS = {"split": 10, "permuted": 10, "sets": 5}
CHANNELS = 16
FAST = 4.0  # rate of fast weights over that of others: of 1 and 4 the better on validation rows
# Of EWC: of 10, 100, 1,000 and 10,000 the best on validation rows; that of pairs for sets, too.
PENALTIES = {"split": 10_000.0, "permuted": 100.0, "sets": 10_000.0}
FISHER_ROWS = 500
TOGETHER = 16


@dataclass(frozen=True)
class Found:
    """What one method came to.

    Attributes:
        accuracy: on the test rows of task ``k`` after task ``t``, ``[t][k]`` for ``k <= t``.
        parameters: number of parameters over that of one network with one head.
        inferred: share of groups of 16 test rows whose task was inferred; ``None`` without members.
        refused: whether ``infer_task`` refused by what it knew of the tasks.
    """

    accuracy: list[list[float]]
    parameters: float
    inferred: float | None = None
    refused: bool | None = None


@dataclass(frozen=True)
class Method:
    """A method: how it is called, and how it learns the tasks of a kind with a seed."""

    title: str
    learn: Callable[[list[Task], str, int], Found]


class Block(nn.Module):
    """Two convolutions with batch norm, around which the inputs pass, at half the resolution."""

    def __init__(self, given: int, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(given, channels, 3, 2, 1, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.around = nn.Conv2d(given, channels, 1, 2, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(channels) for _ in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[rows, given, height, width]`` to ``[rows, channels, height / 2, width / 2]``."""
        inner = self.norms[1](self.second(self.norms[0](self.first(x)).relu()))
        return (inner + self.norms[2](self.around(x))).relu()


def network(kind: str) -> nn.Sequential:
    """Return the plain network of a kind of tasks; its last module is the head of one task."""
    if kind == "sets":
        blocks = [Block(1, CHANNELS), Block(CHANNELS, 2 * CHANNELS)]
        pool = [nn.AdaptiveAvgPool2d(2), nn.Flatten()]
        return nn.Sequential(*blocks, *pool, nn.Linear(8 * CHANNELS, CLASSES[kind]))
    body = [nn.Linear(784, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU()]
    return nn.Sequential(*body, nn.Linear(WIDTH, CLASSES[kind]))


def size(module: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(each.numel() for each in module.parameters())


def by_members(make: Callable[[nn.Sequential, int], be.Ensemble]) -> Callable[..., Found]:
    """Return the learning of an ensemble with a member for each task."""

    def learn(tasks: list[Task], kind: str, seed: int) -> Found:
        torch.manual_seed(seed)
        plain = network(kind)
        model, accuracy = make(plain, len(tasks)), []
        for number, task in enumerate(tasks):
            be.learn(
                model,
                [task.train],
                validation=[task.validation],
                epochs=EPOCHS[kind],
                batch_size=BATCH_SIZE[kind],
                lr=LR,
                fast_lr_multiplier=FAST,
                seed=seed,
                progress=False,
            )
            accuracy.append(
                [
                    correct(model.member(each), other.test)
                    for each, other in enumerate(tasks[: number + 1])
                ]
            )
        return Found(accuracy, size(model) / size(plain), *inferred(model, tasks))

    return learn


def inferred(model: be.Ensemble, tasks: list[Task]) -> tuple[float, bool]:
    """Return the share of groups whose task is inferred, and whether that would be refused."""
    refused = any(each.confused_with for each in model.tasks)
    model.tasks = tuple(replace(each, confused_with=()) for each in model.tasks)
    right = [
        model.infer_task(task.test[0], TOGETHER).tasks == number
        for number, task in enumerate(tasks)
    ]
    return float(
        torch.tensor([bool(each) for part in right for each in part]).double().mean()
    ), refused


def in_sequence(penalties: dict[str, float]) -> Callable[..., Found]:
    """Return the learning of one network with a head for each task, EWC if there are penalties.

    EWC (Kirkpatrick et al. 2017, arXiv 1612.00796): after each task, the squared distance of each
    shared weight to where it was then costs its Fisher information times half the penalty.
    """

    def learn(tasks: list[Task], kind: str, seed: int) -> Found:
        torch.manual_seed(seed)
        plain = network(kind)
        body, head, of_one = plain[:-1], plain[-1], size(plain)
        heads = nn.ModuleList(
            [nn.Linear(head.in_features, head.out_features) for _ in tasks]  # type: ignore[arg-type]
        )
        anchor = Anchor(body, penalties[kind]) if penalties else None
        accuracy = []
        for number, task in enumerate(tasks):
            train(body, heads[number], task.train, kind, anchor)
            if anchor is not None:
                anchor.add(fisher(body, heads[number], task.train))
            accuracy.append(
                [
                    correct(nn.Sequential(body, heads[each]), other.test)
                    for each, other in enumerate(tasks[: number + 1])
                ]
            )
        return Found(accuracy, (size(body) + size(heads)) / of_one)

    return learn


class Anchor:
    """The sum of EWC's penalties of all tasks so far, which is one quadratic function of a weight.

    Args:
        body: what is held.
        penalty: of it.
    """

    def __init__(self, body: nn.Module, penalty: float) -> None:
        self.parameters, self.penalty = list(body.parameters()), penalty
        self.curvature = [torch.zeros_like(each) for each in self.parameters]
        self.linear = [torch.zeros_like(each) for each in self.parameters]

    def add(self, information: list[Tensor]) -> None:
        """Hold the weights where they are now, by their Fisher information."""
        for held, pull, each, now in zip(
            self.curvature, self.linear, information, self.parameters, strict=True
        ):
            held += each
            pull += each * now.detach()

    def pull(self) -> None:
        """Add the gradient of the penalty to the weights' gradients."""
        for held, pull, each in zip(self.curvature, self.linear, self.parameters, strict=True):
            assert each.grad is not None
            each.grad += self.penalty * (held * each.detach() - pull)


def train(
    body: nn.Module,
    head: nn.Module,
    data: Pair,
    kind: str,
    anchor: Anchor | None = None,
) -> None:
    """Train a body and a head on one task, with Adam and the same cooldown as ``fit``."""
    (X, y), epochs, batch = data, EPOCHS[kind], BATCH_SIZE[kind]
    parameters = [*body.parameters(), *head.parameters()]
    optimiser, steps = torch.optim.Adam(parameters, lr=LR), epochs * -(-len(X) // batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1.0, (steps - step) / (0.1 * steps))
    )
    body.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(X)).split(batch):
            loss = F.cross_entropy(head(body(X[rows])), y[rows])
            optimiser.zero_grad()
            loss.backward()
            if anchor is not None:
                anchor.pull()
            optimiser.step()
            schedule.step()


def fisher(body: nn.Module, head: nn.Module, data: Pair) -> list[Tensor]:
    """Return the diagonal of the Fisher information of the body's weights, by drawn labels."""
    body.eval()
    found = [torch.zeros_like(each) for each in body.parameters()]
    X, _ = data
    rows = torch.randperm(len(X))[:FISHER_ROWS]
    for row in X[rows].split(1):
        logits = head(body(row))
        label = torch.distributions.Categorical(logits=logits.detach()).sample()
        gradients = torch.autograd.grad(F.cross_entropy(logits, label), list(body.parameters()))
        for total, each in zip(found, gradients, strict=True):
            total += each**2 / len(rows)
    return found


@torch.no_grad()
def correct(model: nn.Module, data: Pair) -> float:
    """Return the accuracy of a plain network."""
    X, y = data
    return float((model.eval()(X).argmax(1) == y).double().mean())


def batch_ensemble(**options: Any) -> Callable[..., Found]:
    """Return the learning of a BatchEnsemble, each member with its own head."""

    def make(plain: nn.Sequential, tasks: int) -> be.Ensemble:
        return be.BatchEnsemble(plain, tasks, independent=[str(len(plain) - 1)], **options)

    return by_members(make)


METHODS = {
    "one": Method("one network, in sequence", in_sequence({})),
    "ewc": Method("one network, EWC", in_sequence(PENALTIES)),
    "rank_one": Method("BatchEnsemble, rank one", batch_ensemble()),
    "additive_4": Method("BatchEnsemble, additive, r 4", batch_ensemble(mode="additive", rank=4)),
    "additive_16": Method(
        "BatchEnsemble, additive, r 16", batch_ensemble(mode="additive", rank=16)
    ),
    "separate": Method("a network for each task", by_members(be.DeepEnsemble)),
}
