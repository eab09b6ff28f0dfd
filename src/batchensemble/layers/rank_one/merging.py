"""Merged weights that are kept while nothing changes: evaluation at the price of plain layers.

Without gradients and in evaluation mode, members that see many rows are cheapest with weights of
their own: one batched product, and no elementwise work. Those weights are made once and kept beside
a copy of what they were made from. Each call compares the two, bit for bit, since an edit through
``.data`` leaves no other trace; that reads the shared weight once, which is little beside the
product. A frozen layer compares version counters and addresses instead, which costs nothing.

What is kept is no part of a state dictionary, of a copy or of a pickle. It takes as much memory as
the members' plain layers: M times the shared weight, and once more for the copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from batchensemble.layers.base.autocast import autocasts
from batchensemble.layers.rank_one.forward import is_transformed
from batchensemble.layers.rank_one.layer import RankOne

# Up to here it is quicker to copy the bytes and to compare copies than to compare number by number.
FEW_BYTES = 2**15

INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Kept:
    """The members' merged weights, and what tells whether they still are.

    Args:
        weights: the merged weights.
        sources: what they were made from.
        places: :func:`place` of each source, taken before the weights were made.
        copies: a copy of each source as it was then, to compare with at each use; none where the
            places suffice.
    """

    def __init__(
        self,
        weights: Tensor,
        sources: Sequence[Tensor],
        places: list[Any],
        copies: Sequence[Tensor] | None,
    ) -> None:
        self.weights, self.places = weights, places
        # They keep the sources' memory, so that no other tensor gets the same address.
        self.sources = [source.detach() for source in sources]
        pairs = () if copies is None else zip(self.sources, copies, strict=True)
        self.pairs = [_bits(source, copy) for source, copy in pairs]

    def are_of(self, places: list[Any]) -> bool:
        """Tell whether the weights would be the same if they were made now."""
        if places != self.places:
            return False
        # A generator would take as long as a comparison.
        for now, then in self.pairs:  # noqa: SIM110
            if not _equal(now, then):
                return False
        return True


@dataclass
class Frozen:
    """A choice that stays.

    Attributes:
        rows: how many rows a member has, by default those of the first call.
        merges: whether merged weights are used; ``None`` before the first call.
    """

    rows: int | None = None
    merges: bool | None = None


class Mergeable(RankOne):
    """A rank-one layer whose members' weights can be kept merged in evaluation.

    Subclasses say in :meth:`merge` how they are merged and in :meth:`merging_pays` when.
    """

    _kept: Kept | None = None
    _frozen: Frozen | None = None
    # Not where the shared weight comes and goes, see batchensemble.training.distributed.fsdp.
    keeps = True

    def merge(self, weight: Tensor, r: Tensor, s: Tensor) -> Tensor:
        """Return the members' weights, stacked."""
        raise NotImplementedError

    def merging_pays(self, x: Tensor, rows: int | None, *, compared: bool) -> bool:
        """Tell whether weights that are kept are cheaper than what the layer does without.

        Args:
            x: the input.
            rows: how many rows a member has, if other than in ``x``.
            compared: whether each call compares the shared weight with a copy.
        """
        raise NotImplementedError

    def merged(self, x: Tensor) -> Tensor | None:
        """Return the members' weights, stacked, or ``None`` where keeping them does not pay.

        Nothing is kept where somebody looks on: autograd, ``torch.func``, compilers and tracers,
        autocast, and subclasses of tensors.
        """
        if self.training or is_transformed():
            return None
        if torch.is_grad_enabled():
            if self._frozen is not None:
                self.forget()  # a step of a fused optimiser may follow, which leaves no trace
            return None
        return None if autocasts(x.device.type) else self.kept(x)

    def kept(self, x: Tensor) -> Tensor | None:
        """Return the same where it is known already that nobody looks on."""
        if not self.keeps or type(x) is not Tensor:
            return None
        frozen = self._frozen
        if frozen is None:
            # Elsewhere than on CPU a comparison waits for the device.
            if not x.is_cpu or not self.merging_pays(x, None, compared=True):
                return None
        else:
            if frozen.merges is None:
                frozen.merges = self.merging_pays(x, frozen.rows, compared=False)
            if not frozen.merges:
                return None
        return self._current(by_place=frozen is not None)

    def freeze(self, rows: int | None = None) -> None:
        """Choose once, at the next call, whether to merge; then trust places, see :class:`Kept`.

        Args:
            rows: how many rows a member will have, by default those of the next call.
        """
        self.forget()
        self._frozen = Frozen(rows)

    def unfreeze(self) -> None:
        """Choose at each call again."""
        self.forget()
        self._frozen = None

    @property
    def frozen(self) -> bool:
        """Whether the choice is made, or will be by the next call."""
        return self._frozen is not None

    def forget(self) -> None:
        """Give the memory of merged weights back."""
        self._kept = None

    def train(self, mode: bool = True) -> Mergeable:
        """Set the mode; in training nothing is kept or frozen."""
        if mode:
            self.unfreeze()
        super().train(mode)
        return self

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state.pop("_kept", None)
        return state

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        self.forget()
        return super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]

    def _current(self, *, by_place: bool) -> Tensor:
        """Return the merged weights as they would be if they were made now."""
        parameters: Any = self._parameters
        weight, r, s = sources = parameters["weight"], parameters["r"], parameters["s"]
        places = [place(weight), place(r), place(s)]
        kept = self._kept
        if kept is None or not kept.are_of(places):
            with torch.inference_mode(False), torch.no_grad():
                # Merged from the copies, they belong together though another thread writes.
                by_place = by_place and not any(source.is_inference() for source in sources)
                copies = sources if by_place else [source.clone() for source in sources]
                weights = self.merge(*copies)
                kept = Kept(weights, sources, places, None if by_place else copies)
            self._kept = kept  # whole, and at once: other threads may be reading
        return kept.weights


def place(tensor: Tensor) -> tuple[Any, ...]:
    """Return where a tensor lies, how, and how often it was written there, as far as torch knows.

    Example:
        >>> x = torch.zeros(3)
        >>> before = place(x)
        >>> x += 1
        >>> place(x) == before
        False
    """
    version = 0 if tensor.is_inference() else tensor._version
    return tensor.data_ptr(), version, tensor.dtype, tensor.shape, tensor.stride()


def _bits(one: Tensor, other: Tensor) -> tuple[Any, Any]:
    """Return two tensors as integers, few and large, in the same memory: numbers would not do.

    NaN differs from itself, and 0 equals -0.
    """
    size = one.element_size()
    kind = INTEGERS[size]
    if one.is_contiguous() and other.is_contiguous():
        one, other = one.view(-1), other.view(-1)
        if one.numel() * size % 8 == 0 and one.storage_offset() * size % 8 == 0:
            kind = torch.int64
    one, other = one.view(kind), other.view(kind)
    if one.device.type != "cpu":
        return one, other
    few = one.numel() * one.element_size() <= FEW_BYTES
    return one.numpy(), other.numpy().tobytes() if few else other.numpy()


def _equal(one: Any, other: Any) -> bool:
    """Compare bits; NumPy takes a third of torch's time, and no second thread to wait for."""
    if isinstance(other, bytes):
        return bool(one.tobytes() == other)
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    return bool((one == other).all())
