"""``batchensemble report``: the page of a comparison or of a model, again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from batchensemble.cli.options import (
    DecimalOption,
    EncodingOption,
    GapsOption,
    NetworkOption,
    SeparatorOption,
    TrustOption,
    calm,
    dialect_of,
    given,
    refuse,
    writable,
)

FORMATS = ("html", "md")


def report(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder that compare or train wrote.")
    ],
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            "-d",
            help="Of a model: a file or a named data set to score it on; by default what was held "
            "out from its training. Of a comparison: where its file is now.",
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="The column of labels; by default as in training.")
    ] = None,
    network: NetworkOption = None,
    trust: TrustOption = False,
    separator: SeparatorOption = None,
    decimal: DecimalOption = None,
    encoding: EncodingOption = None,
    gaps: GapsOption = None,
    format: Annotated[
        str, typer.Option("--format", help="html, a page; or md, Markdown for a pull request.")
    ] = "html",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Of html: the folder of report.html and its figures, by default DIR. Of md: the "
            "file, by default it is printed."
        ),
    ] = None,
) -> None:
    """Write the report of a comparison or of one trained model; nothing is trained.

    Of a comparison, from the files under [bold]DIR/runs[/bold]. Of a model that [bold]train[/bold]
    left, what it says on its held-out examples, or on [bold]--data[/bold].

    [bold]Examples[/bold]

      batchensemble report runs/moons

      batchensemble report runs/moons --format md

      batchensemble report runs/p --data new_patients.csv --target outcome --out reports/new

      batchensemble report runs/p --format md --out verdict.md
    """
    from batchensemble.cli.workflows.report import of_folder
    from batchensemble.core.arguments import one_of
    from batchensemble.report import markdown, write_page

    try:
        one_of("format", format, FORMATS)
        dialect = dialect_of(separator, decimal, encoding, gaps)
        subject = of_folder(
            folder, data, target, dialect=dialect, network=given(network), trust=trust
        )
        if format == "md":
            text = markdown(subject)
            if out is None:
                print(calm(text), end="")
                return
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(text, encoding="utf-8")
            place = out
        else:
            place = write_page(subject, writable(out or folder))
    except (ValueError, TypeError, ImportError, OSError, RuntimeError) as error:
        refuse(error)
    Console().print(f"report: {place}", soft_wrap=True, markup=False, highlight=False)
