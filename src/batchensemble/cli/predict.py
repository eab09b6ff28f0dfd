"""``batchensemble predict``: each row of a file, and how uncertain that is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from batchensemble.cli.options import (
    INTERRUPTED,
    DecimalOption,
    DeviceOption,
    EncodingOption,
    GapsOption,
    ModelArgument,
    NetworkOption,
    QuietOption,
    SeparatorOption,
    TrustOption,
    calm,
    dialect_of,
    errors,
    given,
    refuse,
)


def predict(
    folder: ModelArgument,
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            "-d",
            help="A CSV, Parquet or Feather file or a folder of Parquet files with the model's "
            "columns.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Where to: a path that ends in .csv or .parquet.")],
    id: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="A column to copy beside; by default row, from 1."),
    ] = None,
    separator: SeparatorOption = None,
    decimal: DecimalOption = None,
    encoding: EncodingOption = None,
    gaps: GapsOption = None,
    device: DeviceOption = None,
    network: NetworkOption = None,
    trust: TrustOption = False,
    quiet: QuietOption = False,
) -> None:
    """Predict each row of a file of any size: label and probabilities, or mean and interval of 90%,
    and three uncertainties. After [bold]decide[/bold] also whether to answer, and a set of classes
    or an interval that holds the truth as often as asked there.

    Memory does not grow with the file. An interrupted prediction goes on where it was when the same
    command is given again, and the result is the same as of one that was not.

    [bold]Examples[/bold]

      batchensemble predict runs/p --data new_patients.csv --id patient --out predictions.csv

      batchensemble predict runs/p --data millions.parquet --out predictions.parquet
    """
    from batchensemble.cli.workflows.predict import predict_file
    from batchensemble.core.atomic_files import leaving_nothing_empty

    try:
        dialect = dialect_of(separator, decimal, encoding, gaps)
        with leaving_nothing_empty(out.parent):
            out.parent.mkdir(parents=True, exist_ok=True)
            rows = predict_file(
                folder,
                data,
                out,
                id=id,
                device=device,
                progress=False if quiet else None,
                network=given(network),
                trust=trust,
                dialect=dialect,
            )
    except (ValueError, TypeError, ImportError, OSError, RuntimeError) as error:
        refuse(error)
    except KeyboardInterrupt:
        errors.print("Interrupted; what is done stays, and the same command goes on from there.")
        raise typer.Exit(INTERRUPTED) from None
    if not quiet:
        console = Console(highlight=False)
        console.print(f"{rows:,} rows: {out}", soft_wrap=True, markup=False)
        _say_promise(console, folder)


def _say_promise(console: Console, path: Path) -> None:
    """Say what intervals are good for, and the columns that a decision added, if there is one."""
    from batchensemble.cli.workflows.decision import DECISION, decision_of
    from batchensemble.cli.workflows.model_folder import ModelFolder
    from batchensemble.cli.workflows.scored_rows import notes_on
    from batchensemble.cli.workflows.wording import promise
    from batchensemble.losses import from_dict

    folder = ModelFolder(path)
    loss = folder.config.get("loss")
    for note in notes_on(None if loss is None else from_dict(loss)):
        console.print(f"Note: {note}", markup=False, soft_wrap=not console.is_terminal)
    decision = decision_of(folder)
    if decision is not None:
        added = ", ".join(decision.names)
        console.print(f"{added}: by {path / DECISION}", soft_wrap=True, markup=False)
        # A pipe has no width to break lines at.
        console.print(calm(promise(decision)), markup=False, soft_wrap=not console.is_terminal)
