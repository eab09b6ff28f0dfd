"""``batchensemble card``: the model card of a saved model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from batchensemble.cli.notes import table_notes, working
from batchensemble.cli.options import (
    ModelArgument,
    TargetOption,
    csv_dialect,
    errors,
    network_and_trust,
    printable_lines,
    refuse,
    with_options,
)
from batchensemble.data.tables.dialects import Dialect


@with_options(dialect=csv_dialect, network=network_and_trust)
def card_command(
    folder: ModelArgument,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            "-d",
            metavar="NAME|PATH",
            help="Data to score it on, which it was not trained on. "
            "\\[default: the rows held out from training]",
        ),
    ] = None,
    target: TargetOption = None,
    *,
    dialect: Dialect,
    network: dict[str, Any],
    scores: Annotated[
        bool, typer.Option("--scores/--no-scores", help="Whether to score the model.")
    ] = True,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Its name on the Hugging Face Hub, such as ann/moons."),
    ] = None,
    title: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Title. \\[default: method and number of members]"),
    ] = None,
    license: Annotated[
        str | None, typer.Option(metavar="ID", help="License of the model, such as mit.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="PATH", help="File to write. \\[default: DIR/README.md]")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that batchensemble did not write.")
    ] = False,
) -> None:
    """Write the model card of a saved model, as the Hugging Face Hub reads it.

    It says what the model is, its scores with intervals and calibration, when
    it may answer ([bold]decide[/bold]) and when not to trust it, how to load
    it and how it was made. What is not known is left out.

    [bold]Examples[/bold]

      batchensemble card runs/p --license mit --name ann/patients

      batchensemble card runs/p --data new.csv --target outcome --out card.md
    """
    from batchensemble.cli.workflows.card import card_of_folder
    from batchensemble.core.atomic_files import write_whole
    from batchensemble.ensembles.saving.hub import CARD
    from batchensemble.report.publishing import check_card

    place = folder / CARD if out is None else out
    try:
        if not overwrite:
            check_card(place, "--overwrite replaces it, --out writes another file")
        with table_notes(errors), working(errors, "reading and scoring"):
            text = card_of_folder(
                folder,
                data,
                target,
                scores=scores,
                name=name,
                title=title,
                license=license,
                dialect=dialect,
                **network,
            )
        place.parent.mkdir(parents=True, exist_ok=True)
        write_whole(place, text.encode("utf-8", "replace"))
    except (ValueError, TypeError, ImportError, OSError, RuntimeError) as error:
        refuse(error)
    written = printable_lines(f"card: {place}")
    Console().print(written, soft_wrap=True, markup=False, highlight=False)
