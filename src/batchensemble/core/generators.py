"""Random generators and plain values, encoded as checkpoints store them."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

SOURCES = (
    torch.Generator,
    np.random.Generator,
    np.random.BitGenerator,
    np.random.RandomState,
    random.Random,
)
SCALARS = (bool, int, float, str, bytes, type(None), PurePath, np.generic)


class NotKeptError(TypeError):
    """A checkpoint cannot store a value of this type; the message names the type."""


def encode(value: Any) -> Any:
    """Return a value as nested dictionaries and lists of numbers, text and tensors.

    Raises:
        NotKeptError: it contains a value of another type.

    Example:
        >>> decode(encode({"order": (1, 2), "by": np.random.default_rng(0)}))["order"]
        (1, 2)
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Tensor):
        return {"tensor": value.detach().clone()}
    if isinstance(value, (np.ndarray, np.generic)):
        return _array(np.asarray(value), scalar=isinstance(value, np.generic))
    if isinstance(value, bytes):
        return {"bytes": _bytes(value)}
    if isinstance(value, PurePath):
        return {"path": str(value)}
    if isinstance(value, SOURCES):
        return {"source": _kind(value), "state": _state(value)}
    if isinstance(value, Mapping):
        return {"dict": [[encode(key), encode(each)] for key, each in value.items()]}
    if isinstance(value, (list, tuple, set, frozenset, deque)):
        name = next(name for name, kind in SOURCE_KINDS.items() if isinstance(value, kind))
        kinds = set(map(type, value))
        if kinds in ({int}, {float}) and len(value) > 16:
            numbers = np.asarray(list(value))
            if numbers.dtype.kind in "if":  # whole numbers beyond 64 bits are objects
                return {name: _array(numbers)}
        return {name: [encode(each) for each in value]}
    if isinstance(value, range):
        return {"range": [value.start, value.stop, value.step]}
    raise NotKeptError(f"a {type(value).__name__}")


def decode(value: Any) -> Any:
    """Return the value that :func:`encode` encoded; random generators are new objects."""
    if not isinstance(value, dict):
        return value
    if "source" in value:
        return _made(value)
    if "dtype" in value:
        return _unpacked(value)
    (name, held), *_ = value.items()
    if name == "tensor":
        return held.clone()
    if name == "bytes":
        return held.numpy().tobytes()
    if name == "path":
        return PurePath(held) if isinstance(held, str) else held
    if name == "range":
        return range(*held)
    if name == "dict":
        return {decode(key): decode(each) for key, each in held}
    items = _unpacked(held).tolist() if isinstance(held, dict) else [decode(each) for each in held]
    return SOURCE_KINDS[name](items)


def set_source(source: Any, value: Any) -> None:
    """Restore a random generator to a state that :func:`encode` returned.

    Raises:
        ValueError: it is a generator of another kind.
    """
    if value["source"] != _kind(source):
        raise ValueError(f"it has the state of a {value['source']}, and here is a {_kind(source)}")
    state = decode(value["state"])
    if isinstance(source, torch.Generator):
        source.set_state(state)
    elif isinstance(source, np.random.Generator):
        source.bit_generator.state = state
    elif isinstance(source, np.random.BitGenerator):
        source.state = state
    elif isinstance(source, np.random.RandomState):
        source.set_state(state)
    else:
        source.setstate(state)


SOURCE_KINDS: dict[str, Any] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "deque": deque,
}


def _kind(source: Any) -> str:
    if isinstance(source, torch.Generator):
        return f"torch.Generator on {source.device}"
    if isinstance(source, np.random.Generator):
        return f"numpy.random.Generator of {type(source.bit_generator).__name__}"
    if isinstance(source, np.random.BitGenerator):
        return f"numpy.random.{type(source).__name__}"
    return "numpy.random.RandomState" if isinstance(source, np.random.RandomState) else "Random"


def _state(source: Any) -> Any:
    if isinstance(source, torch.Generator):
        return encode(source.get_state())
    if isinstance(source, np.random.Generator):
        return encode(source.bit_generator.state)
    if isinstance(source, np.random.BitGenerator):
        return encode(source.state)
    if isinstance(source, np.random.RandomState):
        return encode(source.get_state(legacy=False))
    return encode(source.getstate())


def _made(value: Any) -> Any:
    kind, _, of = value["source"].rpartition(" ")
    new: Any
    if kind == "torch.Generator on":
        new = torch.Generator(of)
    elif kind == "numpy.random.Generator of":
        new = np.random.Generator(getattr(np.random, of)())
    elif value["source"] == "Random":
        new = random.Random()
    else:
        new = getattr(np.random, value["source"].rpartition(".")[2])()
    set_source(new, value)
    return new


def _array(values: np.ndarray, *, scalar: bool = False) -> dict[str, Any]:
    if values.dtype.hasobject:
        raise NotKeptError("an array of objects")
    content = _bytes(np.ascontiguousarray(values).tobytes())
    return {"dtype": values.dtype.str, "shape": list(values.shape), "of": content, "one": scalar}


def _unpacked(value: Any) -> Any:
    found = np.frombuffer(value["of"].numpy().tobytes(), value["dtype"]).reshape(value["shape"])
    return found[()] if value["one"] else found.copy()


def _bytes(content: bytes) -> Tensor:
    return (
        torch.frombuffer(bytearray(content), dtype=torch.uint8)
        if content
        else torch.empty(0, dtype=torch.uint8)
    )
