"""``batchensemble evaluate`` and ``batchensemble predict``: what a trained model is for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from batchensemble.commands.options import (
    INTERRUPTED,
    DecimalOption,
    EncodingOption,
    GapsOption,
    SeparatorOption,
    calm,
    dialect_of,
    errors,
    refuse,
)

ModelArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="Folder of a model, such as train leaves.")
]
DeviceOption = Annotated[
    str | None, typer.Option(help="Where the model runs, such as cuda; by default cpu.")
]
TargetOption = Annotated[
    str | None,
    typer.Option(help="The column of labels or numbers; by default as in training."),
]
NetworkOption = Annotated[
    str | None,
    typer.Option(
        metavar="PACKAGE.MODULE:FUNCTION",
        help="What makes the plain network, where the library cannot; looked for here too.",
    ),
]
TrustOption = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Import and run what DIR names to make its network, if that is installed; by default "
        "nothing is.",
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]


def given(network: str | None) -> Any:
    """Return the network that the user names, if one is named."""
    from batchensemble.inspection import find_network

    return None if network is None else find_network(network)


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
    from batchensemble.evaluate_file import evaluate_folder

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
        from batchensemble.terminal import scores_table

        console.print(scores_table(calm(rows.title), scores))
    for note in rows.notes:
        console.print(f"Note: {calm(note)}", markup=False)


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
    from batchensemble.disk import leaving_nothing_empty
    from batchensemble.predict_file import predict_file

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
    from batchensemble.decision import DECISION, decision_of
    from batchensemble.decision_in_words import promise
    from batchensemble.losses import from_dict
    from batchensemble.model_folder import ModelFolder
    from batchensemble.scored_rows import notes_on

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
