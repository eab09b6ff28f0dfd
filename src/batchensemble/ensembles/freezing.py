"""A model that will not be trained for now: its layers choose how to compute, once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from torch import nn

from batchensemble.core.arguments import whole_number
from batchensemble.layers import Mergeable

Model = TypeVar("Model", bound="Freezable")


class Freezable(nn.Module):
    """A module whose rank-one layers can be frozen."""

    _frozen = False

    def freeze(self: Model, batch_size: int | None = None) -> Model:
        """Set evaluation mode and let each layer choose once how it computes.

        Without it a layer chooses at each call; where it keeps the members' merged weights it
        compares the shared weight with a copy at each call, so that they are never stale, and on
        other devices than CPUs, which would have to wait for that, it keeps none. A frozen layer
        chooses at its next call, stays with it, and only looks whether its parameters were replaced
        or written to since, or called with gradients; then it merges them anew. That covers
        ``load_state_dict``, edits in place, ``.to()`` and training loops. Edits through ``.data``,
        and steps of optimisers with ``fused=True`` apart from a call with gradients, leave no such
        trace: after them, call :meth:`freeze` again.

        The choice changes the speed alone. Merged weights take M times the memory of a layer's own,
        until :meth:`train` or :meth:`unfreeze`. A copy, a selection of members and a pickle are
        frozen as well and merge their own. Only calls without gradients (``torch.no_grad`` or
        ``torch.inference_mode``) use them.

        Args:
            batch_size: how many rows a member will have in a layer: examples, times tokens where
                there are such. By default as many as in the next call.

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

    def unfreeze(self: Model) -> Model:
        """Let each layer choose at each call again; the mode stays, and the memory is given back.

        Returns:
            The model itself.
        """
        for layer in self._mergeable():
            layer.unfreeze()
        self._frozen = False
        return self

    @property
    def frozen(self) -> bool:
        """Whether :meth:`freeze` was called and nothing has undone it."""
        return self._frozen and all(layer.frozen for layer in self._mergeable())

    def train(self: Model, mode: bool = True) -> Model:
        """Set the mode; training undoes :meth:`freeze`."""
        if mode:
            self._frozen = False
        return super().train(mode)

    def _mergeable(self) -> Iterator[Mergeable]:
        return (module for module in self.modules() if isinstance(module, Mergeable))
