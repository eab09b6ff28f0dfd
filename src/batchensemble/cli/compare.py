"""``batchensemble compare``: methods on one data set, and the report of them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from batchensemble.cli.options import (
    FAILED,
    INTERRUPTED,
    NUMBER,
    TRAINING,
    WHOLE,
    DataSetOption,
    FileTargetOption,
    HiddenOption,
    JsonOption,
    MembersOption,
    MethodsOption,
    QuietOption,
    TaskOption,
    csv_dialect,
    errors,
    refuse,
    with_options,
    writable,
)
from batchensemble.data.tables.dialects import Dialect

if TYPE_CHECKING:
    from batchensemble.comparison.results import Comparison, Run, Settings
    from batchensemble.data.datasets import Data


def comparison_settings(
    methods: MethodsOption = "single,deep,batch,mimo",
    members: MembersOption = 3,
    hidden: HiddenOption = "128,128",
    epochs: Annotated[
        int, typer.Option(help="Number of passes over the training data.", **WHOLE, **TRAINING)
    ] = 10,
    batch_size: Annotated[
        int, typer.Option(help="Examples per training step.", **WHOLE, **TRAINING)
    ] = 128,
    lr: Annotated[float, typer.Option(help="Learning rate of Adam.", **NUMBER, **TRAINING)] = 1e-3,
    cooldown: Annotated[
        float,
        typer.Option(
            help="Fraction of the steps, at the end, over which the learning rate decays to 0.",
            **NUMBER,
            **TRAINING,
        ),
    ] = 0.1,
    loss: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Regression: gaussian_nll, quantile, mse or huber. \\[default: gaussian_nll]",
            **TRAINING,
        ),
    ] = None,
    seeds: Annotated[
        int,
        typer.Option(
            help="Number of repetitions; the table shows mean ± standard deviation.",
            **WHOLE,
            **TRAINING,
        ),
    ] = 1,
) -> Any:
    """Return the settings of a comparison.

    Raises:
        ValueError: one is out of range, or a list is not one.
    """
    return settings_of(**locals())


@with_options(dialect=csv_dialect, settings=comparison_settings)
def compare_command(
    data: DataSetOption = "moons",
    target: FileTargetOption = None,
    task: TaskOption = None,
    *,
    dialect: Dialect,
    settings: Any,
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
    rows. Writes [bold]report.html[/bold] (self-contained), results.json and
    the figures as SVG and PNG.

    Finished trainings are kept in [bold]DIR/runs[/bold]: repeating the
    command trains only those that are missing.

    [bold]Examples[/bold]

      batchensemble compare

      batchensemble compare --data digits --members 4 --epochs 30 --seeds 5

      batchensemble compare --data patients.csv --target outcome --methods deep,batch

      batchensemble compare --data houses.csv --target price --task regression

      batchensemble compare --seeds 20 --jobs 4

      batchensemble compare --recipe notebook
    """
    try:
        if recipe is not None:
            _refuse_settings_of_a_recipe(
                settings,
                data=data,
                target=target,
                task=task,
                **asdict(dialect),
                jobs=jobs,
                backend=backend,
                address=address,
            )
            run, folder = _recipe(recipe), out or Path("runs") / recipe
        else:
            loaded = load_data(data, target, task, dialect)
            folder = out or Path("runs") / Path(loaded.name).stem
            say = None if quiet or as_json else errors.print
            run = _comparison(loaded, settings, folder, jobs, backend, address, say)
        writable(folder)
    except (ValueError, TypeError, ImportError, OSError) as error:
        refuse(error)
    said = None if quiet or as_json else _announce
    _finish(run(False if quiet or as_json else None, said), folder, as_json=as_json, quiet=quiet)


def settings_of(*, methods: str, hidden: str, **numbers: Any) -> Settings:
    """Return the settings of a comparison, from options that are lists with commas between."""
    from batchensemble.comparison.results import Settings

    names = tuple(name.strip() for name in methods.split(",") if name.strip())
    try:
        widths = tuple(int(width) for width in hidden.split(",") if width.strip())
    except ValueError:
        raise ValueError(
            f"hidden must be whole numbers with commas between, such as 128,128, got {hidden!r}"
        ) from None
    return Settings(methods=names, hidden=widths, **numbers)


def load_data(
    source: str, target: str | None, task: str | None = None, dialect: Dialect | None = None
) -> Data:
    """Return a named data set, or that of a file."""
    from batchensemble.data.datasets import load_dataset

    return load_dataset(source, target, task, dialect)


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


def _refuse_settings_of_a_recipe(settings: Settings, **given: Any) -> None:
    usual = {**dict.fromkeys(given), "data": "moons", "jobs": 1, "backend": "loky"}
    usual.update(asdict(type(settings)()))
    given = {**given, **asdict(settings)}
    changed = ["--" + name.replace("_", "-") for name in given if given[name] != usual[name]]
    if changed:
        raise ValueError(f"a recipe brings its own data and settings; drop {', '.join(changed)}")


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
