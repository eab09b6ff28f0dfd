"""Arrays as tensors, with checks that the network's type can hold the numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from batchensemble.core.inputs import Nested
from batchensemble.core.rounding import check_features_held
from batchensemble.losses.targets import class_numbers, without_objects

Read = Callable[[Tensor, torch.dtype], Tensor]  # as EnsembleLoss.read

# Arrays are processed in blocks of about this many bytes, so that no copy is as large as they.
BLOCK_BYTES = 1 << 25
LARGEST_INT64 = 2**63 - 1


def are_several(X: Any) -> bool:
    """Return whether ``X`` is a dictionary or a tuple of arrays: several inputs of a network.

    A list, or a tuple of numbers or lists, is one array, example by example.

    Example:
        >>> are_several((np.zeros((4, 2)), np.zeros(4))), are_several([[1, 2], [3, 4]])
        (True, False)
    """
    if isinstance(X, Mapping):
        return True
    return isinstance(X, tuple) and bool(X) and all(getattr(each, "shape", ()) for each in X)


def check_several(X: Any, dtype: torch.dtype, *, training: bool = False) -> Nested:
    """Return several inputs: floating-point ones in ``dtype``, whole numbers as int64.

    Args:
        X: a dictionary by the names of the network's arguments, or a tuple in their order, of
            arrays ``[examples, ...]``.
        dtype: of the network.
        training: refuse columns whose variation is lost by rounding to ``dtype``.

    Raises:
        TypeError: one of them is a table, or does not hold numbers.
        ValueError: one has no axis of examples, another length, or a value that is not finite; the
            message names it.

    Example:
        >>> found = check_several({"x": np.zeros((4, 2)), "kind": [0, 1, 1, 0]}, torch.float32)
        >>> len(found), found.values["kind"].dtype
        (4, torch.int64)
    """
    named = X.items() if isinstance(X, Mapping) else enumerate(X)
    found = {key: _one_of_several(f"X[{key!r}]", each, dtype, training) for key, each in named}
    if not found:
        raise ValueError("X must hold at least one array [examples, ...], got none")
    lengths = {key: len(each) for key, each in found.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{many} in X[{key!r}]" for key, many in lengths.items())
        raise ValueError(f"all inputs must have the same number of examples, got {shown}")
    if isinstance(X, Mapping):
        return Nested({str(key): each for key, each in found.items()})
    return Nested(tuple(found.values()))


def _one_of_several(name: str, values: Any, dtype: torch.dtype, training: bool) -> Tensor:
    if isinstance(values, (Mapping, tuple)) or hasattr(values, "columns"):
        raise TypeError(
            f"{name} must be an array or a tensor [examples, ...], got a "
            f"{type(values).__name__}; give its numbers, such as frame.to_numpy()"
        )
    tensor = as_tensor(name, values)
    if not tensor.dim():
        raise ValueError(f"{name} must have the shape [examples, ...], got a single number")
    if tensor.is_floating_point():
        return _finite(name, tensor, dtype, training)
    return tensor if tensor.dtype == torch.bool else tensor.long()


def check_inputs(X: Any, dtype: torch.dtype, *, training: bool = False) -> Tensor:
    """Return features as a tensor; floating-point ones are converted to ``dtype``.

    Args:
        X: ``[examples, features...]``.
        dtype: of the network.
        training: refuse columns whose variation is lost by rounding to ``dtype``.

    Raises:
        TypeError: ``X`` does not hold numbers.
        ValueError: it has no feature axis, or a value is NaN, infinite or too large for ``dtype``;
            the message names the first.
    """
    inputs = as_tensor("X", X)
    if inputs.dim() < 2:
        raise ValueError(f"X must have the shape [examples, features...], got {list(inputs.shape)}")
    return _finite("X", inputs, dtype, training) if inputs.is_floating_point() else inputs


def _finite(name: str, inputs: Tensor, dtype: torch.dtype, training: bool) -> Tensor:
    """Return floating-point inputs in ``dtype``, whose every value must be finite."""
    # In blocks: a mask of all features would be a quarter of their memory.
    held = inputs.to(dtype)
    rows = max(1, BLOCK_BYTES // max(1, held[:1].nbytes))
    for start in range(0, len(held), rows):
        finite = torch.isfinite(held[start : start + rows])
        if not finite.all():
            row, *column = (~finite).nonzero()[0].tolist()
            place = (start + row, *column)
            value = inputs[place].item()
            cure = "fill or drop it"
            if math.isfinite(value):
                cure = f"{dtype}, the network's type, ends before; divide that column"
            raise ValueError(
                f"{name} must be finite, got {value} in row {place[0] + 1}, "
                f"{name}[{', '.join(map(str, place))}]; {cure}"
            )
    if training and len(inputs):
        flat = inputs.reshape(len(inputs), -1)
        check_features_held(lambda: [flat], len(flat), dtype, lambda each: f"{name}: column {each}")
    return held


def as_tensor(name: str, values: Any) -> Tensor:
    """Return numbers as a tensor.

    Args:
        name: of the argument, for error messages.
        values: an array, a tensor, or nested lists of numbers.

    Raises:
        TypeError: ``values`` does not hold numbers.
        ValueError: a whole number does not fit in 64 bits.
    """
    if isinstance(values, Tensor):
        return values.detach()
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise TypeError(
            f"{name} must hold numbers, got an array of {array.dtype}; encode text as numbers "
            "first (sklearn.preprocessing.LabelEncoder for labels)"
        )
    dtype = array.dtype.newbyteorder("=")
    if dtype.kind == "u" and dtype.itemsize == 8 and array.max(initial=0) > LARGEST_INT64:
        raise ValueError(
            f"{name} must hold whole numbers below 2 to the 63rd, got {array.max()}; divide them "
            "by their unit, or give numbers with fractions"
        )
    if dtype.kind == "u" and dtype.itemsize > 1:
        dtype = np.dtype(np.int64)  # torch computes little with unsigned numbers
    elif dtype.kind == "f" and dtype.itemsize > 8:
        dtype = np.dtype(np.float64)
    # Writeable, contiguous memory; what has that already is not copied.
    return torch.from_numpy(np.require(array, dtype, ["C", "W"]))


def read_targets(y: Any, read: Read | None, dtype: torch.dtype) -> Tensor:
    """Return targets as a loss takes them, or as class numbers.

    Args:
        y: ``[examples, ...]``.
        read: of a loss, see :func:`~batchensemble.data.batches.make_batches`.
        dtype: of targets that are not whole numbers.
    """
    y = without_objects(y)
    return check_targets(y) if read is None else read(as_tensor("y", y), dtype)


def check_targets(y: Any) -> Tensor:
    """Return class numbers as an int64 tensor.

    Raises:
        TypeError: they are not whole numbers.
        ValueError: one is negative.
    """
    return class_numbers(as_tensor("y", y))
