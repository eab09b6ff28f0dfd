"""``batchensemble inspect``: shared and per-member parameters, module by module."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from rich.console import Console

from batchensemble.cli.compare import load_data, settings_of
from batchensemble.cli.options import (
    MODEL,
    WHOLE,
    DataSetOption,
    FileTargetOption,
    HiddenOption,
    MembersOption,
    MethodsOption,
    refuse,
)


def inspect_command(
    network: Annotated[
        str | None,
        typer.Argument(
            metavar="[PACKAGE.MODULE:FUNCTION]",
            help="Your network: a function without arguments that returns it, or the module "
            "itself. \\[default: the networks that compare trains]",
        ),
    ] = None,
    data: DataSetOption = "moons",
    target: FileTargetOption = None,
    methods: MethodsOption = "single,deep,batch,mimo",
    members: MembersOption = 3,
    hidden: HiddenOption = "128,128",
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
    """Show which parameters members share and which each member has.

    Lists an ensemble module by module: its kind, shapes, and how many
    parameters are shared and per member. For your own network it also warns
    of code that cannot be converted.

    [bold]Examples[/bold]

      batchensemble inspect torchvision.models:resnet18 --members 4

      batchensemble inspect my_package.networks:make --mode additive --rank 4

      batchensemble inspect --methods deep,batch --members 8
    """
    if network is not None:
        _inspect_network(network, members=members, mode=mode, rank=rank)
        return
    try:
        settings = settings_of(methods=methods, members=members, hidden=hidden)
        loaded = load_data(data, target)
    except (ValueError, TypeError, OSError) as error:
        refuse(error)
    from batchensemble.comparison.compare import build_ensemble
    from batchensemble.comparison.wording import method_title
    from batchensemble.ensembles.conversion.report import report_table

    console = Console()
    for method in settings.methods:
        model = build_ensemble(method, settings, loaded, seed=0)
        console.print(report_table(method_title(method), model.report()))


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
