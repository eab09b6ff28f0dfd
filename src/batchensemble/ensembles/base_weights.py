"""Checksums of the weights that a model was adapted from: what changed since, and whose it is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from batchensemble.ensembles.conversion.rules import Selectors, select


@dataclass(frozen=True)
class BaseWeights:
    """The checksums of a pretrained network's weights and buffers, but for its heads.

    Attributes:
        digests: SHA-256 of each tensor with its type and shape, by its name in a converted network.
        types: the types of its floating-point tensors, such as ``("float32",)``.
    """

    digests: Mapping[str, bytes]
    types: tuple[str, ...]

    @classmethod
    def of(cls, network: nn.Module, heads: Selectors = ()) -> BaseWeights:
        """Return the checksums of a network's weights; it reads all of them once.

        Args:
            network: a plain network.
            heads: modules that are drawn anew, whose weights do not matter.
        """
        drawn = [name for name, _ in select(network, "heads", heads)]
        tensors = {
            name: value
            for name, value in _tensors(network)
            if not any(name == each or name.startswith(f"{each}.") for each in drawn)
        }
        floats = {str(each.dtype)[6:] for each in tensors.values() if each.is_floating_point()}
        return cls({name: digest(each) for name, each in tensors.items()}, tuple(sorted(floats)))

    @property
    def sha256(self) -> str:
        """One checksum of all, in hexadecimal digits."""
        found = hashlib.sha256()
        for name in sorted(self.digests):
            found.update(name.encode() + b"\0" + self.digests[name])
        return found.hexdigest()

    def has(self, name: str, value: Tensor) -> bool:
        """Return whether the network held this very tensor, by its name in a converted network."""
        return name in self.digests and self.digests[name] == digest(value)


def digest(value: Tensor) -> bytes:
    """Return the SHA-256 of a tensor's type, shape and bytes.

    Example:
        >>> digest(torch.zeros(2, 3)) == digest(torch.zeros(3, 2))
        False
    """
    found = hashlib.sha256(f"{value.dtype} {list(value.shape)} ".encode())
    flat = value.detach().cpu().contiguous().flatten()
    if flat.numel():
        found.update(memoryview(flat.view(torch.uint8).numpy()))  # type: ignore[arg-type]
    return found.digest()


def _tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield all tensors of a plain network under their names in a converted one."""
    packed: dict[str, Any] = {
        f"{name}." if name else "": module
        for name, module in network.named_modules()
        if isinstance(module, nn.MultiheadAttention)
    }
    for name, value in network.state_dict().items():
        prefix, _, own = name.rpartition(".")
        start = f"{prefix}." if prefix else ""
        yield name, value
        # The twin of an attention has three layers in place of one packed weight.
        if start in packed and own in ("in_proj_weight", "in_proj_bias"):
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                yield f"{start}{letter}_proj.{own.removeprefix('in_proj_')}", part
        elif start in packed and own.endswith("_proj_weight"):
            yield f"{start}{own.removesuffix('_weight')}.weight", value
