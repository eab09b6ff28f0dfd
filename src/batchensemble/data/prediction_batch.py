"""How many examples go through a network at once where no gradient is asked for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

PREDICTION_BATCH = 4096  # at most
LEAST_BATCH = 16
UNSEEN_EXAMPLES = 256  # where examples cannot be looked at before they come
# Of inputs. What layers make of more does not stay in the caches of a CPU, and a network of images
# makes hundreds of times as many bytes of them, for each member.
INPUT_BYTES = {"cpu": 2**18}
INPUT_BYTES_OF_OTHERS = 2**24


def prediction_batch(example_bytes: int, device: torch.device) -> int:
    """Return the number of examples of a batch without gradients.

    Args:
        example_bytes: size of the inputs of one example.
        device: where they go through the network.

    Example:
        >>> cpu = torch.device("cpu")
        >>> prediction_batch(4 * 30, cpu), prediction_batch(4 * 3 * 224 * 224, cpu)
        (2184, 16)
    """
    fit = INPUT_BYTES.get(device.type, INPUT_BYTES_OF_OTHERS) // max(1, example_bytes)
    return min(PREDICTION_BATCH, max(LEAST_BATCH, fit))


def prediction_batch_of(dataset: Any, device: torch.device) -> int:
    """Return the same for a dataset, by its first example; it must not be empty."""
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
        return UNSEEN_EXAMPLES
    return prediction_batch(_example_bytes(dataset[0]), device)


def _example_bytes(example: Any) -> int:
    if isinstance(example, Tensor) or hasattr(example, "nbytes"):
        return int(example.nbytes)
    if isinstance(example, dict):
        example = list(example.values())
    return sum(map(_example_bytes, example)) if isinstance(example, (list, tuple)) else 0
