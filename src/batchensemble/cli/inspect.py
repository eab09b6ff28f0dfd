"""``batchensemble inspect``: what an ensemble of a network shares, module by module."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from batchensemble.cli.compare import load_data, settings_of
from batchensemble.cli.options import (
    WHOLE,
    DataSetOption,
    FileTargetOption,
    HiddenOption,
    MembersOption,
    MethodsOption,
    refuse,
)

if TYPE_CHECKING:
    pass


def inspect(
    network: Annotated[
        str | None,
        typer.Argument(
            metavar="[PACKAGE.MODULE:FUNCTION]",
            help="A function without arguments that returns your network, or the network itself. "
            "Without it: the networks of a comparison.",
        ),
    ] = None,
    data: DataSetOption = "moons",
    target: FileTargetOption = None,
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
        settings = settings_of(methods=methods, members=members, hidden=hidden)
        loaded = load_data(data, target)
    except (ValueError, TypeError, OSError) as error:
        refuse(error)
    from batchensemble.comparison.compare import build
    from batchensemble.comparison.wording import titled
    from batchensemble.report.terminal import ensemble_table

    console = Console()
    for method in settings.methods:
        console.print(ensemble_table(titled(method), build(method, settings, loaded, seed=0)))


def _inspect_network(path: str, **options: Any) -> None:
    """Print what conversion makes of a user's network, and what may defeat it."""
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
