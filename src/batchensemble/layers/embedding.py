"""Twins of the embeddings: rows and columns of the table are scaled for each member."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from batchensemble.layers.base.rows import RUNNING, AmbiguousAxisError, enter, join, leave, row_axis
from batchensemble.layers.rank_one.fast_weights import Layout
from batchensemble.layers.rank_one.layer import RankOne


class RankOneTable(RankOne):
    """Base class of both embeddings: a shared table, whose rows are the inputs."""

    matrices = ("weight",)

    def __init__(self, layer: nn.Embedding | nn.EmbeddingBag, members: int, **options: Any) -> None:
        super().__init__(layer, members, **options)
        # A merged table has no sparse gradient; extracted members have one again.
        self.sparse, self.shell.sparse = layer.sparse, False

    def layout(self, layer: nn.Module, name: str) -> Layout:
        """Return how fast weights lie along the table."""
        return Layout(tuple(getattr(layer, name).shape), inputs_first=True)

    def member(self, index: int) -> nn.Module:
        """Return the plain layer that member ``index`` is."""
        plain: Any = super().member(index)
        plain.sparse = self.sparse
        return plain


class RankOneEmbedding(RankOneTable):
    """An embedding whose members share the table; ``r`` scales its rows, ``s`` its columns.

    Shape:
        indices ``[members * batch, ...]`` to ``[members * batch, ..., columns]``.

    Example:
        >>> twin = RankOneEmbedding(nn.Embedding(10, 4), members=3)
        >>> twin(torch.zeros(3 * 2, 7, dtype=torch.long)).shape
        torch.Size([6, 7, 4])
    """

    def forward(self, numbers: Tensor) -> Tensor:
        """Look up each member's rows of the table."""
        if RUNNING.member is not None:
            return self.run_member(RUNNING.member, numbers)
        axis = row_axis(self, numbers, numbers.dim())
        numbers, times = enter(numbers, axis, self.members)
        front = numbers.movedim(axis, 0)
        y = self._look_up(front.reshape(self.members, front.numel() // self.members))
        y = y.view(*front.shape, self.embedding_dim)
        return leave(y.movedim(0, axis), axis, times)

    def _look_up(self, numbers: Tensor) -> Tensor:
        """Return the embeddings ``[members, indices, columns]``."""
        weight, r, s = self.weight, self.r, self.s
        y = F.embedding(numbers, weight, self.padding_idx, sparse=self.sparse)
        if self.options.mode == "multiplicative":
            changed = y * s.unsqueeze(1) * r.gather(1, numbers).unsqueeze(-1)
        else:
            chosen = r.gather(2, numbers.unsqueeze(1).expand(-1, r.shape[1], -1))
            changed = y + self.options.scale * (chosen.mT @ s)
        if self.padding_idx is None:
            return changed
        padding = (numbers == self.padding_idx).unsqueeze(-1)  # it gets no gradient
        return torch.where(padding, changed.detach(), changed)


class RankOneEmbeddingBag(RankOneTable):
    """A bag of embeddings whose members share the table; its gradient is never sparse.

    Shape:
        indices ``[members * batch, bag]``, or ``[indices]`` with ``offsets [members * batch]``, to
        ``[members * batch, columns]``.
    """

    def __init__(self, layer: nn.EmbeddingBag, members: int, **options: Any) -> None:
        super().__init__(layer, members, **{**options, "batch_axis": 0})

    def forward(
        self,
        input: Tensor,
        offsets: Tensor | None = None,
        per_sample_weights: Tensor | None = None,
    ) -> Tensor:
        """Reduce each bag by sum, mean or maximum, in each member's table."""
        if RUNNING.member is not None or offsets is None:
            return self.one_by_one(input, offsets, per_sample_weights)
        if len(offsets) % self.members or self.include_last_offset:
            raise ValueError(
                f"{self.name or 'a layer'!r} takes the offsets of {self.members} members' bags, "
                f"without the last offset, got {list(offsets.shape)}; or give it indices of shape "
                "[batch, bag]"
            )
        outputs = []
        for index, (own, part) in enumerate(self._bags(len(input), offsets)):
            weights = None if per_sample_weights is None else per_sample_weights[part]
            outputs.append(self.run_member(index, input[part], own, weights))
        return join(outputs)

    def _bags(self, count: int, offsets: Tensor) -> list[tuple[Tensor, slice]]:
        """Return each member's offsets, and the slice of the ``count`` indices they refer to."""
        each = offsets.view(self.members, -1)
        if bool((each == each[0]).all()):  # an ensemble repeats offsets, which are per example,
            if not self._repeats_numbers(count, len(offsets)):  # and often not the flat numbers
                return [(own, slice(0, count)) for own in each]
            members = torch.arange(self.members, device=each.device)
            each = each + count // self.members * members.unsqueeze(1)
        firsts = each[:, 0].tolist()
        ends = [*firsts[1:], count]
        return [
            (own - first, slice(first, end))
            for own, first, end in zip(each, firsts, ends, strict=True)
        ]

    def _repeats_numbers(self, count: int, bags: int) -> bool:
        """Return whether the ensemble repeated the indices, too, as with one index per bag."""
        if RUNNING.rows is None or not bags or count != bags:
            return False
        if self.learned_axis is None:
            raise AmbiguousAxisError(self.name)
        return self.learned_axis == 0
