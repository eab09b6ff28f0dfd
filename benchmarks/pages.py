"""How numbers get onto a page of docs/: kept as files, made into tables, put between marks.

A page is prose with pairs of marks, and what scripts found stands between them. Nothing beyond
Python is needed before a table is printed: a room may have to set up its environment first.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
THREADS = 2

Lines = Sequence[Sequence[str]]  # the first is the heading


def write_texts(page: Path, texts: Mapping[str, str]) -> None:
    """Put texts into a page, each between the marks of its name; all of them or none.

    Raises:
        ValueError: the page lacks a mark, has it twice, or has the two in the wrong order.
    """
    found = page.read_text(encoding="utf-8")
    for name, text in texts.items():
        found = between(found, name, text)
    page.write_text(found, encoding="utf-8")


def marks(name: str) -> tuple[str, str]:
    """Return the lines before and after a text."""
    return f"<!-- {name}, written by a script -->", f"<!-- end of {name} -->"


def between(page: str, name: str, text: str) -> str:
    """Return the page with ``text`` between two marks.

    Raises:
        ValueError: the page lacks a mark, has it twice, or has the two in the wrong order.
    """
    start, end = marks(name)
    if page.count(start) != 1 or page.count(end) != 1 or page.index(start) > page.index(end):
        raise ValueError(f"the page must hold the lines {start!r} and {end!r}, once and in order")
    return f"{page.split(start)[0]}{start}\n\n{text}\n\n{end}{page.split(end)[1]}"


def as_markdown(lines: Lines, *, text_columns: int = 1, note: str = "") -> str:
    """Return a table for a page.

    Args:
        lines: the heading and the rows.
        text_columns: how many stand on the left; numbers are flush right.
        note: a line below it.
    """
    rule = [*["---"] * text_columns, *["---:"] * (len(lines[0]) - text_columns)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))
    return f"{table}\n\n*{note}*" if note else table


def as_rich(title: str, lines: Lines, *, text_columns: int = 1, ruled: bool = False) -> Table:
    """Return a table for the terminal.

    Args:
        title: above it.
        lines: the heading and the rows.
        text_columns: how many stand on the left; numbers are flush right.
        ruled: a line between rows, for cells of several lines.
    """
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, show_lines=ruled)
    for number, heading in enumerate(lines[0]):
        table.add_column(heading, justify="right" if number >= text_columns else "left")
    for line in lines[1:]:
        table.add_row(*map(escape, line))
    return table


def keep(file: Path, found: Any) -> None:
    """Keep what was found as JSON, so that its page can be written again without measuring."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found, indent=1), encoding="utf-8")


def kept(file: Path) -> Any:
    """Return what was kept, ``None`` where nothing was."""
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def machine(runs_on: str | None = None) -> str:
    """Return the day, the machine and its versions in a line.

    Args:
        runs_on: what of it is used, the name of a GPU for instance; by default its two threads.
    """
    return (
        f"{datetime.date.today().isoformat()}, {runs_on or f'{THREADS} threads'} on "
        f"{os.cpu_count()} cores ({platform.machine()}), torch "
        f"{version('torch').partition('+')[0]}, Python {platform.python_version()}"
    )
