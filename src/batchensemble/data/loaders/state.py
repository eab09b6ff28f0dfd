"""The state of a user's data loader: of its random generators, its sampler, its dataset.

A seed cannot reproduce an order that comes from a generator of the user, or from a sampler that
counts its epochs. So their states are found among the loader's attributes, stored in checkpoints,
and restored before the loader is iterated over again.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset

from batchensemble.core.generators import SCALARS, SOURCES, NotKeptError, decode, encode, set_source
from batchensemble.data.loaders.attributes import Places, StatePlace, has_state_dict

SOME = 4096  # elements of a list that go into its digest


class LoaderState:
    """The state of a data loader, as far as the order of its data depends on it.

    Args:
        loader: as it is before the training.

    Attributes:
        sources: the paths of the generators and stateful objects that it uses.
        resumes_itself: whether the loader resumes within an epoch by itself, by ``state_dict`` and
            ``load_state_dict``, as torchdata's ``StatefulDataLoader`` does.

    Example:
        >>> loader = DataLoader([1, 2, 3], shuffle=True, generator=torch.Generator())
        >>> held = LoaderState(loader)
        >>> before, first = held.state(), list(loader)
        >>> held.restore(before)
        >>> list(loader) == first
        True
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader = loader
        self.resumes_itself = has_state_dict(loader)
        places = Places(loader)
        self._before = {each.path: _digest(each.value) for each in places.found}
        self.sources = [
            each.path
            for each in places.found
            if isinstance(each.value, SOURCES) or has_state_dict(each.value)
        ]
        self._refused = places.refused
        self._kept: set[str] = set()

    def why_not_stored(self, *, fixed: bool = False) -> str | None:
        """Return why a checkpoint cannot store the loader's state, or ``None`` if it can.

        Args:
            fixed: assume that workers draw no random numbers, as for held-out data.
        """
        loader = self.loader
        if self.resumes_itself:
            return None
        if fixed:
            return self._phrase()
        if loader.num_workers and not getattr(loader, "in_order", True):
            return "its workers return batches in any order (in_order=False); leave that out"
        if loader.num_workers and loader.persistent_workers and not _is_fixed(loader.dataset):
            return (
                "its workers persist between epochs (persistent_workers=True), so their random "
                "state cannot be read; give persistent_workers=False"
            )
        return self._phrase()

    def _phrase(self) -> str | None:
        if self._refused:
            return (
                f"{self._refused[0]}; give it methods state_dict() and load_state_dict(state), or "
                "let it draw from a generator in an attribute"
            )
        return None

    def state(self) -> list[Any]:
        """Return the present states, each with its path, as checkpoints store them.

        Raises:
            ValueError: a ``state_dict`` of the user's holds values that a checkpoint cannot.
        """
        found = []
        for each in Places(self.loader).found:
            changed = self._before.get(each.path) != _digest(each.value)
            if isinstance(each.value, SOURCES) or has_state_dict(each.value):
                found.append([each.path, self._encoded(each.path, each.value)])
            elif changed or each.path in self._kept:
                self._kept.add(each.path)
                found.append([each.path, encode(each.value)])
        return found

    def own_state(self) -> Any:
        """Return the ``state_dict`` of a loader that resumes by itself; ``None`` for others."""
        if not self.resumes_itself:
            return None
        with torch.random.fork_rng([]):  # torchdata's may begin an epoch for it
            return self._encoded("loader", self.loader)

    def restore_own(self, state: Any) -> None:
        """Restore a loader that resumes by itself.

        torchdata's loader draws the order of the epoch again when its state or its batches are
        first requested, so its state is requested here.
        """
        with torch.random.fork_rng([]):
            self.loader.load_state_dict(decode(state))  # type: ignore[attr-defined]
            self.loader.state_dict()  # type: ignore[attr-defined]

    def check(self, sources: list[str]) -> None:
        """Raise ``ValueError`` if a stored loader had other :attr:`sources` than this one."""
        for path in sources:
            if path not in self.sources:
                raise ValueError(f"it has the state of {path}, which is not there here")
        for path in self.sources:
            if path not in sources:
                raise ValueError(f"it has no state of {path}, from which the data are drawn here")

    def restore(self, states: list[Any], *, midway: bool = False) -> None:
        """Restore states.

        Args:
            states: what :meth:`state` returned.
            midway: the loader is being iterated over; objects with a ``state_dict`` are then left
                alone, since the iteration has advanced them.

        Raises:
            ValueError: they are the states of another loader.
        """
        places = Places(self.loader)
        here = {each.path: each for each in places.found}
        for path, state in states:
            self._kept.add(path)
            owner, _, name = path.rpartition(".")
            if path in here:
                if not (midway and has_state_dict(here[path].value)):
                    _restore(here[path], state)
            elif owner in places.owners:  # created during the first iteration
                setattr(places.owners[owner], name, decode(state))
            else:
                raise ValueError(f"it has the state of {path}, which is not there here")

    def _encoded(self, path: str, value: Any) -> Any:
        try:
            return encode(value.state_dict() if has_state_dict(value) else value)
        except NotKeptError as error:
            raise ValueError(
                f"state_dict() of {path} ({type(value).__name__}) holds {error}, and checkpoints "
                "hold numbers, text, tensors and arrays, in lists and dictionaries; return those"
            ) from error


def _restore(place: StatePlace, state: Any) -> None:
    """Restore one state, in place if possible."""
    value = place.value
    if has_state_dict(value):
        value.load_state_dict(decode(state))
    elif isinstance(value, SOURCES):
        set_source(value, state)
    else:
        new = decode(state)
        if isinstance(value, list) and isinstance(new, list):
            value[:] = new
        elif isinstance(value, Tensor) and value.shape == new.shape:
            value.copy_(new)
        elif isinstance(value, np.ndarray) and value.shape == new.shape:
            value[...] = new
        elif place.put is not None:
            place.put(new)


def _is_fixed(dataset: Any) -> bool:
    """Return whether reading a dataset involves no random numbers."""
    if isinstance(dataset, ConcatDataset):
        return all(map(_is_fixed, dataset.datasets))
    if type(dataset) is Subset:
        return _is_fixed(dataset.dataset)
    return type(dataset) is TensorDataset or isinstance(dataset, (list, tuple))


def _digest(value: Any) -> Any:
    """Return a digest of a value; of many elements, a sample."""
    if isinstance(value, SCALARS):
        return value
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy() if value.dtype != torch.bfloat16 else value.tolist()
    if isinstance(value, np.ndarray):
        flat = value.reshape(-1)
        some: Any = np.ascontiguousarray(flat[:: max(1, len(flat) // SOME)]).tobytes()
    elif isinstance(value, (list, tuple)):
        some = repr(value[:: max(1, len(value) // SOME)]).encode()
    else:
        some = repr(value).encode()
    return type(value).__name__, len(some), hashlib.sha256(some).hexdigest()
