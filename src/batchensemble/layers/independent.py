"""M copies of any module, each with its own rows: slower than a stacked twin, right for all."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Independent(nn.Module):
    """One copy of a module for each member; member ``m`` sees only its own rows.

    Shape:
        rows ``[members * batch, ...]``, member-major, to rows of the same order.

    Args:
        modules: one module a member; they are kept, not copied.

    Example:
        >>> twin = Independent([nn.Flatten(), nn.Flatten()])
        >>> twin(torch.zeros(6, 2, 5)).shape
        torch.Size([6, 10])
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        self.copies = nn.ModuleList(modules)
        self.members = len(modules)

    def forward(self, rows: Tensor) -> Tensor:
        """Give each copy its member's rows."""
        parts = rows.view(self.members, len(rows) // self.members, *rows.shape[1:]).unbind(0)
        outputs = (module(part) for module, part in zip(self.copies, parts, strict=True))
        return torch.cat(list(outputs))

    def member(self, index: int) -> nn.Module:
        """Return a copy of member ``index``'s module."""
        return copy.deepcopy(self.copies[index])
