"""Tasks of MNIST's digits, of three kinds: pairs of digits, permuted pixels, and sets of five."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks.pages import ROOT

DIGITS = ROOT / "benchmarks" / "data" / "mnist10k.npz"
TASKS = {"split": 10, "permuted": 10, "sets": 20}
CLASSES = {"split": 2, "permuted": 10, "sets": 5}
ROWS_OF_SET = 1_000, 200, 500  # of each task of five digits: trained on, validation, scored
TRAIN, VALIDATION = 5_000, 1_000  # rows; the other 4,000 are scored
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Task:
    """One task: inputs ``[rows, 784]`` or ``[rows, 1, 28, 28]`` from 0 to 1, and class numbers."""

    train: Pair
    validation: Pair
    test: Pair


def tasks_of(kind: str, seed: int) -> list[Task]:
    """Return the tasks of a kind.

    Args:
        kind: ``"split"``: which of two digits; two rounds of five disjoint pairs, so that each
            digit is in two tasks. ``"permuted"``: all ten digits, their pixels in an order of the
            task's own; the first task has them as they are. ``"sets"``: twenty draws of five
            digits, as images, in the manner of Split-CIFAR-100 of the paper.
        seed: of the split of the rows, and of the pairs, orders or sets.
    """
    with np.load(DIGITS) as found:
        X = torch.from_numpy(found["X"].reshape(-1, 784).astype(np.float32) / 255)
        y = torch.from_numpy(found["y"].astype(np.int64))
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(X), generator=generator)
    parts = rows.split([TRAIN, VALIDATION, len(X) - TRAIN - VALIDATION])
    if kind == "permuted":
        orders = [torch.randperm(784, generator=generator) for _ in range(TASKS[kind] - 1)]
        orders = [torch.arange(784), *orders]
        return [Task(*((X[part][:, order], y[part]) for part in parts)) for order in orders]
    if kind == "sets":
        X = X.view(-1, 1, 28, 28)
        digits = torch.stack([torch.randperm(10, generator=generator)[:5] for _ in range(20)])
    else:
        rounds = [torch.randperm(10, generator=generator) for _ in range(TASKS[kind] // 5)]
        digits = torch.cat(rounds).view(-1, 2)
    most = ROWS_OF_SET if kind == "sets" else (None,) * 3
    return [
        Task(
            *(
                _of_digits(X[part], y[part], each, rows)
                for part, rows in zip(parts, most, strict=True)
            )
        )
        for each in digits
    ]


def _of_digits(X: Tensor, y: Tensor, digits: Tensor, most: int | None) -> Pair:
    """Return the first rows of some digits, which are the classes 0, 1, ... in this order."""
    held = torch.isin(y, digits).nonzero().flatten()[:most]
    return X[held], (y[held][:, None] == digits).long().argmax(1)
