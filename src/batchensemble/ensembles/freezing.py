"""Freeze a model for inference: each layer chooses once how it computes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from torch import nn

from batchensemble.core.arguments import whole_number
from batchensemble.layers import Mergeable

FreezableModel = TypeVar("FreezableModel", bound="Freezable")


class Freezable(nn.Module):
    """A module whose rank-one layers can be frozen."""

    _frozen = False

    def freeze(self: FreezableModel, batch_size: int | None = None) -> FreezableModel:
        """Set evaluation mode and let each layer choose once how it computes.

        Without it a layer chooses at each call. If it then caches the members' merged weights, it
        compares the shared weight with a copy at each call, so that the cache is never stale; on
        devices other than CPUs, where that would synchronise, it caches nothing. A frozen layer
        chooses at its next call and keeps the choice; it merges again only if a parameter was
        replaced or written to, or was used with gradients. That covers ``load_state_dict``, edits
        in place, ``.to()`` and training loops. Edits through ``.data``, and steps of optimisers
        with ``fused=True`` without a call with gradients, are not detected: call :meth:`freeze`
        again after them.

        Freezing changes speed only. Merged weights take M times the memory of a layer's weights,
        until :meth:`train` or :meth:`unfreeze`. Copies, selections of members and pickles are
        frozen, too, with a cache of their own. Only calls without gradients (``torch.no_grad`` or
        ``torch.inference_mode``) use it.

        Args:
            batch_size: number of rows of each member in a layer: examples, times tokens in
                sequence models. By default as in the next call.

        Returns:
            The model itself.

        Raises:
            TypeError: ``batch_size`` is not a whole number.
            ValueError: ``batch_size`` is below 1.

        Example:
            >>> import torch
            >>> from batchensemble import BatchEnsemble
            >>> model = BatchEnsemble(nn.Linear(2, 3), members=4).freeze()
            >>> with torch.no_grad():
            ...     model(torch.zeros(5, 2)).shape
            torch.Size([5, 4, 3])
            >>> model.frozen, model.train().frozen
            (True, False)
        """
        if batch_size is not None:
            whole_number("batch_size", batch_size)
        self.eval()
        for layer in self._mergeable():
            layer.freeze(batch_size)
        self._frozen = True
        return self

    def unfreeze(self: FreezableModel) -> FreezableModel:
        """Let each layer choose at each call again and free the memory; the mode is unchanged.

        Returns:
            The model itself.
        """
        for layer in self._mergeable():
            layer.unfreeze()
        self._frozen = False
        return self

    @property
    def frozen(self) -> bool:
        """Whether the model is frozen."""
        return self._frozen and all(layer.frozen for layer in self._mergeable())

    def train(self: FreezableModel, mode: bool = True) -> FreezableModel:
        """Set the mode; training undoes :meth:`freeze`."""
        if mode:
            self._frozen = False
        return super().train(mode)

    def _mergeable(self) -> Iterator[Mergeable]:
        return (module for module in self.modules() if isinstance(module, Mergeable))
