"""The network of tables: embedded columns, a perceptron and a head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from batchensemble.core.arguments import fraction, whole_number
from batchensemble.ensembles.table_embedding import (
    MOST_BINS,
    CategoryEmbeddings,
    NumberEmbeddings,
    OneHot,
)
from batchensemble.layers.dropout import ByteDropout


class TableEmbedding(nn.Module):
    """Rows of a table as one vector each: embedded numbers, flags, categories.

    Shape:
        ``[batch, numbers + flags + categories]``, in this order, to ``[batch, width]``: embedded
        numbers, flags, one-hot categories, embedded categories.

    Args:
        numbers, flags, levels, bins, d_embedding, most_one_hot, d_category: see
            :class:`TableNetwork`.

    Attributes:
        sections: width of each column's part of the output, in its order.
    """

    def __init__(
        self,
        numbers: int,
        flags: int,
        levels: Sequence[int],
        bins: Sequence[Tensor] | int,
        d_embedding: int,
        most_one_hot: int,
        d_category: int,
    ) -> None:
        super().__init__()
        few = [index for index, count in enumerate(levels) if count <= most_one_hot]
        many = [index for index, count in enumerate(levels) if count > most_one_hot]
        self.parts = numbers, flags, len(levels)
        self.numbers = NumberEmbeddings(bins, d_embedding, numbers) if numbers else None
        self.one_hot = OneHot([levels[index] for index in few]) if few else None
        self.categories = None
        if many:
            self.categories = CategoryEmbeddings([levels[index] for index in many], d_category)
        for name, chosen in (("few", few), ("many", many)):
            # Where all categories are of one kind, none has to be chosen.
            index = torch.tensor(chosen) if few and many else None
            self.register_buffer(name, index)
        self.sections = (
            *[d_embedding] * numbers,
            *[1] * flags,
            *(levels[index] for index in few),
            *[d_category] * len(many),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Embed the columns of each row."""
        numbers, flags, codes = x.split(self.parts, -1)
        parts = [] if self.numbers is None else [self.numbers(numbers)]
        if flags.shape[-1]:
            parts.append(flags)
        for layer, chosen in ((self.one_hot, self.few), (self.categories, self.many)):
            if layer is not None:
                parts.append(layer(codes if chosen is None else codes.index_select(1, chosen)))
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


class TableNetwork(nn.Module):
    """A perceptron on the embedded columns of a table, as in TabM (arXiv 2410.24210).

    Its modules are ``embedding``, ``backbone`` and ``head``: an ensemble with
    ``branch_at="backbone"`` embeds each row once for all members.

    Shape:
        ``[batch, numbers + flags + categories]``, in this order, to ``[batch, outputs]``. Numbers
        are of about the standard normal; flags are used as they are; categories are whole numbers
        held in floats, 0 for unknown and 1 to ``levels`` for the known levels.

    Args:
        numbers: number of columns of numbers.
        flags: number of columns of flags: indicators, or numbers of about -1 to 1.
        levels: number of known levels of each category.
        outputs: number of outputs.
        hidden: widths of the hidden layers, each followed by ReLU and dropout.
        dropout: probability of dropout, 0 to below 1; on the CPU to the nearest 256th.
        bins: edges of the bins of each number, see
            :func:`~batchensemble.ensembles.table_embedding.table_bins`; by default 48 bins, or the
            number of bins given, at the quantiles of the standard normal.
        d_embedding: width of the embedding of a number.
        most_one_hot: most levels of a category that is one-hot; those with more are embedded.
        d_category: width of the embedding of a level.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of range, or there are no columns.

    Example:
        >>> network = TableNetwork(numbers=3, flags=1, levels=[4], outputs=2)
        >>> network(torch.zeros(5, 5)).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        numbers: int,
        flags: int,
        levels: Sequence[int],
        outputs: int,
        *,
        hidden: Sequence[int] = (128, 128),
        dropout: float = 0.1,
        bins: Sequence[Tensor] | int = MOST_BINS,
        d_embedding: int = 8,
        most_one_hot: int = 32,
        d_category: int = 16,
    ) -> None:
        super().__init__()
        numbers = whole_number("numbers", numbers, at_least=0)
        flags = whole_number("flags", flags, at_least=0)
        levels = [whole_number("levels", each) for each in levels]
        hidden = [whole_number("hidden", each) for each in hidden]
        if not numbers + flags + len(levels):
            raise ValueError("a table needs at least one column of numbers, flags or levels")
        if not hidden:
            raise ValueError("hidden must have at least one width, got none")
        if fraction("dropout", dropout) == 1:
            raise ValueError("dropout must be below 1, got 1")
        count = _bins(bins, numbers)
        self._arguments = {
            "numbers": numbers,
            "flags": flags,
            "levels": levels,
            "outputs": whole_number("outputs", outputs),
            "hidden": hidden,
            "dropout": float(dropout),
            "bins": count,
            "d_embedding": whole_number("d_embedding", d_embedding),
            "most_one_hot": whole_number("most_one_hot", most_one_hot, at_least=0),
            "d_category": whole_number("d_category", d_category),
        }
        self.embedding = TableEmbedding(
            numbers,
            flags,
            levels,
            bins if isinstance(bins, Sequence) else count,
            d_embedding,
            most_one_hot,
            d_category,
        )
        layers: list[nn.Module] = []
        for inputs, width in pairwise([sum(self.sections), *hidden]):
            layers += [nn.Linear(inputs, width), nn.ReLU()]
            if dropout:
                layers.append(ByteDropout(dropout))
        self.backbone = nn.Sequential(*layers)
        self.head = nn.Linear(hidden[-1], outputs)

    @property
    def sections(self) -> tuple[int, ...]:
        """Width of each column's part of the embedded row, in the order of the parts."""
        return self.embedding.sections

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of each row."""
        return self.head(self.backbone(self.embedding(x)))

    def to_dict(self) -> dict[str, Any]:
        """Return how to build such a network, as JSON can hold it; all values are its weights.

        Example:
            >>> made = TableNetwork.from_dict(TableNetwork(2, 0, [3], outputs=1).to_dict())
            >>> made.sections
            (8, 8, 3)
        """
        found = {
            name: list(value) if isinstance(value, list) else value
            for name, value in self._arguments.items()
        }
        return {**found, "outputs": getattr(self.head, "out_features", found["outputs"])}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TableNetwork:
        """Return a new network of this architecture.

        Raises:
            TypeError: a value has the wrong type, or is missing.
            ValueError: a value is out of range.
        """
        return cls(**values)


def _bins(bins: Sequence[Tensor] | int, numbers: int) -> int:
    """Return the largest number of bins of a column.

    Raises:
        ValueError: there are not as many as numbers, or edges do not increase.
    """
    if not isinstance(bins, Sequence):
        return whole_number("bins", bins)
    if len(bins) != numbers:
        raise ValueError(f"bins must be given for each of {numbers} numbers, got {len(bins)}")
    for edges in bins:
        if edges.dim() != 1 or len(edges) < 2 or not (edges.diff() > 0).all():
            raise ValueError("edges of bins must be at least two numbers that increase")
        if not edges.isfinite().all():
            raise ValueError("edges of bins must be finite")
    return max((len(edges) - 1 for edges in bins), default=1)
