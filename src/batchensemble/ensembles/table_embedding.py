"""How the columns of a table enter a network: numbers, flags and categories to one vector a row.

Numbers get piecewise-linear embeddings (Gorishniy et al. 2022, arXiv 2203.05556, as in TabM, arXiv
2410.24210), categories with few levels are one-hot, and those with many have learnt vectors.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from rtdl_num_embeddings import compute_bins
from torch import Tensor, nn

from batchensemble.core.arguments import whole_number

MOST_BINS = 48
MOST_SORTED = 2**24  # that torch.quantile takes
NARROWEST = 1e-4  # width of a bin relative to the range of its column


def table_bins(numbers: Float[Tensor, "rows numbers"], most: int = MOST_BINS) -> list[Tensor]:
    """Return the edges of each column's bins, at the quantiles of the training rows.

    Args:
        numbers: the training rows, finite.
        most: most bins of a column; there are fewer where rows or different values are few.

    Returns:
        For each column at least two edges, increasing. A constant column gets one bin around its
        value. Edges that almost coincide become one, since a number beyond the last edge is
        measured in widths of the last bin.

    Raises:
        TypeError: ``most`` is not a whole number.
        ValueError: ``most`` is below 1, there are no rows, or a number is not finite.

    Example:
        >>> [len(edges) for edges in table_bins(torch.tensor([[1.0, 5.0], [2.0, 5.0]]))]
        [2, 2]
    """
    most = whole_number("most", most)
    rows, columns = numbers.shape
    if not rows:
        raise ValueError("bins need at least one row, got none")
    if not numbers.isfinite().all():
        raise ValueError("bins need finite numbers, got NaN or infinity; fill the gaps first")
    low, high = numbers.amin(0), numbers.amax(0)
    bins = [torch.stack([value - 0.5, value + 0.5]) for value in low]
    varied = [index for index in range(columns) if low[index] < high[index]]
    count = min(most, rows - 1)
    if not varied:
        return bins
    if count < 2:
        for index in varied:
            bins[index] = torch.stack([low[index], high[index]])
        return bins
    chosen = numbers[:, varied]
    step = -(-chosen.numel() // MOST_SORTED)
    if step > 1:
        # The outer edges are the extremes, which may not be among the rows chosen.
        chosen = torch.cat([chosen[::step], low[None, varied], high[None, varied]])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*has just two bin edges")
        found = compute_bins(chosen, count)
    for index, edges in zip(varied, found, strict=True):
        bins[index] = _apart(edges)
    return bins


def _apart(edges: Tensor) -> Tensor:
    """Return edges without those that almost coincide with the one before or the last."""
    least = NARROWEST * float(edges[-1] - edges[0])
    kept = [float(edges[0])]
    for edge in edges[1:-1].tolist():
        if edge - kept[-1] > least and float(edges[-1]) - edge > least:
            kept.append(edge)
    return torch.tensor([*kept, float(edges[-1])], dtype=edges.dtype, device=edges.device)


class NumberEmbeddings(nn.Module):
    """Piecewise-linear embeddings of numbers, one function from a number to a vector a column.

    What ``PiecewiseLinearEmbeddings(..., activation=False, version="B")`` of
    ``rtdl_num_embeddings`` computes, in half of its time on a CPU: the linear part is one more
    channel of the encoding, and one clamp with bounds for each channel replaces three that are
    concatenated. At the start an embedding is linear, and its steps are learnt.

    Shape:
        ``[batch, numbers]`` to ``[batch, numbers * width]``, column by column.

    Args:
        bins: edges of each column's bins, see :func:`table_bins`; or for ``numbers`` columns a
            number of bins at the quantiles of the standard normal.
        width: numbers in each embedding.
        numbers: number of columns where ``bins`` is a number.

    Example:
        >>> NumberEmbeddings(table_bins(torch.randn(100, 3)), 8)(torch.randn(5, 3)).shape
        torch.Size([5, 24])
    """

    slope: Tensor
    offset: Tensor
    lowest: Tensor
    highest: Tensor

    def __init__(self, bins: Sequence[Tensor] | int, width: int, numbers: int = 0) -> None:
        super().__init__()
        if not isinstance(bins, Sequence):
            # On torch's meta device these have no values, and loaded ones will replace them.
            # Loading a network of transformers can make linspace forget the default device.
            end = torch.full((1,), 4.0)
            levels = torch.linspace(0, 1, int(bins) + 1, device=end.device)[1:-1]
            edges = torch.cat([-end, torch.special.ndtri(levels), end])
            channels = _channels(edges, int(bins)).expand(numbers, -1, -1)
        else:
            most = max(len(edges) - 1 for edges in bins)
            typed = [edges.to(torch.get_default_dtype()) for edges in bins]
            channels = torch.stack([_channels(edges, most) for edges in typed])
            numbers = len(channels)
        for index, name in enumerate(("slope", "offset", "lowest", "highest")):
            self.register_buffer(name, channels[:, None, index].contiguous())
        self.weight = nn.Parameter(torch.empty(numbers, self.slope.shape[-1], width))
        self.bias = nn.Parameter(torch.empty(numbers * width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw linear embeddings, as ``rtdl_num_embeddings`` does."""
        bound = self.weight.shape[-1] ** -0.5
        nn.init.zeros_(self.weight)
        nn.init.uniform_(self.weight[:, -1], -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Embed each number."""
        encoded = torch.addcmul(self.offset, self.slope, x.t()[:, :, None])
        encoded.clamp_(self.lowest, self.highest)
        return torch.bmm(encoded, self.weight).transpose(0, 1).flatten(1) + self.bias


def _channels(edges: Tensor, most: int) -> Tensor:
    """Return slope, offset and bounds of a column's channels: ``most`` bins, then the number."""
    width = edges.diff()
    infinite = torch.full((1,), torch.inf)
    steps = torch.zeros(len(width) - 1)
    # Outside the outer edges the encoding goes on linearly.
    lowest, highest = torch.cat([-infinite, steps]), torch.cat([steps + 1, infinite])
    unused = torch.zeros(most - len(width))
    ends = (torch.ones(1), torch.zeros(1), -infinite, infinite)
    parts = (1 / width, -edges[:-1] / width, lowest, highest)
    return torch.stack([torch.cat(three) for three in zip(parts, [unused] * 4, ends, strict=True)])


class CategoryEmbeddings(nn.Module):
    """Learnt vectors of the levels of categories, all in one table.

    Shape:
        codes ``[batch, categories]`` as whole numbers in floats, 0 for unknown, to ``[batch,
        categories * width]``.

    Args:
        levels: number of known levels of each category; others count as unknown.
        width: numbers in each vector.

    Example:
        >>> CategoryEmbeddings([100, 5], 8)(torch.tensor([[0.0, 1.0], [100.0, 9.0]])).shape
        torch.Size([2, 16])
    """

    last: Tensor
    start: Tensor

    def __init__(self, levels: Sequence[int], width: int) -> None:
        super().__init__()
        last = torch.tensor(levels, dtype=torch.get_default_dtype())
        sizes = torch.tensor(levels) + 1
        self.register_buffer("last", last)
        self.register_buffer("start", sizes.cumsum(0) - sizes)
        self.weight = nn.Parameter(torch.empty(sum(levels) + len(levels), width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the vectors of known levels; those of the unknown are 0."""
        nn.init.normal_(self.weight, std=self.weight.shape[-1] ** -0.5)
        with torch.no_grad():
            self.weight[self.start] = 0.0

    def forward(self, codes: Tensor) -> Tensor:
        """Look the levels up."""
        known = (codes >= 0) & (codes <= self.last)
        rows = codes.where(known, 0.0).long() + self.start
        return F.embedding(rows, self.weight).flatten(1)


class OneHot(nn.Module):
    """Categories as one indicator a known level; an unknown level has none.

    Shape:
        codes ``[batch, categories]`` as whole numbers in floats, 0 for unknown, to ``[batch,
        sum(levels)]``.

    Args:
        levels: number of known levels of each category.

    Example:
        >>> OneHot([2, 3])(torch.tensor([[2.0, 0.0], [1.0, 3.0]])).tolist()
        [[0.0, 1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0, 1.0]]
    """

    category: Tensor
    level: Tensor

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__()
        total, counts = sum(levels), torch.tensor(levels)
        category = torch.arange(len(levels)).repeat_interleave(counts, output_size=total)
        start = (counts.cumsum(0) - counts).repeat_interleave(counts, output_size=total)
        level = (torch.arange(total) - start + 1).to(torch.get_default_dtype())
        self.register_buffer("category", category)
        self.register_buffer("level", level)

    def forward(self, codes: Tensor) -> Tensor:
        """Compare each code with each level."""
        return (codes.index_select(1, self.category) == self.level).to(codes.dtype)
