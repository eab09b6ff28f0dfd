"""JSON from untrusted files: read in bounded time and memory, or refused."""

from __future__ import annotations

import json
import math
import os
import reprlib
from pathlib import Path
from typing import Any

from batchensemble.core.atomic_files import open_regular

MOST_BYTES = 2**24
MOST_VALUES = 500_000  # a value of one byte takes 60 in Python
MOST_NESTED = 100_000  # objects and lists
DEEPEST = 64
# Of files that grow with a training.
LARGE_LIMITS = {"most": 2**28, "most_values": 20_000_000, "most_nested": 5_000_000}
MOST_DIGITS = 19


def read_json(path: Path, *, most: int = MOST_BYTES, **limits: Any) -> Any:
    """Return the content of a JSON file.

    Args:
        path: of a regular file.
        most: largest size in bytes.
        limits: see :func:`parse_json`.

    Raises:
        ValueError: it is not a regular file, too large, or not valid, see :func:`parse_json`.
        OSError: it cannot be read.
    """
    with open_regular(path) as file:
        # No more than the file has: a read takes the memory that it was asked for at once.
        content = file.read(min(most, os.fstat(file.fileno()).st_size) + 1)
    if len(content) > most:
        raise ValueError(f"{path} is larger than {most:,} bytes, which no such file is")
    return parse_json(content, str(path), **limits)


def parse_json(
    content: bytes,
    where: str,
    *,
    most_values: int = MOST_VALUES,
    most_nested: int = MOST_NESTED,
    nan: bool = False,
) -> Any:
    """Parse JSON in UTF-8 with finite numbers, integers of 64 bits and no repeated keys.

    Args:
        content: of the file.
        where: what errors call it.
        most_values: largest number of values.
        most_nested: largest number of objects and lists.
        nan: whether numbers may be NaN or infinite, as Python writes them.

    Raises:
        ValueError: it is not such JSON, is nested deeper than 64, or exceeds a limit.

    Example:
        >>> parse_json(b'{"members": 3}', "config.json")
        {'members': 3}
        >>> parse_json(b'{"members": 3, "members": 4}', "config.json")
        Traceback (most recent call last):
        ValueError: config.json is damaged: it has the key 'members' twice
    """
    nested = content.count(b"[") + content.count(b"{")
    if content.count(b",") + nested > most_values or nested > most_nested:
        raise ValueError(
            f"{where} is damaged: it holds more than {most_values:,} values, or {most_nested:,} "
            "objects and lists"
        )
    try:
        found = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_once,
            parse_constant=float if nan else _constant,
            parse_float=float if nan else _finite,
            parse_int=_whole,
        )
        _check(found)
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is damaged: it is not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise ValueError(f"{where} is damaged: it is nested too deep") from None
    except ValueError as error:
        raise ValueError(f"{where} is damaged: {error}") from None
    return found


def brief(value: Any) -> str:
    """Return a value for an error message, brief to one line.

    Example:
        >>> brief("a" * 1000)
        "'aaaaaaaaaaaaaaaaaaaaaaaaaaa...aaaaaaaaaaaaaaaaaaaaaaaaaaaa'"
    """
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 60
    short.maxlevel = 2
    return short.repr(value)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"it has the key {brief(key)} twice")
        found[key] = value
    return found


def _constant(text: str) -> Any:
    raise ValueError(f"it holds {text}, which is no number of JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"it holds the number {brief(text)}, which is too large")
    return number


def _whole(text: str) -> int:
    if len(text) > MOST_DIGITS + 1 or abs(int(text)) >= 2**63:
        raise ValueError(f"it holds the whole number {brief(text)}, which is too large")
    return int(text)


def _check(found: Any) -> None:
    """Check the depth of nesting, and that all text is valid Unicode."""
    level, depth = [found], 0
    while level:
        if depth > DEEPEST:
            raise ValueError(f"it is nested deeper than {DEEPEST} levels")
        beneath: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                beneath += value
                beneath += value.values()
            elif isinstance(value, list):
                beneath += value
            elif isinstance(value, str) and not value.isascii():
                try:
                    value.encode("utf-8")
                except UnicodeEncodeError:
                    raise ValueError(f"{brief(value)} is no valid text") from None
        level, depth = beneath, depth + 1
