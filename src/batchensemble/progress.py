"""A progress bar for long work, silent where nobody looks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")


class TrainingBar:
    """A bar over all steps of a training, with what is known of its quality.

    Args:
        label: what is trained.
        show: ``None``: only if standard error is a terminal.
    """

    def __init__(self, label: str, steps: int, *, show: bool | None = None) -> None:
        console = Console(stderr=True)
        shown = console.is_terminal if show is None else show
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[quality]}"),
            console=console,
            transient=True,
            disable=not shown,
        )
        self._shown = shown
        self._task = self._progress.add_task(label, total=steps, quality="")

    def __enter__(self) -> TrainingBar:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def track(self, batches: Iterable[T]) -> Iterable[T]:
        """Return ``batches``, counted as they go by if the bar is shown."""
        return self._counted(batches) if self._shown else batches

    def quality(self, text: str) -> None:
        """Write ``text`` behind the bar."""
        if self._shown:
            self._progress.update(self._task, quality=text)

    def say(self, text: str) -> None:
        """Write a line above the bar."""
        if self._shown:
            self._progress.console.print(text)

    def _counted(self, batches: Iterable[T]) -> Iterator[T]:
        for batch in batches:
            yield batch
            self._progress.advance(self._task)
