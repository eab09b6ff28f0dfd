"""Twins of recurrent and bilinear layers, whose members run one after the other.

Merging the weights of each member once is cheap compared with all steps of a sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from batchensemble.layers.base.rows import (
    RUNNING,
    NotPerExampleError,
    find_rows,
    join,
    repeated,
    split,
)
from batchensemble.layers.independent import Independent
from batchensemble.layers.rank_one.layer import RankOne

State = Tensor | tuple[Tensor, Tensor]


class RecurrentRows(nn.Module):
    """Mixin for the rows of recurrent layers, which are on the second axis of states."""

    members: int
    batch_axis: int
    run_member: Callable[..., Any]

    def forward(
        self, input: Tensor | PackedSequence, hx: State | None = None
    ) -> tuple[Tensor | PackedSequence, State]:
        """Run each member's layer over its sequences."""
        if RUNNING.member is not None:
            return self.run_member(RUNNING.member, input, hx)
        if isinstance(input, Tensor) and input.dim() != 3:
            raise NotPerExampleError(str(self.name), input.shape, self.members)
        axis, times = find_rows(self, input, (self.batch_axis,))
        parts = zip(split(input, self.members, axis), split(hx, self.members, 1), strict=True)
        outputs = [self.run_member(index, *both) for index, both in enumerate(parts)]
        ys, ends = zip(*outputs, strict=True)
        return repeated(self, join(ys, axis), axis, times), repeated(self, join(ends, 1), 1, times)


class RankOneRecurrent(RecurrentRows, RankOne):
    """``RNN``, ``LSTM`` and ``GRU``: rank-one weights in each layer and direction.

    Shape:
        as the plain layer, with ``members * batch`` sequences, packed or not, and initial states
        of as many.

    Example:
        >>> import torch
        >>> twin = RankOneRecurrent(nn.GRU(3, 4, batch_first=True), members=5)
        >>> [each.shape for each in twin(torch.zeros(5 * 2, 7, 3))]
        [torch.Size([10, 7, 4]), torch.Size([1, 10, 4])]
    """

    def __init__(self, layer: nn.RNNBase, members: int, **options: Any) -> None:
        names = [name for name in layer._flat_weights_names if name.startswith("weight")]
        self.matrices = names
        super().__init__(layer, members, **{**options, "batch_axis": 0 if layer.batch_first else 1})


class IndependentRecurrent(RecurrentRows, Independent):
    """One recurrent layer for each member."""

    def __init__(self, modules: Sequence[nn.RNNBase], batch_axis: int = 0) -> None:
        super().__init__(modules, 0 if modules[0].batch_first else 1)


class RankOneCell(RankOne):
    """``RNNCell``, ``LSTMCell`` and ``GRUCell``."""

    matrices = ("weight_ih", "weight_hh")

    def __init__(self, layer: nn.Module, members: int, **options: Any) -> None:
        super().__init__(layer, members, **{**options, "batch_axis": 0})


class RankOneBilinear(RankOne):
    """``Bilinear``: ``r`` scales the first input; the second is the same for all members."""

    matrices = ("weight",)
