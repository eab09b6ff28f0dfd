"""Nested tuples, lists, dictionaries and dataclasses: map and iterate over their leaves.

Containers keep their class: named tuples, ``OrderedDict``, the output classes of Hugging Face.
Anything else is a leaf, also a packed sequence or a cache.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch.nn.utils.rnn import PackedSequence

Path = tuple[Any, ...]


def map_leaves(function: Callable[..., Any], *values: Any, path: Path = ()) -> Any:
    """Apply ``function(path, leaf, ...)`` to the leaves of values with the same structure.

    Args:
        function: takes the path of the leaf (keys, indices and field names) and its leaf in each
            value.
        values: the result has the containers of the first.
        path: of these values within a larger value.

    Example:
        >>> map_leaves(lambda path, leaf: leaf + 1, {"a": 1, "b": (2, [3])})
        {'a': 2, 'b': (3, [4])}
    """
    first = values[0]
    keys = _keys(first)
    if keys is None:
        return function(path, *values)
    parts = {
        key: map_leaves(function, *(_get(value, key) for value in values), path=(*path, key))
        for key in keys
    }
    return _rebuild(first, parts)


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield the path and the value of each leaf.

    Example:
        >>> list(leaves({"a": 1, "b": [2, 3]}))
        [(('a',), 1), (('b', 0), 2), (('b', 1), 3)]
    """
    keys = _keys(value)
    if keys is None:
        yield path, value
        return
    for key in keys:
        yield from leaves(_get(value, key), (*path, key))


def _keys(value: Any) -> Sequence[Any] | None:
    """Return the keys of a container, or ``None`` for a leaf."""
    if isinstance(value, PackedSequence):
        return None
    if isinstance(value, Mapping):
        return list(value)
    if isinstance(value, (tuple, list)):
        return range(len(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [each.name for each in dataclasses.fields(value)]
    return None


def _get(value: Any, key: Any) -> Any:
    return value[key] if isinstance(value, (Mapping, tuple, list)) else getattr(value, key)


def _rebuild(like: Any, parts: dict[Any, Any]) -> Any:
    """Return a container of the class of ``like`` with other contents."""
    kind = type(like)
    if isinstance(like, (tuple, list)):
        return kind(*parts.values()) if hasattr(kind, "_fields") else kind(parts.values())
    if isinstance(like, Mapping) and not dataclasses.is_dataclass(like):
        if kind is dict:
            return parts
        result = copy.copy(like)  # keeps what such a class holds besides, a default for example
        for key, part in parts.items():
            result[key] = part  # type: ignore[index]
        return result
    if isinstance(like, Mapping):
        return kind(**parts)
    result = copy.copy(like)
    for name, part in parts.items():
        object.__setattr__(result, name, part)  # frozen ones too
    return result
