"""Numbers that a network's type would round away: found at the door, and refused.

Half precision is not looked at, which is chosen to be coarse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

ROWS, NUMBERS = 1 << 16, 1 << 22  # that are looked at, evenly spread
LARGEST_SHARE = 0.01  # of a column's standard deviation, that rounding may move its numbers by
OF_ONE_BATCH = 0.1  # the same where only some rows are known, which may spread less than all
SCALE = (
    "give it less its mean and over its standard deviation (sklearn.preprocessing.StandardScaler), "
    "or train network.double()"
)
STANDARDISE = "give standardise_targets=True, or train network.double()"
NOISE = 16 * torch.finfo(torch.float64).eps  # beside its largest number, of a column of one number


def check_features_held(
    parts: Callable[[], Iterable[Tensor]],
    examples: int,
    dtype: torch.dtype,
    name: Callable[[int], str],
) -> None:
    """Raise ``ValueError`` where a column of features is lost in the network's type.

    Args:
        parts: goes through the features, ``[rows, columns]`` at a time: the first rows, and all
            where these show such a column.
        examples: how many rows there are.
        dtype: of the network.
        name: of the column of a number, for the sentence.

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
    _check(parts, examples, dtype, name, SCALE)


def check_targets_held(
    parts: Callable[[], Iterable[Tensor]],
    examples: int,
    dtype: torch.dtype,
    *,
    cure: str = STANDARDISE,
    share: float = LARGEST_SHARE,
) -> None:
    """Raise ``ValueError`` where targets are lost in the network's type.

    One beyond that type in any row of the first part is refused, however many are looked at.

    Args:
        parts: goes through them, ``[rows, ...]`` at a time; NaN is not known.
        examples: how many there are.
        dtype: of the network.
        cure: what to do.
        share: of the standard deviation, that rounding may move them by.
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
    _check(columns, examples, dtype, name, cure, share)


def _check(
    parts: Callable[[], Iterable[Tensor]],
    examples: int,
    dtype: torch.dtype,
    name: Callable[[int], str],
    cure: str,
    share: float = LARGEST_SHARE,
) -> None:
    first = next(iter(parts()), torch.empty(0, 0))
    if dtype != torch.float32 or first.dtype.itemsize < 8:
        return
    suspects = _lost(_some(first, len(first)), dtype, share)
    if not suspects.any():
        return
    numbers = suspects.nonzero()[:, 0]
    values = first[:, numbers]
    if len(first) < examples:  # which may spread less than all
        values = torch.cat([_some(part[:, numbers], examples) for part in parts()])
    lost = _lost(_some(values, len(values)), dtype, share)
    if lost.any():
        column = int(lost.nonzero()[0])
        number = int(numbers[column])
        raise ValueError(_sentence(name(number), values[:, column], dtype, cure))


def _some(values: Tensor, examples: int) -> Tensor:
    """Return a part of ``[rows, columns]`` in float64, of which so many rows there are in all."""
    rows = max(1, min(ROWS, NUMBERS // max(1, values.shape[1])))
    return values[:: max(1, examples // rows)].double()


def _lost(values: Tensor, dtype: torch.dtype, share: float) -> Tensor:
    """Return in which columns of ``[rows, columns]`` a type moves numbers by more than a share.

    It is one of their standard deviation. What a type has no number for is lost too.
    """
    if not len(values):
        return torch.zeros(values.shape[1], dtype=torch.bool, device=values.device)
    spread, off = _deviation(values), values.to(dtype).double() - values
    moved = off.square().nanmean(0).sqrt()
    largest = values.abs().nan_to_num().amax(0)
    beyond = largest > torch.finfo(dtype).max
    lost: Tensor = ((moved > share * spread) & (spread > NOISE * largest)) | beyond
    return lost


def _sentence(name: str, values: Tensor, dtype: torch.dtype, cure: str) -> str:
    """Return what is wrong with a column of numbers that a type cannot hold, ``[rows]``."""
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
    """Return the standard deviation of what is known of each column."""
    return (values - values.nanmean(0)).square().nanmean(0).sqrt()
