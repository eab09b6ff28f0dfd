"""The places in a data loader that change while it is iterated over, found by its attributes."""

from __future__ import annotations

import datetime
import decimal
import fractions
import functools
import io
import random
import re
import types
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from batchensemble.core.generators import SCALARS, SOURCES

ATTRIBUTES = frozenset(vars(DataLoader(TensorDataset(torch.empty(1)))))  # what any loader has
# Attributes of torch's own samplers that change; the others are their arguments.
KNOWN: dict[type, tuple[str, ...]] = {
    SequentialSampler: (),
    RandomSampler: ("generator",),
    SubsetRandomSampler: ("generator",),
    WeightedRandomSampler: ("generator",),
    BatchSampler: ("sampler",),
}
# Objects that never change, and libraries whose objects do not determine an order.
FIXED = (
    complex, slice, range, datetime.date, datetime.time, datetime.timedelta, decimal.Decimal,
    fractions.Fraction, uuid.UUID, re.Pattern, torch.dtype, torch.device, np.dtype,
)  # fmt: skip
OTHERS = ("torch.nn", "torch.cuda", "numpy", "pandas", "pyarrow", "polars", "PIL", "threading")
SEARCHED_CONTAINERS = (list, tuple, set, frozenset, dict, deque)

FIRST_ITEMS = 64  # elements of a container that are visited
DEPTH = 8


@dataclass
class StatePlace:
    """A place that may change while data are read.

    Attributes:
        path: of attributes, starting at the loader.
        value: a random generator, an object with ``state_dict``, or plain values.
        put: assigns another value; ``None`` if the value can only be changed in place.
    """

    path: str
    value: Any
    put: Callable[[Any], None] | None


class Places:
    """All places in a data loader that may change while data are read.

    Args:
        loader: of the user.

    Attributes:
        found: the places.
        owners: the objects whose attributes were visited, by path.
        refused: phrases about objects that determine the order but whose state cannot be read.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.found: list[StatePlace] = []
        self.owners: dict[str, Any] = {}
        self.refused: list[str] = []
        self._seen: dict[int, Any] = {}
        self._data = loader.dataset
        self._workers = loader.num_workers > 0
        if isinstance(loader.dataset, SCALARS + SEARCHED_CONTAINERS):
            self._seen[id(loader.dataset)] = loader.dataset  # examples, not an order
        self._attribute(loader, "loader", "generator", False)
        own = [name for name in vars(loader) if name not in ATTRIBUTES and name[0] != "_"]
        extra = [] if has_state_dict(loader) else own
        for name in ("batch_sampler", "sampler", *extra):
            self._attribute(loader, "loader", name, True)
        for name in ("dataset", "collate_fn"):
            self._attribute(loader, "loader", name, False)

    def _attribute(self, owner: Any, path: str, name: str, order: bool, depth: int = 0) -> None:
        self.owners[path] = owner
        value = getattr(owner, name, None)
        put = functools.partial(setattr, owner, name)
        self._visit(f"{path}.{name}", value, put, order, depth)

    def _visit(
        self, path: str, value: Any, put: Callable[[Any], None] | None, order: bool, depth: int
    ) -> None:
        """Record a value; ``order``: whether it determines which examples come next."""
        if isinstance(value, SCALARS):
            if order:
                self.found.append(StatePlace(path, value, put))
            return
        if id(value) in self._seen or depth > DEPTH:
            return
        self._seen[id(value)] = value
        module = type(value).__module__
        if isinstance(value, random.SystemRandom):
            self._refuse(path, value, "draws from the operating system, which cannot be repeated")
        elif isinstance(value, SOURCES) or has_state_dict(value):
            self.found.append(StatePlace(path, value, put))
        elif isinstance(value, (Tensor, np.ndarray, *SEARCHED_CONTAINERS)):
            self._visit_many(path, value, put, order, depth)
        elif isinstance(value, (type, types.ModuleType, nn.Module, *FIXED)):
            return
        elif isinstance(value, Iterator) and (
            isinstance(value, io.IOBase) or not hasattr(value, "__dict__")
        ):
            if order:
                self._refuse(path, value, "can be iterated over only once")
        elif _is_function(value):
            self._visit_function(path, value, depth)
        elif module.startswith(OTHERS) and not order:
            return
        elif type(value) in KNOWN:
            for name in KNOWN[type(value)]:
                self._attribute(value, path, name, order, depth + 1)
        elif hasattr(value, "__dict__") or hasattr(type(value), "__slots__"):
            self._visit_object(path, value, order, depth)
        elif order:
            self._refuse(path, value, "has no attributes to inspect")

    def _visit_many(
        self, path: str, value: Any, put: Callable[[Any], None] | None, order: bool, depth: int
    ) -> None:
        if order and _is_plain(value):
            self.found.append(StatePlace(path, value, put))
        elif isinstance(value, SEARCHED_CONTAINERS):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            for (key, each), _ in zip(items, range(FIRST_ITEMS), strict=False):
                if not isinstance(each, SCALARS):
                    self._visit(f"{path}.{key}", each, None, order, depth + 1)

    def _visit_object(self, path: str, value: Any, order: bool, depth: int) -> None:
        if isinstance(value, Dataset):
            # Workers get a fresh copy each epoch; without workers, its own order continues.
            own_order = isinstance(value, IterableDataset) and not _of_hugging_face(value)
            order = own_order and not self._workers
        self.owners[path] = value
        for name in _names(value):
            held = getattr(value, name, None)
            if held is not self._data:
                counts = isinstance(value, Dataset) and isinstance(held, (bool, int, float))
                self._attribute(value, path, name, order or counts, depth + 1)
        for kind in type(value).__mro__:
            if not kind.__module__.startswith(("torch.", "builtins", "typing", *OTHERS)):
                for each in vars(kind).values():
                    if isinstance(each, types.FunctionType):
                        self._visit_function(path, each, depth)

    def _visit_function(self, path: str, value: Any, depth: int) -> None:
        """Look for random generators that a function uses."""
        if isinstance(value, functools.partial):
            held = {"func": value.func, "args": value.args, **value.keywords}
        elif isinstance(value, types.MethodType):
            held = {"self": value.__self__}
        elif isinstance(value, types.FunctionType):
            held = dict(_globals_of(value.__code__, value.__globals__))
            for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
                held[name] = _content(cell)
            held["defaults"] = (value.__defaults__, value.__kwdefaults__)
        else:
            return
        for name, each in held.items():
            if not isinstance(each, SCALARS):
                self._visit(f"{path}({name})", each, None, False, depth + 1)

    def _refuse(self, path: str, value: Any, why: str) -> None:
        self.refused.append(f"{path} is a {type(value).__name__}, which {why}")


def has_state_dict(value: Any) -> bool:
    """Return whether an object has ``state_dict`` and ``load_state_dict``."""
    if isinstance(value, (type, nn.Module)) or _of_hugging_face(value):
        return False  # the last at the end of an epoch would have nothing left
    return callable(getattr(value, "state_dict", None)) and callable(
        getattr(value, "load_state_dict", None)
    )


def _of_hugging_face(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "datasets"


def _names(value: Any) -> list[str]:
    """Return the names of an object's attributes."""
    found = list(getattr(value, "__dict__", ()))
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        found += [slots] if isinstance(slots, str) else list(slots)
    return [name for name in dict.fromkeys(found) if name not in ("__dict__", "__weakref__")]


def _is_function(value: Any) -> bool:
    kinds = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, functools.partial)
    return isinstance(value, kinds)


def _is_plain(value: Any) -> bool:
    """Return whether a value consists of numbers, text and tensors only."""
    if isinstance(value, (Tensor, *SCALARS)):
        return True
    if isinstance(value, np.ndarray):
        return not value.dtype.hasobject
    if isinstance(value, dict):
        return all(map(_is_plain, value.keys())) and all(map(_is_plain, value.values()))
    return isinstance(value, SEARCHED_CONTAINERS) and all(map(_is_plain, value))


def _globals_of(code: types.CodeType, found: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the random generators among the global names of a function's code."""
    for name in code.co_names:
        if isinstance(found.get(name), SOURCES):
            yield name, found[name]
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            yield from _globals_of(each, found)


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None
