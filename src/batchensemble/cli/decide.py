"""``batchensemble decide``: when a model should answer, and conformal sets and intervals."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console

from batchensemble.cli.notes import table_notes
from batchensemble.cli.options import (
    NUMBER,
    DeviceOption,
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


def guarantees(
    risk: Annotated[
        float,
        typer.Option(
            help="Largest acceptable error rate among answered rows, between 0 and 1.", **NUMBER
        ),
    ] = 0.05,
    confidence: Annotated[
        float,
        typer.Option(
            help="Probability with which --risk must hold, over the choice of held-out rows.",
            **NUMBER,
        ),
    ] = 0.95,
    by: Annotated[
        str,
        typer.Option(
            metavar="UNCERTAINTY",
            help="Uncertainty that the threshold is on: total, aleatoric or epistemic; for classes "
            "also confidence.",
        ),
    ] = "total",
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="Regression: the largest error of a correct answer, in the unit of the target. "
            "Without it, only intervals are computed.",
            **NUMBER,
        ),
    ] = None,
    coverage: Annotated[
        float,
        typer.Option(
            help="Probability that a prediction set or interval contains the true value.",
            **NUMBER,
        ),
    ] = 0.9,
    by_class: Annotated[
        bool | None,
        typer.Option(
            "--by-class/--over-all",
            help="Whether the sets have that probability in each class. \\[default: by class "
            "where a class has less than 10 % of the rows, and each has enough]",
        ),
    ] = None,
) -> dict[str, Any]:
    """Return what the decision must guarantee."""
    return dict(locals())


@with_options(guarantee=guarantees, dialect=csv_dialect, network=network_and_trust)
def decide_command(
    folder: ModelArgument,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            "-d",
            metavar="NAME|PATH",
            help="Rows that were used neither to train nor to select the model: a CSV, Parquet or "
            "Feather file or a folder of Parquet files. "
            "\\[default: the rows that training kept for calibration]",
        ),
    ] = None,
    target: TargetOption = None,
    *,
    guarantee: dict[str, Any],
    dialect: Dialect,
    device: DeviceOption = None,
    network: dict[str, Any],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the content of decision.json.")
    ] = False,
) -> None:
    """Decide when a model should answer, and compute conformal sets.

    From rows kept for calibration, finds the uncertainty threshold below which the error
    rate is at most --risk, and conformal prediction sets (classes) or
    intervals (regression) with the coverage asked for. Both guarantees hold
    for new rows from the same distribution, and are checked on the rows
    that are kept for scoring.

    Writes [bold]DIR/decision.json[/bold]. From then on
    [bold]batchensemble predict[/bold] adds the columns answer (True or
    False) and set, or conformal_lower and conformal_upper. Delete the file
    to undo it.

    [bold]Examples[/bold]

      batchensemble decide runs/p

      batchensemble decide runs/p --risk 0.01 --by epistemic --coverage 0.95

      batchensemble decide runs/p --data more_patients.csv --target outcome

      batchensemble decide runs/prices --tolerance 20000 --risk 0.1
    """
    from batchensemble.cli.workflows.decide import decide_folder
    from batchensemble.cli.workflows.wording import in_words

    try:
        with table_notes(errors if as_json else Console()):
            decision = decide_folder(
                folder,
                data,
                target,
                device=device,
                dialect=dialect,
                **guarantee,
                **network,
            )
        path = decision.write(folder)
    except (ValueError, TypeError, ImportError, OSError, RuntimeError) as error:
        refuse(error)
    if as_json:
        print(json.dumps(decision.to_dict()))
        return
    console = Console(highlight=False)
    console.print(printable_lines(decision.data), style="bold", markup=False)
    for title, text in in_words(decision):
        # A pipe has no width to break lines at.
        console.print(
            printable_lines(f"{title}: {text}"), markup=False, soft_wrap=not console.is_terminal
        )
    added = ", ".join(decision.names)
    written = f"written: {path}; batchensemble predict {folder} now adds {added}"
    console.print(printable_lines(written), markup=False, soft_wrap=True)
