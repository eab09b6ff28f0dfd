"""``batchensemble evaluate``: the scores of a model."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console

from batchensemble.cli.notes import table_notes
from batchensemble.cli.options import (
    DeviceOption,
    JsonOption,
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
def evaluate_command(
    folder: ModelArgument,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            "-d",
            metavar="NAME|PATH",
            help="A CSV, Parquet or Feather file or a folder of Parquet files, or the held-out "
            "rows of a named data set. \\[default: the rows held out from training]",
        ),
    ] = None,
    target: TargetOption = None,
    *,
    dialect: Dialect,
    device: DeviceOption = None,
    network: dict[str, Any],
    as_json: JsonOption = False,
) -> None:
    """Evaluate a saved model on data with targets.

    Classification: accuracy, balanced accuracy, AUC, average precision, NLL,
    Brier score, ECE, the disagreement of the members, and the confusion
    matrix. Regression: RMSE, MAE, R², NLL, CRPS, and coverage and width of
    the 90 % interval. Beside them stand the scores of a constant prediction.

    Files are read block by block, so they may be larger than memory.

    [bold]Examples[/bold]

      batchensemble evaluate runs/moons-4

      batchensemble evaluate runs/p --data new_patients.csv --target outcome --json
    """
    from batchensemble.cli.workflows.evaluate import evaluate_folder

    console = errors if as_json else Console(highlight=False)
    with table_notes(console) as notes:
        try:
            rows, scores = evaluate_folder(
                folder,
                data,
                target,
                device=device,
                dialect=dialect,
                **network,
            )
        except (ValueError, TypeError, ImportError, OSError, RuntimeError) as error:
            refuse(error)
        if as_json:
            # JSON has no number for what is not known.
            known = {name: None if value != value else value for name, value in scores.items()}
            print(json.dumps(known))
        else:
            from batchensemble.report.terminal import score_tables

            for table in score_tables(printable_lines(rows.title), scores):
                console.print(table)
        notes.add(rows.notes)
