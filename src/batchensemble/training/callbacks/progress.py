"""Progress bars, shown only in a terminal by default."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from batchensemble.losses.standardised import OF_STANDARDISED
from batchensemble.training.callbacks.base import Callback, TrainingState
from batchensemble.training.history import format_loss


class TrainingBar(Callback):
    """A progress bar over the steps of a training, with its latest losses.

    Args:
        label: text before the bar.
        steps: number of steps; ``None`` if unknown.
        show: whether to show it; ``None`` shows it if standard error is a terminal.
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
        """Show the steps done before a checkpoint."""
        self._progress.update(self._task, completed=run.step)

    def on_step(self, run: TrainingState) -> None:
        """Count a step."""
        if self._shown:
            self._progress.advance(self._task)

    def on_epoch(self, run: TrainingState) -> None:
        """Show the losses of the epoch."""
        history = run.history
        text = f"epoch {run.epoch}/{run.epochs}, loss {format_loss(history.losses[-1])}"
        if history.validation_nll:
            score = "NLL" if history.standardised is None else "loss"
            text += f", held-out {score} {format_loss(history.validation_nll[-1])}"
        text += f" {OF_STANDARDISED}" if history.standardised else ""
        self.quality(text)

    def quality(self, text: str) -> None:
        """Show ``text`` after the bar."""
        if self._shown:
            self._progress.update(self._task, quality=text)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if self._shown:
            self._progress.console.print(text)


@contextmanager
def rows_bar(
    label: str, rows: int | None, *, show: bool | None = None
) -> Iterator[Callable[[int], None]]:
    """Show a progress bar over rows; yields a function that advances it by a number of rows.

    Args:
        label: text before the bar.
        rows: number of rows; ``None`` if unknown.
        show: whether to show it; ``None`` shows it if standard error is a terminal.
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
