"""Graphs that are exported for batches of any size: no choice by a size may be frozen into them."""

from __future__ import annotations

from typing import Any

import torch


def is_exported() -> bool:
    """Tell whether ``torch.export`` traces a graph, in which the batch is a symbol."""
    exporting: Any = getattr(torch.compiler, "is_exporting", None)  # of torch 2.7 and later
    return bool(exporting is not None and exporting())


def holds(condition: Any) -> bool:
    """Tell whether a comparison of sizes is true; in an exported graph, whether it always is.

    There it is false where it depends on the size of the batch, which it would otherwise fix.

    Example:
        >>> holds(2 == 2)
        True
    """
    if not is_exported():
        return bool(condition)
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return statically_known_true(condition)
