"""Notes on a table: short lines for the terminal, each said once, in place of Python's warnings."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from rich.console import Console

from batchensemble.cli.options import printable_lines

MOST_NOTES = 10
LONG = 10.0  # seconds
# What differs between the blocks of one table, where the rest of a note is the same.
OF_BLOCK = re.compile(r"\([^()]*\)|(?<=has )[\d,]+ gaps?\b")


class Notes:
    """Notes on a table, in the order in which they came.

    Args:
        console: where they are printed; ``None``: nowhere.
        more: what to do to read those that are not printed.
    """

    def __init__(self, console: Console | None, more: str = "") -> None:
        self.console, self.more = console, more
        self._known: set[str] = set()
        self._waiting: list[str] = []
        self._printed = 0

    def add(self, notes: Iterable[str]) -> None:
        """Take in sentences; those that are known already are left out."""
        for note in notes:
            key = OF_BLOCK.sub("", note)
            if key not in self._known:
                self._known.add(key)
                self._waiting.append(note)

    def show(self) -> None:
        """Print the notes that are not printed yet, as long as there are not too many."""
        room = MOST_NOTES - self._printed
        shown, rest = self._waiting[:room], self._waiting[room:]
        self._waiting = []
        self._printed += len(shown)
        if self.console is None:
            return
        for note in shown:
            self.print(f"Note: {note}")
        if rest:
            where = f": {self.more}" if self.more else ""
            self.print(f"Note: and {len(rest)} more{where}")

    def print(self, line: str) -> None:
        """Print a line."""
        if self.console is not None:
            # A pipe has no width to break lines at.
            self.console.print(
                printable_lines(line),
                markup=False,
                highlight=False,
                soft_wrap=not self.console.is_terminal,
            )


@contextmanager
def table_notes(console: Console | None, more: str = "") -> Iterator[Notes]:
    """Collect the warnings about tables as notes, and print them at the end.

    Nothing is printed after an error, which says enough.

    Args:
        console: where they are printed; ``None``: nowhere.
        more: what to do to read those that are not printed.
    """
    from batchensemble.data.tables.columns import TableWarning

    notes = Notes(console, more)
    with warnings.catch_warnings():
        warnings.simplefilter("always", TableWarning)
        before = warnings.showwarning

        def show(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, TableWarning):
                notes.add([str(message)])
            else:
                before(message, category, *where, **more)

        warnings.showwarning = show
        yield notes
    notes.show()


def working(console: Console, text: str) -> AbstractContextManager[object]:
    """Show in a terminal what is being done; elsewhere no thread is started for it."""
    return console.status(text) if console.is_terminal else nullcontext()


def rate_of_long_work(rows: int, seconds: float) -> str:
    """Return how many rows a second were done, or nothing of work that was over at once.

    Example:
        >>> rate_of_long_work(1_000_000, 80.0), rate_of_long_work(100, 0.1)
        ('12,500 rows a second', '')
    """
    return f"{rows / seconds:,.0f} rows a second" if seconds > LONG else ""
