"""``batchensemble decide``: when to answer, and what the truth may be beside the answer."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console

from batchensemble.cli.options import (
    NUMBER,
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
    given,
    refuse,
)


def decide(
    folder: ModelArgument,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            "-d",
            help="Rows that neither trained nor chose the model: a CSV, Parquet or Feather file or "
            "a folder of Parquet files; by default what was held out from training.",
        ),
    ] = None,
    target: TargetOption = None,
    separator: SeparatorOption = None,
    decimal: DecimalOption = None,
    encoding: EncodingOption = None,
    gaps: GapsOption = None,
    risk: Annotated[
        float,
        typer.Option(help="Share of the answers that may be wrong, above 0 and below 1.", **NUMBER),
    ] = 0.05,
    confidence: Annotated[
        float,
        typer.Option(
            help="How sure that must be, over the draw of the held-out examples.", **NUMBER
        ),
    ] = 0.95,
    by: Annotated[
        str,
        typer.Option(
            help="The uncertainty to go by: total, aleatoric or epistemic; of classes confidence "
            "too."
        ),
    ] = "total",
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="Of numbers: an answer that is off by more is wrong, in the unit of the target. "
            "Without it there are intervals and no threshold.",
            **NUMBER,
        ),
    ] = None,
    coverage: Annotated[
        float,
        typer.Option(
            help="Share of new examples whose truth the set of classes or the interval must hold.",
            **NUMBER,
        ),
    ] = 0.9,
    device: DeviceOption = None,
    network: NetworkOption = None,
    trust: TrustOption = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what is written, decision.json.")
    ] = False,
) -> None:
    """Find out when a model may answer, so that errors stay as rare as you say.

    On held-out examples it finds the uncertainty below which answers are good enough, and a set of
    classes, or an interval, that holds the truth as often as asked. Both hold for new examples of
    the same kind. It leaves [bold]decision.json[/bold] in DIR: from then on
    [bold]batchensemble predict[/bold] adds the columns [bold]answer[/bold] (True or False) and
    [bold]set[/bold], or [bold]conformal_lower[/bold] and [bold]conformal_upper[/bold]. Delete the
    file to be rid of them.

    [bold]Examples[/bold]

      batchensemble decide runs/p

      batchensemble decide runs/p --risk 0.01 --by epistemic --coverage 0.95

      batchensemble decide runs/p --data other_patients.csv --target outcome

      batchensemble decide runs/prices --tolerance 20000 --risk 0.1
    """
    from batchensemble.cli.workflows.decide import decide_folder
    from batchensemble.cli.workflows.wording import in_words

    try:
        decision = decide_folder(
            folder,
            data,
            target,
            risk=risk,
            confidence=confidence,
            by=by,
            tolerance=tolerance,
            coverage=coverage,
            device=device,
            network=given(network),
            trust=trust,
            dialect=dialect_of(separator, decimal, encoding, gaps),
        )
        path = decision.write(folder)
    except (ValueError, TypeError, ImportError, OSError, RuntimeError) as error:
        refuse(error)
    if as_json:
        print(json.dumps(decision.to_dict()))
        return
    console = Console(highlight=False)
    console.print(calm(decision.data), style="bold", markup=False)
    for title, text in in_words(decision):
        # A pipe has no width to break lines at.
        console.print(calm(f"{title}: {text}"), markup=False, soft_wrap=not console.is_terminal)
    added = ", ".join(decision.names)
    written = f"written: {path}; batchensemble predict {folder} now adds {added}"
    console.print(calm(written), markup=False, soft_wrap=True)
