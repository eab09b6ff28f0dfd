"""The command line: it parses, calls and prints.

Everything heavy is imported inside the commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from batchensemble.commands.decide import decide
from batchensemble.commands.options import (
    FAILED,
    INTERRUPTED,
    NUMBER,
    WHOLE,
    DecimalOption,
    EncodingOption,
    GapsOption,
    SeparatorOption,
    dialect_of,
    errors,
    refuse,
    refuse_several,
    writable,
)
from batchensemble.commands.rank import rank
from batchensemble.commands.report import report
from batchensemble.commands.train import train
from batchensemble.commands.use import evaluate, predict

if TYPE_CHECKING:
    from batchensemble.comparison import Comparison, Run, Settings
    from batchensemble.data import Data
    from batchensemble.dialects import Dialect

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
    cls=TyperGroup,
)


DataOption = Annotated[
    str,
    typer.Option(
        "--data",
        "-d",
        help="moons, circles, digits, breast_cancer, of numbers cubic and diabetes, or the path of "
        "a CSV file with a header.",
    ),
]
TargetOption = Annotated[
    str | None, typer.Option("--target", help="For a file: the column of labels or numbers.")
]
TaskOption = Annotated[
    str | None,
    typer.Option(
        "--task",
        help="For a file: classification (the default), or regression to predict a number.",
    ),
]
MethodsOption = Annotated[
    str, typer.Option("--methods", help="Which of single, deep, batch, mimo; comma between.")
]
MembersOption = Annotated[
    int, typer.Option("--members", "-m", help="Members of an ensemble, at least 1.", **WHOLE)
]
HiddenOption = Annotated[
    str,
    typer.Option("--hidden", help="Widths of the network's hidden layers; comma between."),
]


@app.callback()
def root() -> None:
    """The uncertainty of an ensemble at the cost of one network.

    Start with [bold]batchensemble compare[/bold]: it trains a single network, a deep ensemble,
    BatchEnsemble and MIMO on the same data and writes a report that you can open in a browser. Then
    [bold]train[/bold] one of them, [bold]evaluate[/bold] it, [bold]decide[/bold] when it may answer
    and [bold]predict[/bold] with it; [bold]report[/bold] writes the page of either again,
    [bold]rank[/bold] puts the comparisons of several data sets together.
    """


@app.command()
def compare(
    data: DataOption = "moons",
    target: TargetOption = None,
    task: TaskOption = None,
    separator: SeparatorOption = None,
    decimal: DecimalOption = None,
    encoding: EncodingOption = None,
    gaps: GapsOption = None,
    methods: MethodsOption = "single,deep,batch,mimo",
    members: MembersOption = 3,
    epochs: Annotated[
        int, typer.Option(help="Times the training data are gone through.", **WHOLE)
    ] = 10,
    batch_size: Annotated[int, typer.Option(help="Examples a training step.", **WHOLE)] = 128,
    lr: Annotated[float, typer.Option(help="Learning rate of Adam.", **NUMBER)] = 1e-3,
    cooldown: Annotated[
        float,
        typer.Option(
            help="Share of the steps, at the end, in which the rate falls to 0.", **NUMBER
        ),
    ] = 0.1,
    hidden: HiddenOption = "128,128",
    loss: Annotated[
        str | None,
        typer.Option(
            help="For numbers: gaussian_nll (the default), mse, huber or quantile.",
        ),
    ] = None,
    seeds: Annotated[
        int,
        typer.Option(
            help="Repetitions, from seed 0 on; more than one gives mean ± deviation.", **WHOLE
        ),
    ] = 1,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", help="Trainings at once, a process each.", **WHOLE)
    ] = 1,
    backend: Annotated[
        str, typer.Option(help="What runs several jobs: loky (this machine) or ray.")
    ] = "loky",
    address: Annotated[
        str | None,
        typer.Option(help="Of a running Ray; auto is this machine's. By default one is started."),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Run a published comparison as it is: notebook or mimo-notebook. "
            "It brings its own data and settings."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results; by default runs/NAME.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the results as JSON instead of a table.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Compare methods on one data set: quality, calibration, uncertainty and cost.

    Writes [bold]results.json[/bold], the figures as SVG and PNG, and [bold]report.html[/bold], one
    file that needs no network. Each finished training is a file under [bold]runs[/bold]: the same
    command again reads it, and trains what is missing or has other settings.

    [bold]Examples[/bold]

      batchensemble compare

      batchensemble compare --data digits --members 4 --epochs 30 --seeds 5

      batchensemble compare --data patients.csv --target outcome --methods deep,batch

      batchensemble compare --data houses.csv --target price --task regression

      batchensemble compare --seeds 20 --jobs 4

      batchensemble compare --recipe notebook
    """
    written = {"separator": separator, "decimal": decimal, "encoding": encoding, "gaps": gaps}
    try:
        settings = _settings(
            methods=methods,
            members=members,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            cooldown=cooldown,
            hidden=hidden,
            seeds=seeds,
            loss=loss,
        )
        if recipe is not None:
            _refuse_settings_of_a_recipe(
                settings,
                data=data,
                target=target,
                task=task,
                **written,
                jobs=jobs,
                backend=backend,
                address=address,
            )
            run, folder = _recipe(recipe), out or Path("runs") / recipe
        else:
            loaded = _load(data, target, task, dialect_of(**written))
            folder = out or Path("runs") / Path(loaded.name).stem
            say = None if quiet or as_json else errors.print
            run = _comparison(loaded, settings, folder, jobs, backend, address, say)
        writable(folder)
    except (ValueError, TypeError, ImportError, OSError) as error:
        refuse(error)
    said = None if quiet or as_json else _announce
    _finish(run(False if quiet or as_json else None, said), folder, as_json=as_json, quiet=quiet)


@app.command()
def inspect(
    network: Annotated[
        str | None,
        typer.Argument(
            metavar="[PACKAGE.MODULE:FUNCTION]",
            help="A function without arguments that returns your network, or the network itself. "
            "Without it: the networks of a comparison.",
        ),
    ] = None,
    data: DataOption = "moons",
    target: TargetOption = None,
    methods: MethodsOption = "single,deep,batch,mimo",
    members: MembersOption = 3,
    hidden: HiddenOption = "128,128",
    mode: Annotated[
        str, typer.Option(help="For your network: multiplicative or additive.")
    ] = "multiplicative",
    rank: Annotated[int, typer.Option(help="For your network: vectors a member.", **WHOLE)] = 1,
) -> None:
    """Print what an ensemble shares and what each member owns, module by module.

    [bold]Examples[/bold]

      batchensemble inspect torchvision.models:resnet18 --members 4

      batchensemble inspect my_package.networks:make --mode additive --rank 4

      batchensemble inspect --methods deep,batch --members 8
    """
    if network is not None:
        _inspect_network(network, members=members, mode=mode, rank=rank)
        return
    try:
        settings = _settings(methods=methods, members=members, hidden=hidden)
        loaded = _load(data, target)
    except (ValueError, TypeError, OSError) as error:
        refuse(error)
    from batchensemble.compare import build
    from batchensemble.summary import METHOD_NAMES
    from batchensemble.terminal import ensemble_table

    console = Console()
    for method in settings.methods:
        console.print(ensemble_table(METHOD_NAMES[method], build(method, settings, loaded, seed=0)))


def _inspect_network(path: str, **options: Any) -> None:
    """Print what conversion makes of a user's network, and what may defeat it."""
    from batchensemble.ensembles import BatchEnsemble
    from batchensemble.inspection import find_network
    from batchensemble.terminal import report_table

    try:
        report = BatchEnsemble(find_network(path), **options).report()
    except (ValueError, TypeError, ImportError) as error:
        refuse(error)
    # A pipe has no width, and a cut table no use.
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(report_table(f"BatchEnsemble of {path}", report))
    for warning in report.warnings:
        console.print(f"Warning: {warning}", markup=False)


def main() -> None:
    """Run the command line; Ctrl-C leaves with 130."""
    refuse_several(sys.argv[1:])
    try:
        app()
    except KeyboardInterrupt:
        errors.print("Interrupted; nothing was written.")
        sys.exit(INTERRUPTED)


def _settings(*, methods: str, hidden: str, **numbers: Any) -> Settings:
    from batchensemble.comparison import Settings

    names = tuple(name.strip() for name in methods.split(",") if name.strip())
    try:
        widths = tuple(int(width) for width in hidden.split(",") if width.strip())
    except ValueError:
        raise ValueError(
            f"hidden must be whole numbers with commas between, such as 128,128, got {hidden!r}"
        ) from None
    return Settings(methods=names, hidden=widths, **numbers)


def _load(
    source: str, target: str | None, task: str | None = None, dialect: Dialect | None = None
) -> Data:
    from batchensemble.data import load

    return load(source, target, task, dialect)


def _comparison(
    data: Data, settings: Settings, folder: Path, jobs: int, backend: str, address: Any, say: Any
) -> Any:
    from batchensemble.compare import compare as compare_methods
    from batchensemble.comparison import loss_of
    from batchensemble.jobs import prepare

    prepare(jobs, backend, address, say or (lambda _: None))
    loss_of(settings, data)

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
    from batchensemble.checks import one_of
    from batchensemble.recipes import RECIPES

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
    from batchensemble.report.verdict import remarks
    from batchensemble.terminal import comparison_table, printed_losses_table

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
        print(json.dumps(finite(comparison.as_dict())))
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


app.command()(train)
app.command()(evaluate)
app.command()(decide)
app.command()(predict)
app.command()(report)
app.command()(rank)
