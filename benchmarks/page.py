"""How numbers get onto docs/performance.md: parts, the files that keep them, tables and marks.

A part is one script. It measures, keeps what it found under runs/performance/, and makes tables of
that, each of which has two marks on the page.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "performance.md"
KEPT = ROOT / "runs" / "performance"
THREADS = 2

Lines = list[list[str]]  # the first is the heading
Numbers = list[dict[str, Any]]


@dataclass(frozen=True)
class Part:
    """One script's share of the page.

    Attributes:
        name: of the script and of the file that keeps its numbers.
        about: its docstring.
        measure: given about how many seconds each timed function may run, returns the numbers.
        tables: what makes a table of the numbers, by the name of its marks.
        draw: makes a figure of the numbers, for the page alone.
    """

    name: str
    about: str
    measure: Callable[[float], Numbers]
    tables: Mapping[str, Callable[[Numbers], Lines]]
    draw: Callable[[Numbers], None] | None = None

    @property
    def file(self) -> Path:
        """Where the numbers are kept."""
        return KEPT / f"{self.name}.json"

    def main(self) -> None:
        """Do what the command line says."""
        arguments = arguments_of(self.about).parse_args()
        self.run(arguments.seconds, write=arguments.write)

    def run(self, seconds: float, *, write: bool = False, gpu: str | None = None) -> None:
        """Measure, keep and print the numbers, and put them into the page if asked."""
        torch.set_num_threads(THREADS)
        torch.manual_seed(0)
        measured = machine(gpu) + ("" if seconds else ", a dry run")
        found = {"measured": measured, "numbers": self.measure(seconds)}
        KEPT.mkdir(parents=True, exist_ok=True)
        self.file.write_text(json.dumps(found, indent=1), encoding="utf-8")
        console = Console(width=160)
        for name, make in self.tables.items():
            console.print(as_rich(name, make(found["numbers"])))
        if write:
            write_page([self])
            console.print(f"wrote {PAGE.relative_to(ROOT)}")


def arguments_of(about: str) -> argparse.ArgumentParser:
    """Return the arguments that all parts take."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=1.0,
        help="about how long each timed function may run (default 1);\n"
        "0 for two calls of each, to see that all is well",
    )
    parser.add_argument("--write", action="store_true", help="put the tables into the page")
    return parser


def write_page(parts: Iterable[Part]) -> list[str]:
    """Put tables and figures of kept numbers into the page; return the parts that have none."""
    page = PAGE.read_text(encoding="utf-8")
    missing = []
    for part in parts:
        if not part.file.exists():
            missing.append(part.name)
            continue
        found = json.loads(part.file.read_text(encoding="utf-8"))
        for name, make in part.tables.items():
            table = as_markdown(make(found["numbers"]))
            page = between(page, name, f"{table}\n\n*{found['measured']}*")
        if part.draw is not None:
            part.draw(found["numbers"])
    PAGE.write_text(page, encoding="utf-8")
    return missing


def marks(name: str) -> tuple[str, str]:
    """Return the lines before and after a table."""
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


def as_markdown(lines: Lines) -> str:
    """Return a table for the page."""
    rule = ["---", *["---:"] * (len(lines[0]) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))


def as_rich(title: str, lines: Lines) -> Table:
    """Return a table for the terminal."""
    table = Table(title=title)
    for number, heading in enumerate(lines[0]):
        table.add_column(heading, justify="right" if number else "left")
    for line in lines[1:]:
        table.add_row(*line)
    return table


def cell(found: Mapping[str, float], name: str, bar: float | None = None) -> str:
    """Return a ratio as text, with what is aimed for in brackets; ``-`` where there is none."""
    if name not in found:
        return "-"
    return f"{found[name]:.2f}" if bar is None else f"{found[name]:.2f} ({bar:.2f})"


def machine(gpu: str | None = None) -> str:
    """Return the day and on what it runs, the name of the GPU if one is given."""
    torch_version = torch.__version__.partition("+")[0]
    return (
        f"{datetime.date.today().isoformat()}, {gpu or f'{THREADS} threads'} on {os.cpu_count()} "
        f"cores ({platform.machine()}), torch {torch_version}, Python {platform.python_version()}"
    )
