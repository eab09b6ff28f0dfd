"""Arrays as tensors, with checks that the network's type can hold the numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from batchensemble.core.rounding import check_features_held

# Arrays are processed in blocks of about this many bytes, so that no copy is as large as they.
BLOCK_BYTES = 1 << 25
LARGEST_INT64 = 2**63 - 1


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
    if inputs.is_floating_point():
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
                    f"X must be finite, got {value} in row {place[0] + 1}, "
                    f"X[{', '.join(map(str, place))}]; {cure}"
                )
        if training and len(inputs):
            flat = inputs.reshape(len(inputs), -1)
            check_features_held(lambda: [flat], len(flat), dtype, lambda each: f"X: column {each}")
        return held
    return inputs


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
