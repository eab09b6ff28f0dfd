"""What a user's data loader draws from: its generators, its sampler, its dataset.

An order that a generator of the user's own draws, or a sampler that counts its epochs, cannot be
made again from a seed. So their states are found, by going through the loader's attributes, kept in
checkpoints, and put back before the loader is gone through again.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset

from batchensemble.core.generators import SCALARS, SOURCES, NotKeptError, decode, encode, set_source
from batchensemble.data.loaders.attributes import Place, Places, keeps_itself

SOME = 4096  # elements that a checksum of a list looks at


class LoaderState:
    """The state of what a loader draws from.

    Args:
        loader: as it is before the training.

    Attributes:
        draws: the paths of what it draws from.
        goes_on: whether the loader itself goes on within an epoch, by ``state_dict`` and
            ``load_state_dict``, as torchdata's ``StatefulDataLoader`` does.

    Example:
        >>> loader = DataLoader([1, 2, 3], shuffle=True, generator=torch.Generator())
        >>> held = LoaderState(loader)
        >>> before, first = held.now(), list(loader)
        >>> held.put(before)
        >>> list(loader) == first
        True
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader = loader
        self.goes_on = keeps_itself(loader)
        places = Places(loader)
        self._before = {each.path: _digest(each.value) for each in places.found}
        self.draws = [
            each.path
            for each in places.found
            if isinstance(each.value, SOURCES) or keeps_itself(each.value)
        ]
        self._refused = places.refused
        self._kept: set[str] = set()

    def refusal(self, *, fixed: bool = False) -> str | None:
        """Return what of the loader no checkpoint can hold, or ``None``.

        Args:
            fixed: whether its workers are taken to draw nothing, as those of held-out data.
        """
        loader = self.loader
        if self.goes_on:
            return None
        if fixed:
            return self._phrase()
        if loader.num_workers and not getattr(loader, "in_order", True):
            return "its workers hand over batches as they come (in_order=False); leave that out"
        if loader.num_workers and loader.persistent_workers and not _is_fixed(loader.dataset):
            return (
                "its workers stay from one epoch to the next (persistent_workers=True), and what "
                "they draw from is out of reach; give persistent_workers=False"
            )
        return self._phrase()

    def _phrase(self) -> str | None:
        if self._refused:
            return (
                f"{self._refused[0]}; give it methods state_dict() and load_state_dict(state), or "
                "let it draw from a generator in an attribute"
            )
        return None

    def now(self) -> list[Any]:
        """Return the states as they are, each with its path, as checkpoints hold them.

        Raises:
            ValueError: a ``state_dict`` of the user's holds what no checkpoint can.
        """
        found = []
        for each in Places(self.loader).found:
            changed = self._before.get(each.path) != _digest(each.value)
            if isinstance(each.value, SOURCES) or keeps_itself(each.value):
                found.append([each.path, self._encoded(each.path, each.value)])
            elif changed or each.path in self._kept:
                self._kept.add(each.path)
                found.append([each.path, encode(each.value)])
        return found

    def own(self) -> Any:
        """Return the state of a loader that goes on by itself, ``None`` of any other."""
        if not self.goes_on:
            return None
        with torch.random.fork_rng([]):  # torchdata's may begin an epoch for it
            return self._encoded("loader", self.loader)

    def put_own(self, state: Any) -> None:
        """Bring a loader that goes on by itself to its state, and where it draws something to it.

        torchdata's draws the order of the epoch once more, when it is first asked for its state or
        its batches.
        """
        with torch.random.fork_rng([]):
            self.loader.load_state_dict(decode(state))  # type: ignore[attr-defined]
            self.loader.state_dict()  # type: ignore[attr-defined]

    def check(self, draws: list[str]) -> None:
        """Raise ``ValueError`` where another loader drew from other sources, of :attr:`draws`."""
        for path in draws:
            if path not in self.draws:
                raise ValueError(f"it has the state of {path}, which is not there here")
        for path in self.draws:
            if path not in draws:
                raise ValueError(f"it has no state of {path}, from which the data are drawn here")

    def put(self, states: list[Any], *, midway: bool = False) -> None:
        """Put states back.

        Args:
            states: what :meth:`now` returned.
            midway: while the loader is gone through; what has a ``state_dict`` is then left alone,
                since it was brought there by being gone through.

        Raises:
            ValueError: the loader is another than that they are of.
        """
        places = Places(self.loader)
        here = {each.path: each for each in places.found}
        for path, state in states:
            self._kept.add(path)
            owner, _, name = path.rpartition(".")
            if path in here:
                if not (midway and keeps_itself(here[path].value)):
                    _put(here[path], state)
            elif owner in places.owners:  # made when the data were first gone through
                setattr(places.owners[owner], name, decode(state))
            else:
                raise ValueError(f"it has the state of {path}, which is not there here")

    def _encoded(self, path: str, value: Any) -> Any:
        try:
            return encode(value.state_dict() if keeps_itself(value) else value)
        except NotKeptError as error:
            raise ValueError(
                f"state_dict() of {path} ({type(value).__name__}) holds {error}, and checkpoints "
                "hold numbers, text, tensors and arrays, in lists and dictionaries; return those"
            ) from error


def _put(place: Place, state: Any) -> None:
    """Bring one state back, in the object that is there where that can be."""
    value = place.value
    if keeps_itself(value):
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
    """Return whether nothing is random in reading a dataset."""
    if isinstance(dataset, ConcatDataset):
        return all(map(_is_fixed, dataset.datasets))
    if type(dataset) is Subset:
        return _is_fixed(dataset.dataset)
    return type(dataset) is TensorDataset or isinstance(dataset, (list, tuple))


def _digest(value: Any) -> Any:
    """Return what changes with a value, nearly always: of many elements some are looked at."""
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
