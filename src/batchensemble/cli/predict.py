"""``batchensemble predict``: predictions with uncertainty for every row of a file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from batchensemble.cli.notes import rate_of_long_work, table_notes
from batchensemble.cli.options import (
    INTERRUPTED,
    DeviceOption,
    ModelArgument,
    QuietOption,
    csv_dialect,
    errors,
    network_and_trust,
    printable_lines,
    refuse,
    with_options,
)
from batchensemble.data.tables.dialects import Dialect


@with_options(dialect=csv_dialect, network=network_and_trust)
def predict_command(
    folder: ModelArgument,
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            "-d",
            metavar="PATH",
            help="CSV, Parquet or Feather file, or folder of Parquet files, with the columns that "
            "the model was trained on. Other columns are ignored.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Output file, .csv or .parquet.")],
    id: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="Column to copy to the output. \\[default: the row number]"
        ),
    ] = None,
    *,
    dialect: Dialect,
    device: DeviceOption = None,
    network: dict[str, Any],
    quiet: QuietOption = False,
) -> None:
    """Predict every row of a file, with uncertainty.

    Classification: the label and the probability of each class. Regression:
    the mean and the 90 % interval. Both: total, aleatoric and epistemic
    uncertainty; and after [bold]batchensemble decide[/bold], whether to
    answer, and a conformal set or interval.

    Files may be larger than memory. Repeat an interrupted command to resume
    it; the result is identical.

    [bold]Examples[/bold]

      batchensemble predict runs/p --data new.csv --id patient --out found.csv

      batchensemble predict runs/p --data millions.parquet --out predictions.parquet
    """
    from batchensemble.cli.workflows.predict import predict_file
    from batchensemble.core.atomic_files import leaving_nothing_empty

    try:
        with leaving_nothing_empty(out.parent), table_notes(None if quiet else Console()):
            out.parent.mkdir(parents=True, exist_ok=True)
            start = time.perf_counter()
            rows = predict_file(
                folder,
                data,
                out,
                id=id,
                device=device,
                progress=False if quiet else None,
                dialect=dialect,
                **network,
            )
    except (ValueError, TypeError, ImportError, OSError, RuntimeError) as error:
        refuse(error)
    except KeyboardInterrupt:
        errors.print("Interrupted; give the same command again to resume.")
        raise typer.Exit(INTERRUPTED) from None
    if not quiet:
        console = Console(highlight=False)
        rate = rate_of_long_work(rows, time.perf_counter() - start)
        console.print(
            f"{rows:,} rows: {out}{f' ({rate})' if rate else ''}", soft_wrap=True, markup=False
        )
        _print_guarantees(console, folder)


def _print_guarantees(console: Console, path: Path) -> None:
    """Print what the columns of a decision guarantee, and notes on the intervals."""
    from batchensemble.cli.workflows.decision import DECISION, read_decision
    from batchensemble.cli.workflows.model_folder import ModelFolder
    from batchensemble.cli.workflows.scored_rows import notes_on
    from batchensemble.cli.workflows.wording import guarantee
    from batchensemble.losses import from_dict

    folder = ModelFolder(path)
    loss = folder.config.get("loss")
    for note in notes_on(None if loss is None else from_dict(loss)):
        console.print(f"Note: {note}", markup=False, soft_wrap=not console.is_terminal)
    decision = read_decision(folder)
    if decision is not None:
        added = ", ".join(decision.names)
        console.print(f"{added}: by {path / DECISION}", soft_wrap=True, markup=False)
        # A pipe has no width to break lines at.
        console.print(
            printable_lines(guarantee(decision)), markup=False, soft_wrap=not console.is_terminal
        )
