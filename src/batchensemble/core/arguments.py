"""Checks of arguments; each error says what was got, what was expected and what to do."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any


def whole_number(name: str, value: Any, *, at_least: int = 1) -> int:
    """Return ``value`` as an ``int`` of at least ``at_least``.

    Raises:
        TypeError: ``value`` is not a whole number.
        ValueError: it is too small.

    Example:
        >>> whole_number("members", 0)
        Traceback (most recent call last):
        ValueError: members must be at least 1, got 0
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number of at least {at_least}, got {value!r}")
    if value < at_least:
        raise ValueError(f"{name} must be at least {at_least}, got {value}")
    return int(value)


def positive_number(name: str, value: Any) -> float:
    """Return ``value`` as a finite ``float`` above 0.

    Raises:
        TypeError: ``value`` is not a number.
        ValueError: it is 0, below 0, NaN or infinite.

    Example:
        >>> positive_number("lr", float("nan"))
        Traceback (most recent call last):
        ValueError: lr must be a finite number above 0, got nan
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number above 0, got {value!r}")
    if not math.isfinite(value) or float(value) <= 0:
        raise ValueError(f"{name} must be a finite number above 0, got {value}")
    return float(value)


def fraction(name: str, value: Any) -> float:
    """Return ``value`` as a ``float`` from 0 to 1.

    Raises:
        TypeError: ``value`` is not a number.
        ValueError: it is outside [0, 1] or NaN.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number from 0 to 1, got {value!r}")
    if not 0 <= float(value) <= 1:
        raise ValueError(f"{name} must be a number from 0 to 1, got {value}")
    return float(value)


def between(name: str, value: Any, low: int | float, high: int | float) -> float:
    """Return ``value`` as a ``float`` above ``low`` and below ``high``.

    Raises:
        TypeError: ``value`` is not a number.
        ValueError: it is not between them, or NaN.

    Example:
        >>> between("coverage", 1.0, 0, 1)
        Traceback (most recent call last):
        ValueError: coverage must be a number above 0 and below 1, got 1.0
    """
    expected = f"{name} must be a number above {low} and below {high}, got"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{expected} {value!r}")
    if not low < float(value) < high:
        raise ValueError(f"{expected} {value}")
    return float(value)


def one_of(name: str, value: Any, allowed: Iterable[str]) -> str:
    """Return ``value`` if it is one of the ``allowed`` names.

    Raises:
        ValueError: it is not; the sentence proposes the nearest name.

    Example:
        >>> one_of("method", "depp", ["single", "deep"])
        Traceback (most recent call last):
        ValueError: method must be one of single, deep, got 'depp'; did you mean 'deep'?
    """
    names = list(allowed)
    if value in names:
        return str(value)
    hint = nearest(str(value), names)
    raise ValueError(f"{name} must be one of {', '.join(names)}, got {value!r}{hint}")


def nearest(value: str, names: Iterable[str]) -> str:
    """Return ``"; did you mean 'NAME'?"`` for the nearest of ``names``, or nothing."""
    close = difflib.get_close_matches(value.lower(), list(names), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
