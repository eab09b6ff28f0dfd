"""Class weights: one number for each class, or for some of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from batchensemble.losses.targets import exact

BALANCED = "balanced"


def check_class_weights(given: Any) -> Any:
    """Return class weights as a tuple, a dictionary, ``"balanced"`` or ``None``.

    Raises:
        TypeError: ``given`` has another type.
        ValueError: a weight is negative or not finite, or all are 0.

    Example:
        >>> check_class_weights([1, 2])
        (1.0, 2.0)
    """
    if given is None or (isinstance(given, str) and given == BALANCED):
        return given
    weights: dict[int, float] | tuple[float, ...]
    if isinstance(given, Mapping):
        weights = {int(number): float(weight) for number, weight in given.items()}
        values, numbers = list(weights.values()), list(weights)
    elif isinstance(given, (list, tuple, np.ndarray, Tensor)):
        weights = tuple(float(weight) for weight in given)
        values, numbers = list(weights), [0]
    else:
        raise TypeError(
            "class_weight must be a list of numbers, a mapping from class to number, or "
            f"'balanced', got {given!r}"
        )
    if not values or min(numbers) < 0 or not all(0 <= each < math.inf for each in values):
        raise ValueError(
            f"class_weight must hold finite numbers from 0 on, for classes from 0 on, got {given!r}"
        )
    if max(values) == 0:
        raise ValueError(f"class_weight must hold a number above 0, got {given!r}")
    return weights


def weight_of_each_class(class_weight: Any, classes: int) -> Tensor:
    """Return the weight of each class, ``[classes]``, float64.

    Raises:
        ValueError: the number of weights differs, or ``"balanced"`` is not computed yet.

    Example:
        >>> weight_of_each_class({1: 3.0}, 2).tolist()
        [1.0, 3.0]
    """
    if class_weight == BALANCED:
        raise ValueError(
            "class_weight='balanced' needs arrays, tables or files, whose classes can be counted; "
            "for other data give the weights as a list"
        )
    if isinstance(class_weight, Mapping):
        if max(class_weight) >= classes:
            raise ValueError(
                f"class_weight must be of classes from 0 to {classes - 1}, got one of class "
                f"{max(class_weight)}"
            )
        weights = torch.ones(classes, dtype=torch.float64)
        for number, weight in class_weight.items():
            weights[number] = weight
        return weights
    if len(class_weight) != classes:
        raise ValueError(
            f"class_weight must hold one number for each of the {classes} classes, got "
            f"{len(class_weight)}"
        )
    return torch.tensor(class_weight, dtype=torch.float64)


def weight_of_each_target(class_weight: Any, targets: Tensor) -> Tensor:
    """Return the weight of the class of each target, in the shape of ``targets``."""
    last = max(class_weight) + 1 if isinstance(class_weight, Mapping) else len(class_weight) - 1
    device = targets.device
    each = weight_of_each_class(class_weight, last + 1).to(device=device, dtype=exact(device))
    return each[targets.clamp(max=last)]  # a mapping gives all other classes the last weight, 1


def balanced(targets: Tensor | Mapping[int, int]) -> dict[int, float]:
    """Return class weights that give all classes the same total weight.

    Args:
        targets: class numbers of any shape, or the number of examples of each class.

    Example:
        >>> balanced(torch.tensor([0, 0, 0, 1]))
        {0: 0.6666666666666666, 1: 2.0}
    """
    if isinstance(targets, Tensor):
        classes, times = targets.unique(return_counts=True)
        targets = dict(zip(classes.tolist(), times.tolist(), strict=True))
    examples = sum(targets.values())
    return {each: examples / (len(targets) * targets[each]) for each in sorted(targets)}
