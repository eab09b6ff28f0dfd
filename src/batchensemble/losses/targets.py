"""Convert and check targets, class indices or real numbers, and weights of examples."""

from __future__ import annotations

from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


class Weighted(NamedTuple):
    """Targets and the weight of each example.

    Attributes:
        targets: ``[batch, ...]``, or as training rearranges them.
        weights: ``[batch]``, in the order of the targets.
    """

    targets: Tensor
    weights: Tensor


Targets = Tensor | Weighted
ONE_HOT = "of one-hot rows or probabilities of the classes give y.argmax(1)"


def without_objects(values: Any) -> Any:
    """Return an object array of integers or booleans as int64, other values unchanged.

    Nullable columns of pandas without missing values are such arrays.

    Example:
        >>> without_objects(np.array([True, 2], object)).tolist()
        [1, 2]
    """
    if not isinstance(values, np.ndarray) or values.dtype.kind != "O" or not values.size:
        return values
    whole = all(isinstance(each, (Integral, np.bool_)) for each in values.flat)
    return values.astype(np.int64) if whole else values


def whole_labels(labels: Any) -> np.ndarray:
    """Return true classes of any shape as int64, for scores; ``fit`` accepts the same.

    Args:
        labels: booleans or integers of any type, in an array, a tensor, a list or a column of
            pandas or polars.

    Raises:
        TypeError: they are floating-point numbers or text.

    Example:
        >>> whole_labels([True, False]).tolist()
        [1, 0]
    """
    if isinstance(labels, Tensor):
        labels = labels.detach().cpu().numpy()
    found = without_objects(np.asarray(labels))
    if found.dtype.kind in "biu":
        whole: np.ndarray = found.astype(np.int64)
        return whole
    got = f"labels must be whole numbers, the classes, got {found.dtype}"
    if found.dtype.kind == "f":
        several = found.ndim > 1 and found.shape[-1] > 1
        raise TypeError(f"{got}; " + (ONE_HOT if several else "convert them with .astype(int)"))
    raise TypeError(f"{got}; give their numbers, the places of their names in history.class_names")


LARGEST_WHOLE = 2**53  # up to which float64 holds every whole number


def parted(targets: Targets) -> tuple[Tensor, Tensor | None]:
    """Return targets and the weights of their examples, ``None`` if they have none."""
    return targets if isinstance(targets, Weighted) else (targets, None)


def class_numbers(targets: Tensor, ignore_index: int | None = None) -> Tensor:
    """Return class indices as int64.

    Args:
        targets: ``[examples, ...]``.
        ignore_index: index that marks entries without a class; ``None``: there are none.

    Raises:
        TypeError: they are not integers.
        ValueError: one is negative, or there is no axis of examples.

    Example:
        >>> class_numbers(torch.tensor([True, False]))
        tensor([1, 0])
    """
    if targets.dim() == 2 and targets.is_floating_point() and targets.shape[1] > 1:
        raise TypeError(
            f"y must hold class numbers (0, 1, 2, ...), got {targets.dtype} of shape "
            f"{list(targets.shape)}; {ONE_HOT}, of numbers the loss of what they are, such as "
            "loss='mse'"
        )
    if targets.is_floating_point() or targets.is_complex():
        raise TypeError(
            f"y must hold class numbers (0, 1, 2, ...), got {targets.dtype}; convert with "
            "y.astype(int) if these are classes, or if they are only called so give "
            "class_names=[...], what each is called, or give fit the loss of what they are, such "
            "as loss='gaussian_nll' for numbers"
        )
    check_examples(targets)
    known = targets if ignore_index is None else targets[targets != ignore_index]
    if known.numel() and known.min() < 0:
        raise ValueError(
            f"y must hold class numbers from 0 on, got {known.min().item()}; if that is what a "
            "class is called, give class_names=[...], what each is called"
        )
    return targets.long()


def numbers(targets: Tensor, dtype: torch.dtype) -> Tensor:
    """Return targets in the given type, or in their own precision if that would round them.

    Raises:
        ValueError: there is no axis of examples, or an integer is beyond those of float64.

    Example:
        >>> numbers(torch.tensor([0.5, 2.0], dtype=torch.float64), torch.float32).dtype
        torch.float32
        >>> numbers(torch.tensor([16777217]), torch.float32)
        tensor([16777217.], dtype=torch.float64)
    """
    check_examples(targets)
    values = targets
    if not targets.is_floating_point():
        values = targets.to(exact(targets.device))
        if targets.dtype == torch.int64:
            beyond = (targets > LARGEST_WHOLE) | (targets < -LARGEST_WHOLE)
            if beyond.any():
                raise ValueError(
                    "y must hold whole numbers up to 2 to the 53rd, which float64 can represent, "
                    f"got {targets[beyond][0].item()}; subtract a number near them, or divide them "
                    "by their unit"
                )
    rounded = values.to(dtype)
    same = (rounded.to(values.dtype) == values) | values.isnan()
    return rounded if same.all() else values


def exact(device: torch.device) -> torch.dtype:
    """Return the type for sums, weights and targets: float64 if the device supports it."""
    return torch.float32 if device.type == "mps" else torch.float64


def on_device(values: Tensor, device: torch.device) -> Tensor:
    """Return targets on a device; float64 becomes float32 if the device does not support it."""
    if values.dtype == torch.float64:
        values = values.to(exact(device))
    return values.to(device)


def check_examples(targets: Tensor) -> None:
    """Raise ``ValueError`` if targets have no axis."""
    if targets.dim() == 0:
        raise ValueError("y must have the shape [examples, ...], got one number")


def check_weights(weights: Tensor, examples: int) -> Tensor:
    """Return the weights of examples after checking them.

    Args:
        weights: ``[examples]``.
        examples: number of examples.

    Raises:
        ValueError: the shape differs, a weight is negative or not finite, or all are 0.
    """
    if list(weights.shape) != [examples]:
        raise ValueError(
            f"weights must have the shape [{examples}], one an example, got {list(weights.shape)}"
        )
    wrong = ~((weights >= 0) & weights.isfinite())
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise ValueError(
            f"weights must be finite numbers from 0 on, got {weights[row].item()} in row {row + 1}"
        )
    if not weights.any():
        raise ValueError("weights must hold a number above 0, got only 0")
    return weights
