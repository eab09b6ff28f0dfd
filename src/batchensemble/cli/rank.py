"""``batchensemble rank``: methods over several data sets."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from batchensemble.cli.options import JsonOption, refuse

if TYPE_CHECKING:
    from batchensemble.comparison.ranking import Ranking


def rank_command(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="DIR", help="Folders written by compare, one per data set."),
    ],
    by: Annotated[
        str,
        typer.Option(
            metavar="SCORE",
            help="Score to rank by. Classification: nll, accuracy, brier or ece; regression: nll, "
            "crps, rmse, mae, r2 or pinball.",
        ),
    ] = "nll",
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Draw a critical difference diagram of the mean ranks, .svg or .png.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Rank methods over several data sets, with tests of significance.

    On each data set, methods are ranked by their mean score over the seeds.
    Friedman's test says whether mean ranks differ at all; two methods differ
    significantly at 95 % if their mean ranks differ by at least the critical
    difference (Nemenyi test, as in Demšar 2006).

    Nothing is trained. First run the comparisons:

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
    # A pipe has no width, and a table that is cut off is useless.
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
