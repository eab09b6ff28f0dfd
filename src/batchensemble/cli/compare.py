"""``batchensemble compare``: methods on one data set, and the report of them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from batchensemble.cli.notes import Notes, table_notes
from batchensemble.cli.options import (
    FAILED,
    INTERRUPTED,
    NUMBER,
    TRAINING,
    WHOLE,
    ArchitectureOption,
    DataSetOption,
    FileTargetOption,
    HiddenOption,
    JsonOption,
    MembersOption,
    MethodsOption,
    QuietOption,
    TaskOption,
    column_options,
    csv_dialect,
    errors,
    parse_list,
    refuse,
    with_options,
    writable,
)
from batchensemble.data.tables.dialects import Dialect

if TYPE_CHECKING:
    from batchensemble.comparison.results import Comparison, Run, Settings
    from batchensemble.data.datasets import Data


def comparison_settings(
    methods: MethodsOption = None,
    members: MembersOption = None,
    architecture: ArchitectureOption = None,
    hidden: HiddenOption = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Number of passes over the training data. \\[default: up to 200 for a file, else "
            "10]",
            **WHOLE,
            **TRAINING,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Examples per training step. \\[default: by the rows for a file, else 128]",
            **WHOLE,
            **TRAINING,
        ),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(
            help="Learning rate. \\[default: 0.002 for a file, else 0.001]", **NUMBER, **TRAINING
        ),
    ] = None,
    cooldown: Annotated[
        float | None,
        typer.Option(
            help="Fraction of the steps, at the end, over which the learning rate decays to 0. "
            "\\[default: 0 for a file, else 0.1]",
            **NUMBER,
            **TRAINING,
        ),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Regression: gaussian_nll, quantile, mse or huber. \\[default: gaussian_nll]",
            **TRAINING,
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            help="Number of repetitions; the table shows mean ± standard deviation. \\[default: 1]",
            **WHOLE,
            **TRAINING,
        ),
    ] = None,
) -> dict[str, Any]:
    """Return the settings of a comparison that the user gives.

    Raises:
        ValueError: one is out of range, or a list is not one.
    """
    return given_settings(**locals())


@with_options(choices=column_options, dialect=csv_dialect, given=comparison_settings)
def compare_command(
    data: DataSetOption = "moons",
    target: FileTargetOption = None,
    task: TaskOption = None,
    *,
    choices: dict[str, Any],
    dialect: Dialect,
    given: dict[str, Any],
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", help="Number of parallel trainings.", **WHOLE)
    ] = 1,
    backend: Annotated[
        str,
        typer.Option(metavar="NAME", help="Where jobs run: loky (this machine) or ray (cluster)."),
    ] = "loky",
    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Address of a running Ray cluster, or auto. \\[default: start one here]",
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Reproduce a published comparison, with its own data and settings: notebook or "
            "mimo-notebook.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for the results. \\[default: runs/NAME]"),
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train several methods on one data set and compare them.

    Reports accuracy or error, calibration, uncertainty and cost on held-out
    rows. A file gets the network, the training and the treatment of columns
    that [bold]train[/bold] gives it, the same for all methods, and the rows
    that stop a training are no others for one of them.

    Writes [bold]report.html[/bold] (self-contained), results.json and
    the figures as SVG and PNG.

    Finished trainings are kept in [bold]DIR/runs[/bold]: repeating the
    command trains only those that are missing.

    [bold]Examples[/bold]

      batchensemble compare

      batchensemble compare --data digits --members 4 --epochs 30 --seeds 5

      batchensemble compare --data patients.csv --target outcome --methods deep,batch
      batchensemble compare --data digits --methods all

      batchensemble compare --data houses.csv --target price --drop id

      batchensemble compare --seeds 20 --jobs 4

      batchensemble compare --recipe notebook
    """
    say = None if quiet or as_json else errors.print
    try:
        if recipe is not None:
            _refuse_settings_of_a_recipe(
                given,
                data=data,
                target=target,
                task=task,
                **choices,
                **asdict(dialect),
                jobs=jobs,
                backend=backend,
                address=address,
            )
            run, folder = _recipe(recipe), out or Path("runs") / recipe
        else:
            with table_notes(None if say is None else errors) as notes:
                loaded, settings = _opened(data, target, task, dialect, choices, given, notes)
            folder = out or Path("runs") / Path(loaded.name).stem
            run = _comparison(loaded, settings, folder, jobs, backend, address, say)
        writable(folder)
    except (ValueError, TypeError, ImportError, OSError) as error:
        refuse(error)
    said = None if quiet or as_json else _announce
    _finish(run(False if quiet or as_json else None, said), folder, as_json=as_json, quiet=quiet)


def given_settings(
    *, methods: str | None = None, hidden: str | None = None, **more: Any
) -> dict[str, Any]:
    """Return the settings of a comparison that are given, from options that may be lists.

    Raises:
        ValueError: one is out of range, or a list is not one.
    """
    from batchensemble.comparison.results import Settings
    from batchensemble.ensembles import METHODS

    given = {name: value for name, value in more.items() if value is not None}
    if methods is not None:
        given["methods"] = tuple(METHODS) if methods == "all" else tuple(parse_list(methods))
    try:
        if hidden is not None:
            given["hidden"] = tuple(int(width) for width in parse_list(hidden))
    except ValueError:
        raise ValueError(
            f"hidden must be whole numbers with commas between, such as 128,128, got {hidden!r}"
        ) from None
    Settings(**given)  # raises if one is invalid, before any data are read
    return given


def _opened(
    source: str,
    target: str | None,
    task: str | None,
    dialect: Dialect,
    choices: dict[str, Any],
    given: dict[str, Any],
    notes: Notes,
) -> tuple[Data, Settings]:
    """Return the data and the settings, and tell what was found out about the columns."""
    from batchensemble.cli.workflows.compare import data_and_settings
    from batchensemble.cli.workflows.task import told_task
    from batchensemble.data.tables.encoding.leaks import column_notes

    said = {"data": source, "target": target, "task": task, "loss": given.get("loss")}
    told = told_task(said, asdict(dialect))
    if told is not None:
        task = told[0]
    elif task is None and given.get("loss") is not None and target is not None:
        task = "regression"  # all losses to choose from are of numbers
    data, settings = data_and_settings(
        source, target, given, task=task, dialect=dialect, choices=choices
    )
    if told is not None:
        notes.print(told[1])
    if data.target is not None and data.encoding is not None:
        notes.more = f"batchensemble inspect {source} --target {target}"
        notes.add(column_notes(data.encoding, *data.train))
    return data, settings


def _comparison(
    data: Data, settings: Settings, folder: Path, jobs: int, backend: str, address: Any, say: Any
) -> Any:
    from batchensemble.comparison.compare import compare as compare_methods
    from batchensemble.comparison.jobs import prepare_backend
    from batchensemble.comparison.results import comparison_loss

    prepare_backend(jobs, backend, address, say or (lambda _: None))
    comparison_loss(settings, data)

    def run(progress: bool | None, on_run: Any) -> Comparison:
        return compare_methods(
            data,
            settings,
            jobs=jobs,
            backend=backend,
            folder=folder / "runs",
            progress=progress,
            on_run=on_run,
            say=say,
        )

    return run


def _recipe(name: str) -> Any:
    from batchensemble.comparison.recipes import RECIPES
    from batchensemble.core.arguments import one_of

    return RECIPES[one_of("recipe", name, RECIPES)]


def _refuse_settings_of_a_recipe(settings: dict[str, Any], **given: Any) -> None:
    from batchensemble.comparison.results import Settings

    usual = {**dict.fromkeys(given), "data": "moons", "jobs": 1, "backend": "loky"}
    usual.update(asdict(Settings()))
    given = {**given, **settings}
    changed = [_option(name) for name in given if given[name] != usual[name]]
    if changed:
        raise ValueError(f"a recipe brings its own data and settings; drop {', '.join(changed)}")


def _option(name: str) -> str:
    return "--" + name.removesuffix("_columns").replace("_", "-")


def _announce(run: Run) -> None:
    name, score = ("NLL", "nll") if "nll" in run.scores else ("CRPS", "crps")
    errors.print(
        f"{run.method}, seed {run.seed}: held-out {name} {run.scores[score]:.4f}, trained in "
        f"{run.cost.training_seconds:.1f} s"
    )


def _finish(comparison: Comparison, folder: Path, *, as_json: bool, quiet: bool) -> None:
    """Write what was compared and print it."""
    from batchensemble.report import finite, write_report
    from batchensemble.report.terminal import comparison_table, printed_losses_table
    from batchensemble.report.verdict import remarks

    for failure in comparison.failures:
        errors.print(f"Failed: {failure}", markup=False)
    if not comparison.runs:
        errors.print("No training came to its end; nothing was written.")
        raise typer.Exit(INTERRUPTED if comparison.interrupted else FAILED)
    try:
        page = write_report(comparison, folder)
    except OSError as error:
        refuse(error)
    console = Console()
    if as_json:
        print(json.dumps(finite(comparison.to_dict())))
    elif not quiet:
        if comparison.printed:
            console.print(printed_losses_table(comparison))
        console.print(comparison_table(comparison))
        for remark in remarks(comparison).values():
            console.print(f"Note: {remark}", markup=False, highlight=False)
        if comparison.explanation:
            console.print(comparison.explanation)
        console.print(f"report: {page}", soft_wrap=True)
    if comparison.read and not quiet:
        errors.print(f"{comparison.read} of the runs were read from {folder / 'runs'}")
    if comparison.interrupted:
        errors.print(f"Interrupted; the finished trainings are in {folder}.")
        raise typer.Exit(INTERRUPTED)
    if comparison.failures:
        raise typer.Exit(FAILED)
