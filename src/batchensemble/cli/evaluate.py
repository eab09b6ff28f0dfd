"""``batchensemble evaluate``: the scores of a model."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console

from batchensemble.cli.options import (
    DecimalOption,
    DeviceOption,
    EncodingOption,
    GapsOption,
    ModelArgument,
    NetworkOption,
    SeparatorOption,
    TargetOption,
    TrustOption,
    calm,
    dialect_of,
    errors,
    given,
    refuse,
)


def evaluate(
    folder: ModelArgument,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            "-d",
            help="A CSV, Parquet or Feather file or a folder of Parquet files, of which all rows "
            "count, or a named data set, of which the held-out ones do; by default what was held "
            "out from training.",
        ),
    ] = None,
    target: TargetOption = None,
    separator: SeparatorOption = None,
    decimal: DecimalOption = None,
    encoding: EncodingOption = None,
    gaps: GapsOption = None,
    device: DeviceOption = None,
    network: NetworkOption = None,
    trust: TrustOption = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the scores as JSON instead of a table.")
    ] = False,
) -> None:
    """Score a model on data with targets: accuracy, NLL, Brier score, ECE, disagreement; of numbers
    RMSE, NLL, CRPS, coverage of the interval of 90%.

    Memory does not grow with the file.

    [bold]Examples[/bold]

      batchensemble evaluate runs/moons-4

      batchensemble evaluate runs/p --data new_patients.csv --target outcome --json
    """
    from batchensemble.cli.workflows.evaluate import evaluate_folder

    try:
        rows, scores = evaluate_folder(
            folder,
            data,
            target,
            device=device,
            network=given(network),
            trust=trust,
            dialect=dialect_of(separator, decimal, encoding, gaps),
        )
    except (ValueError, TypeError, ImportError, OSError, RuntimeError) as error:
        refuse(error)
    console = errors if as_json else Console(highlight=False)
    if as_json:
        # JSON has no number for what is not known.
        known = {name: None if value != value else value for name, value in scores.items()}
        print(json.dumps(known))
    else:
        from batchensemble.report.terminal import scores_table

        console.print(scores_table(calm(rows.title), scores))
    for note in rows.notes:
        console.print(f"Note: {calm(note)}", markup=False)
