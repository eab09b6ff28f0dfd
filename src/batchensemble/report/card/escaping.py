"""Texts on a card: escaped, unless they are Markdown of the library itself."""

from __future__ import annotations

from typing import Any

from batchensemble.comparison.wording import printable
from batchensemble.report.markdown import markdown_text

LONGEST_CELL = 99


class Raw(str):
    """Text that is Markdown already, and is not escaped."""


def escaped(value: Any) -> str:
    """Return a value as Markdown on one line: escaped, unless it is :class:`Raw`.

    Example:
        >>> print(escaped("a|b\\n# <i>"), escaped(Raw("**a**")))
        a\\|b \\# &lt;i&gt; **a**
    """
    return value if isinstance(value, Raw) else markdown_text(printable(str(value)))


def shortened(name: str) -> str:
    """Return a name that a folder gives, cut if it is too long for a table.

    Example:
        >>> shortened("width"), len(shortened("x" * 1000))
        ('width', 99)
    """
    return name if len(name) <= LONGEST_CELL else f"{name[: LONGEST_CELL - 1]}…"
