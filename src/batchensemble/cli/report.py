"""``batchensemble report``: the report of a comparison or of a saved model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from batchensemble.cli.notes import table_notes, working
from batchensemble.cli.options import (
    TargetOption,
    csv_dialect,
    errors,
    network_and_trust,
    printable_lines,
    refuse,
    with_options,
    writable,
)
from batchensemble.data.tables.dialects import Dialect

REPORT_FORMATS = ("html", "md")


@with_options(dialect=csv_dialect, network=network_and_trust)
def report_command(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder written by compare or train.")
    ],
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            "-d",
            metavar="NAME|PATH",
            help="For a model: data to evaluate it on. "
            "\\[default: the rows held out from training] For a comparison: "
            "the new path of its file, if it was moved.",
        ),
    ] = None,
    target: TargetOption = None,
    *,
    dialect: Dialect,
    network: dict[str, Any],
    format: Annotated[
        str,
        typer.Option("--format", metavar="FORMAT", help="html, or md for Markdown."),
    ] = "html",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="For html: the folder of report.html and its figures. \\[default: DIR] "
            "For md: the file. \\[default: print it]",
        ),
    ] = None,
) -> None:
    """Write the report of a comparison, or of one trained model.

    Nothing is trained: a comparison is read from [bold]DIR/runs[/bold], a
    model is evaluated on its held-out rows, or on [bold]--data[/bold].

    [bold]Examples[/bold]

      batchensemble report runs/moons

      batchensemble report runs/moons --format md

      batchensemble report runs/p --data new.csv --target outcome --out new

      batchensemble report runs/p --format md --out verdict.md
    """
    from batchensemble.cli.workflows.report import subject_from_folder
    from batchensemble.core.arguments import one_of
    from batchensemble.report import markdown, write_page

    try:
        one_of("format", format, REPORT_FORMATS)
        with table_notes(errors), working(errors, "reading and scoring"):
            subject = subject_from_folder(folder, data, target, dialect=dialect, **network)
        if format == "md":
            text = markdown(subject)
            if out is None:
                print(printable_lines(text), end="")
                return
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(text, encoding="utf-8")
            place = out
        else:
            with working(errors, "drawing the figures"):
                place = write_page(subject, writable(out or folder))
    except (ValueError, TypeError, ImportError, OSError, RuntimeError) as error:
        refuse(error)
    Console().print(f"report: {place}", soft_wrap=True, markup=False, highlight=False)
