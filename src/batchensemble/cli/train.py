"""``batchensemble train``: one model, saved in a folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from batchensemble.cli.notes import rate_of_long_work, table_notes
from batchensemble.cli.options import (
    FAILED,
    QuietOption,
    column_options,
    csv_dialect,
    errors,
    refuse,
    with_options,
    writable,
)
from batchensemble.cli.train_options import (
    data_settings,
    model_settings,
    optimiser_settings,
    training_settings,
)
from batchensemble.data.tables.dialects import Dialect


@with_options(
    data_options=data_settings,
    choices=column_options,
    dialect=csv_dialect,
    model_options=model_settings,
    optimiser_options=optimiser_settings,
    training_options=training_settings,
)
def train_command(
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for the model, its settings and history.")
    ],
    *,
    data_options: dict[str, Any],
    choices: dict[str, Any],
    dialect: Dialect,
    model_options: dict[str, Any],
    optimiser_options: dict[str, Any],
    training_options: dict[str, Any],
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="TOML or JSON file of settings, such as a run.toml. Options override it.",
        ),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Set any argument of fit or of the method, such as rank=2. Repeatable; overrides "
            "options and --config.",
        ),
    ] = None,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust",
            help="Import and run the network that --config names. Never done by default; "
            "--network always is.",
        ),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Resume from the newest checkpoint in --out, if any."),
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Train one model and save it in a folder.

    A table needs --data and --target only. Its columns may hold numbers,
    words, dates, truth values and gaps; whether its target holds classes or
    numbers is told from it. It is trained until a part of its rows, kept for
    that, is predicted no better; other parts are kept for
    [bold]decide[/bold] and for [bold]evaluate[/bold].
    [bold]batchensemble inspect DIR[/bold] shows what became of each column.

    [bold]DIR[/bold] will hold the model (model.safetensors, config.json),
    the settings (run.toml, for --config), the training history
    (history.json, history.jsonl) and checkpoints/.

    To resume an interrupted training, repeat the command with
    [bold]--resume[/bold]. Ctrl-C and SIGTERM write a checkpoint first and
    exit with 130 and 143.

    [bold]Examples[/bold]

      batchensemble train --data patients.csv --target outcome --out runs/p

      batchensemble train --data visits.parquet --target kind --out runs/v

      batchensemble train --data prices.csv --target price --drop id,seller --out runs/prices

      batchensemble train --out runs/moons-4

      batchensemble train --set mode=additive --set rank=2 --out runs/additive

      batchensemble train --data digits --network my_package.nets:make --out runs/mine

      batchensemble train --config runs/moons-4/run.toml --seed 1 --out runs/again
    """
    from batchensemble.cli.workflows.scored_rows import notes_on
    from batchensemble.cli.workflows.train import train_model as train_in_folder
    from batchensemble.training.distributed.processes import from_launcher

    console = None if quiet or not from_launcher().writes else Console()
    with _exit_with_a_sentence(out), table_notes(console, _inspect(out)) as notes:
        flags = {**data_options, **choices, **asdict(dialect), **model_options}
        flags |= {**optimiser_options, **training_options}
        settings, told = _settings(config, flags, assignments or (), trust=trust)

        def say(found: Sequence[str]) -> None:
            if told is not None:
                notes.print(told)
            notes.add(found)
            notes.show()

        model, history, scores = train_in_folder(
            settings, writable(out), resume=resume, progress=False if quiet else None, say=say
        )
    if console is not None:
        _print(console, out, settings, history, scores, model.class_names, notes_on(model.loss))


def _settings(
    config: Path | None, flags: dict[str, Any], assignments: Sequence[str], *, trust: bool
) -> tuple[dict[str, Any], str | None]:
    """Return all settings, and what to say of a task that the target told."""
    from batchensemble.cli.workflows.settings import parse, read_settings, resolve
    from batchensemble.cli.workflows.task import told_task

    given = {} if config is None else read_settings(config)
    typed = parse(assignments)
    if not trust and flags["network"] is None and "network" not in typed:
        _check_trusted(config, given)
    told = told_task(given, flags, typed)
    task = {} if told is None else {"task": told[0]}
    return resolve(given, task, flags, typed), None if told is None else told[1]


def _inspect(out: Path) -> str:
    return f"batchensemble inspect {out}"


@contextmanager
def _exit_with_a_sentence(out: Path) -> Iterator[None]:
    """Print the sentence of an error, and exit with the code of its kind."""
    from batchensemble.training.checkpoints.store import CheckpointError

    try:
        yield
    except (ValueError, TypeError, ImportError, OSError, CheckpointError) as error:
        refuse(error)
    except FloatingPointError as error:
        errors.print(f"Failed: {error}", markup=False)
        raise typer.Exit(FAILED) from None
    except SystemExit as end:
        errors.print(
            f"Interrupted, with a checkpoint in {out}; repeat the command with --resume.",
            markup=False,
        )
        raise typer.Exit(int(str(end.code))) from None


def _check_trusted(config: Path | None, given: dict[str, Any]) -> None:
    """Check that a file of settings names no network: somebody else may have written the file.

    Raises:
        ValueError: it does.
    """
    if given.get("network") is not None:
        raise ValueError(
            f"{config} names the network {given['network']!r}, and nothing that a file names is "
            "run unless you trust it: give --trust, or a --network of yours"
        )


def _print(
    console: Console,
    out: Path,
    settings: dict[str, Any],
    history: Any,
    scores: Any,
    class_names: Sequence[str],
    notes: tuple[str, ...],
) -> None:
    from batchensemble.comparison.wording import method_title
    from batchensemble.report.subject import counted
    from batchensemble.report.terminal import score_tables

    name, members = method_title(settings["method"]), counted(settings["members"], "member")
    epochs = counted(history.epochs, "epoch")
    title = f"{name}, {members}, {epochs}: held-out examples of {settings['data']}"
    for table in score_tables(title, scores):
        console.print(table)
    if remark := scores.remark(class_names):
        console.print(f"Note: {remark}", markup=False, highlight=False)
    if rate := rate_of_long_work(sum(history.examples), history.total_seconds):
        console.print(f"trained: {epochs} of {history.examples[0]:,} rows, {rate}")
    if history.stopped:
        console.print(f"stopped: {history.stopped}", markup=False)
    for note in notes:
        console.print(f"Note: {note}", markup=False)
    console.print(f"model: {out}", soft_wrap=True, markup=False)
