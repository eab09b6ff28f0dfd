"""Random states: one stream for the order of the data, one for the model.

The order of an epoch depends on the seed and the epoch alone, so that a training that goes on in
the middle of one finds the examples that are left.
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
    """Seed torch for a while and restore the caller's state; with ``None`` use the caller's.

    Raises:
        TypeError: the seed is no whole number.
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
    """The random state that data are drawn from.

    Args:
        seed: ``None``: torch's global state, whose draws then depend on the model's.
    """

    def __init__(self, seed: int | None) -> None:
        self.seed = seed
        self._state: Tensor | None = None

    @property
    def state(self) -> Tensor | None:
        """The state as it is; ``None`` where draws are from torch's global one."""
        return self._state

    def restore(self, state: Tensor) -> None:
        """Go to a state that :attr:`state` returned."""
        self._state = state.clone()

    def begin(self, epoch: int) -> None:
        """Go to the start of an epoch."""
        if self.seed is not None:
            # A large odd factor keeps the epochs of neighbouring seeds apart.
            number = (self.seed + 0x9E3779B97F4A7C15 * (epoch + 1)) % 2**63
            self._state = torch.Generator().manual_seed(number).get_state()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Draw from this stream for a while."""
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
    keys, numbers = of_libraries()
    return {**tensors, **keys}, numbers


def set_random_states(
    tensors: dict[str, Tensor], numbers: dict[str, Any], device: torch.device
) -> None:
    """Go on from what :func:`random_states` returned."""
    torch.set_rng_state(tensors["torch"])
    if "cuda" in tensors and device.type == "cuda":
        torch.cuda.set_rng_state(tensors["cuda"], device)
    set_of_libraries((tensors, numbers))


def of_libraries() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the states of NumPy's and Python's global generators, as tensors and as JSON."""
    state: Any = np.random.get_state()  # noqa: NPY002
    kind, keys, position, has_gauss, gauss = state
    version, internal, next_gauss = random.getstate()
    return {"numpy": torch.from_numpy(keys.astype(np.int64))}, {
        "numpy": [kind, position, has_gauss, gauss],
        "python": [version, list(internal), next_gauss],
    }


def set_of_libraries(states: Any) -> None:
    """Go on from what :func:`of_libraries` returned."""
    tensors, numbers = states
    kind, position, has_gauss, gauss = numbers["numpy"]
    keys = tensors["numpy"].numpy().astype(np.uint32)
    np.random.set_state((kind, keys, position, has_gauss, gauss))  # noqa: NPY002
    version, internal, next_gauss = numbers["python"]
    random.setstate((version, tuple(internal), next_gauss))
