"""Checks that rounding to a network's type does not lose the variation of the data.

Half precision is not checked: it is coarse by choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

ROWS, NUMBERS = 1 << 16, 1 << 22  # largest sample that is checked
LARGEST_ERROR = 0.01  # of rounding, in standard deviations of the column
LARGEST_BATCH_ERROR = 0.1  # where only one batch is known, which may vary less than all rows
SCALE_ADVICE = (
    "give it less its mean and over its standard deviation (sklearn.preprocessing.StandardScaler), "
    "or train network.double()"
)
STANDARDISE = "give standardise_targets=True, or train network.double()"
NOISE = 16 * torch.finfo(torch.float64).eps  # relative variation of a constant column


def check_features_held(
    parts: Callable[[], Iterable[Tensor]],
    examples: int,
    dtype: torch.dtype,
    name: Callable[[int], str],
) -> None:
    """Raise ``ValueError`` if rounding to the network's type loses the variation of a feature.

    Args:
        parts: returns an iterator over the features in blocks ``[rows, columns]``. The first block
            is checked, and all blocks if it has a suspicious column.
        examples: number of rows in all.
        dtype: of the network.
        name: returns what error messages call a column, by its number.

    Example:
        >>> day = torch.arange(1000.0, dtype=torch.float64).unsqueeze(1) / 1000
        >>> check_features_held(lambda: [day], 1000, torch.float32, lambda number: "X")
        >>> check_features_held(lambda: [day + 1e9], 1000, torch.float32, lambda number: "X")
        Traceback (most recent call last):
        ValueError: X has numbers that float32, the network's type, cannot hold: they \
are spread by 0.289 around 1000000000.5, where those of float32 are 64 apart; give it less its \
mean and over its standard deviation (sklearn.preprocessing.StandardScaler), or train \
network.double()
    """
    _check(parts, examples, dtype, name, SCALE_ADVICE)


def check_targets_held(
    parts: Callable[[], Iterable[Tensor]],
    examples: int,
    dtype: torch.dtype,
    *,
    cure: str = STANDARDISE,
    largest_error: float = LARGEST_ERROR,
) -> None:
    """Raise ``ValueError`` if rounding to the network's type loses the variation of targets.

    In the first block, every target is also checked to be in the range of the type.

    Args:
        parts: returns an iterator over the targets in blocks ``[rows, ...]``; NaN is missing.
        examples: number of rows in all.
        dtype: of the network.
        cure: what to do, for error messages.
        largest_error: of rounding, in standard deviations.
    """

    def columns() -> Iterator[Tensor]:
        return (part.reshape(len(part), -1) for part in parts())

    first = next(columns(), torch.empty(0, 1))

    def name(number: int) -> str:
        return "y" if first.shape[1] == 1 else f"y: column {number}"

    if dtype == torch.float32 and first.dtype == torch.float64:
        beyond = (first.abs() > torch.finfo(dtype).max) & first.isfinite()
        if beyond.any():
            column = int(beyond.any(0).nonzero()[0])
            raise ValueError(_sentence(name(column), first[:, column], dtype, cure))
    _check(columns, examples, dtype, name, cure, largest_error)


def _check(
    parts: Callable[[], Iterable[Tensor]],
    examples: int,
    dtype: torch.dtype,
    name: Callable[[int], str],
    cure: str,
    largest_error: float = LARGEST_ERROR,
) -> None:
    first = next(iter(parts()), torch.empty(0, 0))
    if dtype != torch.float32 or first.dtype.itemsize < 8:
        return
    suspects = _lost(_some(first, len(first)), dtype, largest_error)
    if not suspects.any():
        return
    numbers = suspects.nonzero()[:, 0]
    values = first[:, numbers]
    if len(first) < examples:  # the first rows may vary less than all
        values = torch.cat([_some(part[:, numbers], examples) for part in parts()])
    lost = _lost(_some(values, len(values)), dtype, largest_error)
    if lost.any():
        column = int(lost.nonzero()[0])
        number = int(numbers[column])
        raise ValueError(_sentence(name(number), values[:, column], dtype, cure))


def _some(values: Tensor, examples: int) -> Tensor:
    """Return a sample of ``[rows, columns]`` in float64; ``examples``: the rows in all."""
    rows = max(1, min(ROWS, NUMBERS // max(1, values.shape[1])))
    return values[:: max(1, examples // rows)].double()


def _lost(values: Tensor, dtype: torch.dtype, largest_error: float) -> Tensor:
    """Return in which columns of ``[rows, columns]`` rounding errors are too large.

    Errors are relative to the standard deviation. Numbers out of range are too large too.
    """
    if not len(values):
        return torch.zeros(values.shape[1], dtype=torch.bool, device=values.device)
    spread, off = _deviation(values), values.to(dtype).double() - values
    moved = off.square().nanmean(0).sqrt()
    largest = values.abs().nan_to_num().amax(0)
    beyond = largest > torch.finfo(dtype).max
    lost: Tensor = ((moved > largest_error * spread) & (spread > NOISE * largest)) | beyond
    return lost


def _sentence(name: str, values: Tensor, dtype: torch.dtype, cure: str) -> str:
    """Return the error message for a column ``[rows]`` that a type cannot hold."""
    values = values.double()
    values = values[~values.isnan()]
    kind = str(dtype).removeprefix("torch.")
    what = f"{name} has numbers that {kind}, the network's type, cannot hold"
    largest = values[values.abs().argmax()]
    if largest.abs() > torch.finfo(dtype).max:
        return f"{what}, such as {largest.item():.4g}; {cure}"
    near = largest.abs().to(dtype)
    step = torch.nextafter(near, torch.full_like(near, torch.inf)) - near
    spread = _deviation(values.unsqueeze(1))[0].item()
    return (
        f"{what}: they are spread by {spread:.3g} around {values.mean().item():.12g}, where those "
        f"of {kind} are {step.item():.3g} apart; {cure}"
    )


def _deviation(values: Tensor) -> Tensor:
    """Return the standard deviation of each column, without NaN."""
    return (values - values.nanmean(0)).square().nanmean(0).sqrt()
