"""``batchensemble rank``: methods over several data sets."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from batchensemble.cli.options import refuse

if TYPE_CHECKING:
    from batchensemble.comparison.ranking import Ranking


def rank(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="DIR", help="Folders that compare wrote, a data set each."),
    ],
    by: Annotated[
        str,
        typer.Option(
            help="The score: nll, accuracy, brier or ece of classes; nll, crps, rmse, mae, r2 or "
            "pinball of numbers."
        ),
    ] = "nll",
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Draw the mean ranks, and what is not told apart: .svg or .png."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the ranks as JSON instead of a table.")
    ] = False,
) -> None:
    """Rank methods over several data sets, and say which differences are more than chance.

    On each data set the methods are ranked by their mean over the seeds.
    Friedman's test says whether their mean ranks differ at all; two methods
    are told apart from the critical difference on (Nemenyi, as in Demšar
    2006), at 95%. Nothing is trained; make the folders before:

      for data in moons digits breast_cancer; do

        batchensemble compare --data $data --seeds 5 --out runs/$data

      done

    [bold]Examples[/bold]

      batchensemble rank runs/moons runs/digits runs/breast_cancer

      batchensemble rank runs/* --by accuracy --plot ranks.svg
    """
    from batchensemble.comparison.ranking import p_text, rank_folders, sentence
    from batchensemble.report.terminal import ranking_table

    try:
        ranking = rank_folders(folders, by)
        if plot is not None:
            _draw(ranking, plot)
    except (ValueError, TypeError, OSError) as error:
        refuse(error)
    if as_json:
        print(json.dumps({**ranking.to_dict(), "sentence": sentence(ranking)}))
        return
    # A pipe has no width, and a cut table no use.
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    console.print(ranking_table(ranking))
    found = ranking.over_all
    console.print(
        f"Friedman's test: {p_text(found.p_value)}; critical difference of mean ranks "
        f"{found.critical_difference:.2f} (95%)"
    )
    console.print(sentence(ranking), markup=False)
    for note in ranking.notes:
        console.print(f"Note: {note}", markup=False)
    if plot is not None:
        console.print(f"diagram: {plot}", markup=False, soft_wrap=True)


def _draw(ranking: Ranking, path: Path) -> None:
    from batchensemble.report.plots import figure_of, mean_ranks, save_as
    from batchensemble.report.plots.ranks import described

    save_as(figure_of(mean_ranks(ranking)), path, described(ranking))
