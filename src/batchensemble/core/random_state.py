"""Random states: one stream for the order of the data, one for the model.

The order of an epoch depends only on the seed and the epoch, so that a training that resumes in the
middle of an epoch sees the remaining examples.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from batchensemble.core.arguments import whole_number


@contextmanager
def seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    """Seed torch within a context and restore the state after it; ``None`` does not seed.

    Raises:
        TypeError: the seed is not a whole number.
        ValueError: it is out of range.
    """
    if seed is None:
        yield
        return
    if whole_number("seed", seed, at_least=0) >= 2**63:
        raise ValueError(f"seed must be below 2**63, got {seed}")
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


class DataStream:
    """The random state of the order of the data.

    Args:
        seed: ``None``: use torch's global state, which the model uses too.
    """

    def __init__(self, seed: int | None) -> None:
        self.seed = seed
        self._state: Tensor | None = None

    @property
    def state(self) -> Tensor | None:
        """The present state; ``None`` if torch's global state is used."""
        return self._state

    def restore(self, state: Tensor) -> None:
        """Restore a state that :attr:`state` returned."""
        self._state = state.clone()

    def begin(self, epoch: int) -> None:
        """Set the state for the start of an epoch."""
        if self.seed is not None:
            # A large odd factor keeps the epochs of neighbouring seeds apart.
            number = (self.seed + 0x9E3779B97F4A7C15 * (epoch + 1)) % 2**63
            self._state = torch.Generator().manual_seed(number).get_state()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Use this stream as torch's global state within a context."""
        if self._state is None:
            yield
            return
        outer = torch.get_rng_state()
        torch.set_rng_state(self._state)
        try:
            yield
        finally:
            self._state = torch.get_rng_state()
            torch.set_rng_state(outer)


def random_states(device: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the states of torch, of the device, of NumPy and of Python, as tensors and as JSON."""
    tensors = {"torch": torch.get_rng_state()}
    if device.type == "cuda":
        tensors["cuda"] = torch.cuda.get_rng_state(device)
    keys, numbers = library_states()
    return {**tensors, **keys}, numbers


def set_random_states(
    tensors: dict[str, Tensor], numbers: dict[str, Any], device: torch.device
) -> None:
    """Restore states that :func:`random_states` returned."""
    torch.set_rng_state(tensors["torch"])
    if "cuda" in tensors and device.type == "cuda":
        torch.cuda.set_rng_state(tensors["cuda"], device)
    set_library_states((tensors, numbers))


def library_states() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the states of NumPy's and Python's global generators, as tensors and as JSON."""
    state: Any = np.random.get_state()  # noqa: NPY002
    kind, keys, position, has_gauss, gauss = state
    version, internal, next_gauss = random.getstate()
    return {"numpy": torch.from_numpy(keys.astype(np.int64))}, {
        "numpy": [kind, position, has_gauss, gauss],
        "python": [version, list(internal), next_gauss],
    }


def set_library_states(states: Any) -> None:
    """Restore states that :func:`library_states` returned."""
    tensors, numbers = states
    kind, position, has_gauss, gauss = numbers["numpy"]
    keys = tensors["numpy"].numpy().astype(np.uint32)
    np.random.set_state((kind, keys, position, has_gauss, gauss))  # noqa: NPY002
    version, internal, next_gauss = numbers["python"]
    random.setstate((version, tuple(internal), next_gauss))
