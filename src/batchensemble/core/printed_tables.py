"""Small tables: for notebooks as HTML in which every text is escaped, and for the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from rich.table import Table

MOST_ROWS = 5
SMALL, LARGE = 1e-3, 1e9  # where decimals show nothing, or too much


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table as HTML; the first cell of each row is its header.

    Args:
        caption: of the table.
        heads: headers of the columns.
        rows: text, and numbers, which are shown with four digits.

    Example:
        >>> table("a < b", ["x", "y"], [["one", 0.12345]])
        '<table><caption>a &lt; b</caption><thead><tr><th scope="col">x</th>...0.1235</td></tr>...'
    """
    top = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    lines = []
    for head, *cells in rows:
        row = "".join(f"<td>{escape(text(cell))}</td>" for cell in cells)
        lines.append(f'<tr><th scope="row">{escape(text(head))}</th>{row}</tr>')
    return (
        f"<table><caption>{escape(caption)}</caption><thead><tr>{top}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table>"
    )


def text(value: Any) -> str:
    """Return the text of a cell.

    Example:
        >>> text(3), text([0.5, 1 / 3]), text(None)
        ('3', '0.5, 0.3333', '-')
    """
    if value is None:
        return "-"
    if isinstance(value, (list, tuple)):
        return ", ".join(text(each) for each in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def formatted(number: float, form: str = ".4g") -> str:
    """Return a number in a format, in full where that would write a power of ten below a billion.

    Example:
        >>> formatted(0.000012), formatted(2441.3), formatted(13519.6), formatted(4.649e6, "+.3g")
        ('1.2e-05', '2441', '13,520', '+4,649,000')
    """
    text = format(number, form).rstrip(".")
    if "e+" not in text or abs(number) >= LARGE:
        return text
    return format(number, "+,.0f" if form.startswith("+") else ",.0f")


def significant(number: float) -> str:
    """Return a score with four decimals, or with five digits where it is large.

    Example:
        >>> [significant(each) for each in (0.97, 72449.8237, 2163.4383, 12.45484, 2e-6)]
        ['0.9700', '72,450', '2,163.4', '12.455', '2e-06']
    """
    if not math.isfinite(number):
        return "-" if math.isnan(number) else str(number)
    if 0 < abs(number) < SMALL or abs(number) >= LARGE:
        return f"{number:.3g}"
    decimals = 5 - len(str(int(abs(number))))
    return f"{number:,.{max(decimals, 0)}f}"


def first_examples(caption: str, columns: Mapping[str, np.ndarray]) -> str:
    """Return the first examples as a table, or the means where an example has several numbers.

    Args:
        caption: what it shows.
        columns: ``[examples, ...]``, by name.

    Example:
        >>> "first 2 of 2" in first_examples("two", {"mean": np.array([0.5, 1.0])})
        True
    """
    if any(values.ndim > 1 for values in columns.values()):
        means = [float(values.mean()) for values in columns.values()]
        return table(f"{caption}; means", ["", *columns], [["mean", *means]])
    count = len(next(iter(columns.values())))
    shown = min(MOST_ROWS, count)
    rows = ([row, *(values[row].item() for values in columns.values())] for row in range(shown))
    return table(f"{caption}; first {shown} of {count:,}", ["example", *columns], rows)


def terminal_table(title: str) -> Table:
    """Return an empty table for the terminal, its title on the left."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    return Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
