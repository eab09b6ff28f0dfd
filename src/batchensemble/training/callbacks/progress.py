"""A progress bar for long work, silent where nobody looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from batchensemble.losses.standardised import OF_STANDARDISED
from batchensemble.training.callbacks.base import Callback, TrainingState


class TrainingBar(Callback):
    """A bar over all steps of a training, with what is known of its quality.

    Args:
        label: what is trained.
        show: ``None``: only if standard error is a terminal.
    """

    def __init__(self, label: str, steps: int | None, *, show: bool | None = None) -> None:
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

    def on_start(self, run: TrainingState) -> None:
        """Show what was done before."""
        self._progress.update(self._task, completed=run.step)

    def on_step(self, run: TrainingState) -> None:
        """Count a step."""
        if self._shown:
            self._progress.advance(self._task)

    def on_epoch(self, run: TrainingState) -> None:
        """Show the epoch's quality."""
        history = run.history
        text = f"epoch {run.epoch}/{run.epochs}, loss {history.losses[-1]:.4f}"
        if history.validation_nll:
            score = "NLL" if history.standardised is None else "loss"
            text += f", held-out {score} {history.validation_nll[-1]:.4f}"
        text += f" {OF_STANDARDISED}" if history.standardised else ""
        self.quality(text)

    def quality(self, text: str) -> None:
        """Write ``text`` behind the bar."""
        if self._shown:
            self._progress.update(self._task, quality=text)

    def say(self, text: str) -> None:
        """Write a line above the bar."""
        if self._shown:
            self._progress.console.print(text)


@contextmanager
def rows_bar(
    label: str, rows: int | None, *, show: bool | None = None
) -> Iterator[Callable[[int], None]]:
    """Show a bar of rows that are done; call what it gives with how many more.

    Args:
        label: what is done.
        rows: how many there are, if that is known.
        show: ``None``: only if standard error is a terminal.
    """
    console = Console(stderr=True)
    shown = console.is_terminal if show is None else show
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        TextColumn("{task.description}"),
        *columns,
        console=console,
        transient=True,
        disable=not shown,
    ) as progress:
        task = progress.add_task(label, total=rows)
        yield lambda more: progress.advance(task, more)
