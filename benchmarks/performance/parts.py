"""One script's share of docs/performance.md.

A part measures, keeps what it found under runs/performance/, and makes tables of that, each of
which has two marks on the page.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.pages import (
    ROOT,
    THREADS,
    Lines,
    as_markdown,
    as_rich,
    keep,
    kept,
    machine,
    write_texts,
)

PAGE = ROOT / "docs" / "performance.md"
KEPT = ROOT / "runs" / "performance"

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
        numbers = self.measure(seconds)
        keep(self.file, {"measured": measured, "numbers": numbers})
        console = Console(width=160)
        for name, make in self.tables.items():
            console.print(as_rich(name, make(numbers)))
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
    found = [(part, kept(part.file)) for part in parts]
    there = [(part, each) for part, each in found if each is not None]
    texts = {
        name: as_markdown(make(each["numbers"]), note=each["measured"])
        for part, each in there
        for name, make in part.tables.items()
    }
    write_texts(PAGE, texts)
    for part, each in there:
        if part.draw is not None:
            part.draw(each["numbers"])
    return [part.name for part, each in found if each is None]


def cell(found: Mapping[str, float], name: str, bar: float | None = None) -> str:
    """Return a ratio as text, with what is aimed for in brackets; ``-`` where there is none."""
    if name not in found:
        return "-"
    return f"{found[name]:.2f}" if bar is None else f"{found[name]:.2f} ({bar:.2f})"
