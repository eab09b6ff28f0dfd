"""Run members one by one: M copies of any module, or one module once for each member."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from torch import nn

from batchensemble.layers.base.rows import each_member, running


class Independent(nn.Module):
    """One copy of a module for each member; member ``m`` sees only its own rows.

    Shape:
        rows ``[members * batch, ...]``, member-major, to rows of the same order; in nested
        arguments and outputs too.

    Args:
        modules: one module for each member, used themselves, not copied.
        batch_axis: axis of the rows, 0 (default) or 1.

    Example:
        >>> import torch
        >>> twin = Independent([nn.Flatten(), nn.Flatten()])
        >>> twin(torch.zeros(6, 2, 5)).shape
        torch.Size([6, 10])
    """

    sharing = "independent"
    name = ""

    def __init__(self, modules: Sequence[nn.Module], batch_axis: int = 0) -> None:
        super().__init__()
        self.copies = nn.ModuleList(modules)
        self.members, self.batch_axis = len(modules), batch_axis
        self.train(modules[0].training)

    def __getattr__(self, name: str) -> Any:
        """Return other attributes, such as settings, from the first copy."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("__") or "copies" not in self.__dict__.get("_modules", {}):
                raise
            return getattr(self.copies[0], name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run each copy on its member's rows."""
        return each_member(self, self.run_member, *args, **kwargs)

    def run_member(self, index: int, *args: Any, **kwargs: Any) -> Any:
        """Run the copy of member ``index``."""
        return self.copies[index](*args, **kwargs)

    def member(self, index: int) -> nn.Module:
        """Return a copy of member ``index``'s module."""
        return copy.deepcopy(self.copies[index])

    def keep(self, indices: list[int]) -> None:
        """Keep only these members, in this order, in place."""
        self.copies = nn.ModuleList([copy.deepcopy(self.copies[index]) for index in indices])
        self.members = len(indices)

    def put(self, index: int, module: nn.Module) -> None:
        """Set member ``index`` to a copy of ``module``, in place."""
        self.copies[index] = copy.deepcopy(module)


class OneByOne(nn.Module):
    """A converted module that runs once for each member, on that member's rows.

    For modules that reorder or select rows depending on the data, such as a mixture of experts,
    after which the member of a row could not be known.

    Args:
        module: a converted module.
        members: number of members (M).
        batch_axis: axis of the rows, 0 (default) or 1.
    """

    name = ""

    def __init__(self, module: nn.Module, members: int, batch_axis: int = 0) -> None:
        super().__init__()
        self.module = module
        self.members, self.batch_axis = members, batch_axis
        self.training = module.training

    def __getattr__(self, name: str) -> Any:
        """Return other attributes, such as settings, from the module."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("__") or "module" not in self.__dict__.get("_modules", {}):
                raise
            return getattr(self.module, name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the module once for each member."""
        return each_member(self, self.run_member, *args, **kwargs)

    def run_member(self, index: int, *args: Any, **kwargs: Any) -> Any:
        """Run the module for member ``index`` alone."""
        with running(member=index):
            return self.module(*args, **kwargs)
