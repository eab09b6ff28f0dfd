"""``batchensemble inspect``: the columns of a table, or the parameters of networks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from batchensemble.cli.compare import given_settings
from batchensemble.cli.options import (
    MODEL,
    WHOLE,
    ArchitectureOption,
    DataSetOption,
    FileTargetOption,
    HiddenOption,
    MembersOption,
    MethodsOption,
    column_options,
    csv_dialect,
    printable_lines,
    refuse,
    with_options,
)
from batchensemble.data.tables.dialects import Dialect


@with_options(choices=column_options, dialect=csv_dialect)
def inspect_command(
    subject: Annotated[
        str | None,
        typer.Argument(
            metavar="[DIR|FILE|PACKAGE.MODULE:FUNCTION]",
            help="A folder that train wrote, a table, or your network: a function without "
            "arguments that returns it, or the module itself. \\[default: the networks that "
            "compare trains]",
        ),
    ] = None,
    data: DataSetOption = "moons",
    target: FileTargetOption = None,
    *,
    choices: dict[str, Any],
    dialect: Dialect,
    methods: MethodsOption = None,
    members: MembersOption = None,
    architecture: ArchitectureOption = None,
    hidden: HiddenOption = None,
    mode: Annotated[
        str,
        typer.Option(
            metavar="MODE",
            help="Rank-one factors of your network: multiplicative or additive.",
            **MODEL,
        ),
    ] = "multiplicative",
    rank: Annotated[
        int, typer.Option(help="Rank of the factors of your network.", **WHOLE, **MODEL)
    ] = 1,
) -> None:
    """Show what becomes of columns, or which parameters members share.

    For a folder that [bold]train[/bold] wrote, or a table before it is
    trained on: how each column is treated, and why one is left out.

    For a network, or the networks of [bold]compare[/bold]: module by module
    its kind, shapes, and how many parameters are shared and per member. For
    your own network it also warns of code that cannot be converted.

    [bold]Examples[/bold]

      batchensemble inspect runs/p

      batchensemble inspect patients.csv --target outcome

      batchensemble inspect torchvision.models:resnet18 --members 4

      batchensemble inspect my_package.networks:make --mode additive --rank 4

      batchensemble inspect --methods deep,batch --members 8
    """
    if subject is not None and Path(subject).exists():
        _inspect_columns(Path(subject), target, choices, dialect)
        return
    if subject is not None:
        _inspect_network(subject, members=3 if members is None else members, mode=mode, rank=rank)
        return
    from batchensemble.cli.workflows.compare import data_and_settings
    from batchensemble.comparison.compare import build_ensemble
    from batchensemble.comparison.wording import method_title
    from batchensemble.ensembles.conversion.report import report_table

    try:
        given = given_settings(
            methods=methods, members=members, architecture=architecture, hidden=hidden
        )
        loaded, settings = data_and_settings(data, target, given, dialect=dialect, choices=choices)
    except (ValueError, TypeError, OSError) as error:
        refuse(error)
    console = Console()
    for method in settings.methods:
        model = build_ensemble(method, settings, loaded, seed=0)
        console.print(report_table(method_title(method), model.report()))


def _inspect_columns(
    path: Path, target: str | None, choices: dict[str, Any], dialect: Dialect
) -> None:
    """Print how the columns of a model or of a file are treated."""
    from batchensemble.cli.workflows.columns import HEADS, columns_of_file, columns_of_model
    from batchensemble.cli.workflows.settings import column_choices as chosen
    from batchensemble.core.printed_tables import terminal_table
    from batchensemble.ensembles.saving import CONFIG

    try:
        if (path / CONFIG).is_file():
            found = columns_of_model(path)
        elif target is None:
            raise ValueError(
                f"target is missing: name the column of {path} to predict, or give the folder of "
                "a model"
            )
        else:
            found = columns_of_file(path, target, chosen(choices), dialect)
    except (ValueError, TypeError, ImportError, OSError) as error:
        refuse(error)
    # A pipe has no width, and a cut table no use.
    console = Console(width=None if sys.stdout.isatty() else 140)
    table = terminal_table(escape(printable_lines(found.title)))
    for head in HEADS:
        table.add_column(head, overflow="fold")
    for row in found.rows:
        table.add_row(*(escape(printable_lines(cell)) for cell in row))
    console.print(table)
    console.print(found.inputs, highlight=False)


def _inspect_network(path: str, **options: Any) -> None:
    """Print what conversion makes of a user's network, and warnings about its code."""
    from batchensemble.ensembles import BatchEnsemble
    from batchensemble.ensembles.conversion.report import report_table
    from batchensemble.ensembles.networks import find_network

    try:
        report = BatchEnsemble(find_network(path), **options).report()
    except (ValueError, TypeError, ImportError) as error:
        refuse(error)
    # A pipe has no width, and a cut table no use.
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(report_table(f"BatchEnsemble of {path}", report))
    for warning in report.warnings:
        console.print(f"Warning: {warning}", markup=False)
