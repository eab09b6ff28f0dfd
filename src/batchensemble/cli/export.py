"""``batchensemble export``: a saved model as one file that other programs run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from batchensemble.cli.options import (
    ModelArgument,
    network_and_trust,
    parse_list,
    printable_lines,
    refuse,
    with_options,
)

EXPORT_FORMATS = ("onnx", "pt2")


@with_options(network=network_and_trust)
def export_command(
    folder: ModelArgument,
    form: Annotated[
        str,
        typer.Option("--format", metavar="FORMAT", help="onnx, or pt2 for torch.export.load."),
    ] = "onnx",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help="The file. \\[default: DIR/model.onnx or .pt2]"
        ),
    ] = None,
    members: Annotated[
        bool, typer.Option("--members", help="Each member's prediction is an output, too.")
    ] = False,
    layout: Annotated[
        str,
        typer.Option(
            metavar="LAYOUT",
            help="shared: the file holds the shared weights once; merged: those of each member; "
            "auto chooses by the network.",
        ),
    ] = "auto",
    quantise: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="int8: a quarter of the bytes, with rounded weights."),
    ] = None,
    quantiles: Annotated[
        str | None,
        typer.Option(metavar="LEVELS", help="Regression: quantiles to add, such as 0.05,0.5,0.95."),
    ] = None,
    *,
    network: dict[str, Any],
) -> None:
    """Write a model into one file that predicts with its uncertainty.

    The file takes the columns of the table by name, as they are, and gives
    the mean, and the total, aleatoric and epistemic uncertainty. If
    [bold]decide[/bold] found a threshold, it also gives answer: whether to
    answer the row. It needs nothing of this package, and is compared with the
    model before it is written.

    Needs [bold]pip install 'batchensemble\\[export]'[/bold].

    [bold]Examples[/bold]

      batchensemble export runs/p

      batchensemble export runs/prices --quantiles 0.05,0.95 --out prices.onnx
    """
    from batchensemble.cli.workflows.export import export_folder
    from batchensemble.core.arguments import one_of

    try:
        one_of("--format", form, EXPORT_FORMATS)
        levels = [float(each) for each in parse_list(quantiles or "")]
        found = export_folder(
            folder,
            form,
            out,
            members=members,
            layout=layout,
            quantise=quantise,
            quantiles=levels,
            **network,
        )
    except (ValueError, TypeError, ImportError, OSError, RuntimeError) as error:
        refuse(error)
    Console(highlight=False).print(printable_lines(str(found)), markup=False, soft_wrap=True)
