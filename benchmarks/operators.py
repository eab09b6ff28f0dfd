"""What must happen before torchvision is imported, by us or by another library."""

from __future__ import annotations

import sys

from benchmarks.pages import ROOT


def declare_operators() -> None:
    """Declare torchvision's operators where its build and torch's do not fit.

    A call rather than an import at each place, which sorting could move behind torchvision's own.
    """
    zoo = str(ROOT / "tests" / "zoo")
    if zoo not in sys.path:
        sys.path.append(zoo)
    import torchvision_operators  # noqa: F401
