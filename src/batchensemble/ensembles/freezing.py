"""Freeze a model: for inference, or in training all weights but some."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TypeVar

from torch import nn

from batchensemble.core.arguments import one_of, whole_number
from batchensemble.ensembles.conversion.parameter_groups import PARTS, parts_of
from batchensemble.layers import Mergeable, Twin

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

    def train_only(self: FreezableModel, *parts: str) -> FreezableModel:
        """Train these parts of the weights and freeze all others.

        Args:
            parts: any of ``"fast"``: the members' fast weights; ``"bias"``: biases; ``"norm"``: the
                weights of norm layers, and vectors that a module holds itself, such as a class
                token; ``"heads"``: layers of which each member has its own copy, from
                ``independent=`` or ``heads=``; ``"shared"``: all other weights. Biases and norms
                that all members share are among theirs.

        Returns:
            The model itself.

        Raises:
            ValueError: a part is unknown, or the model has none of these parts; nothing is changed.

        Example:
            >>> from batchensemble import BatchEnsemble
            >>> model = BatchEnsemble(nn.Linear(2, 3), members=4).train_only("fast")
            >>> [name for name, each in model.named_parameters() if each.requires_grad]
            ['network.r', 'network.s']
        """
        chosen = {one_of("train_only", part, PARTS) for part in parts}
        found = parts_of(self.network)  # type: ignore[arg-type]
        if not chosen & {*found.values()}:
            there = ", ".join(part for part in PARTS if part in found.values())
            raise ValueError(
                f"train_only must name at least one part that the model has, of {there}, got "
                f"{', '.join(parts) or 'none'}"
            )
        set_trained(self, {each for each, part in found.items() if part in chosen})
        return self

    def _mergeable(self) -> Iterator[Mergeable]:
        return (module for module in self.modules() if isinstance(module, Mergeable))


def set_trained(model: nn.Module, trained: Collection[nn.Parameter]) -> None:
    """Train these parameters of a model and freeze all others, in the members to be extracted too.

    Args:
        model: an ensemble.
        trained: some of its parameters; those that are whole numbers are frozen all the same.
    """
    for parameter in model.parameters():
        numbers = parameter.is_floating_point() or parameter.is_complex()
        parameter.requires_grad_(numbers and parameter in trained)
    for module in model.modules():
        if isinstance(module, Twin):
            for name, parameter in module.shell.named_parameters():
                own = getattr(module, name, None)
                if isinstance(own, nn.Parameter):
                    parameter.requires_grad_(own.requires_grad)
