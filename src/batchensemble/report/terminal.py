"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from batchensemble.comparison.constant import constant_scores
from batchensemble.comparison.ranking import Ranking
from batchensemble.comparison.results import Comparison
from batchensemble.comparison.summary import (
    COST,
    Cell,
    Column,
    Row,
    format_deviation,
    format_number,
    quality,
    summarise,
)
from batchensemble.comparison.wording import printable
from batchensemble.core.printed_tables import significant, terminal_table
from batchensemble.metrics import Confusion, Scores
from batchensemble.report.subject import epochs_of

SIDE_BY_SIDE = 4  # methods
MOST_COLUMNS = 8  # classes whose confusion fits a terminal
SCORE_TITLES = {
    "coverage": "coverage of intervals",
    "coverage_meant": "nominal coverage",
    "width": "width of intervals",
    "epistemic": "epistemic deviation",
    "aleatoric": "aleatoric deviation",
}


def comparison_table(comparison: Comparison) -> Table:
    """Return a table with a column for each method and a row for each score.

    A score that is significantly better than all others is bold. Where none is, the best and those
    not significantly different from it have a ≈. Four methods side by side fit a narrow terminal;
    more of them follow below.
    """
    rows = summarise(comparison)
    width = -(-len(rows) // -(-len(rows) // SIDE_BY_SIDE))  # of blocks that are about as wide
    blocks = [rows[start : start + width] for start in range(0, len(rows), width)]
    table = terminal_table(f"{_facts(comparison)}\n[not bold]{_legend(comparison)}[/not bold]")
    table.add_column("")
    for row in blocks[0]:
        table.add_column(row.name, justify="right", no_wrap=True)
    table.caption, table.caption_justify = Text(_constant(comparison)), "left"
    for number, block in enumerate(blocks):
        if number:
            table.add_row("", *(Text(row.name, "bold") for row in block))
            table.add_section()
        for columns in (quality(comparison), COST):
            for column in columns:
                table.add_row(*_line(block, column))
            table.add_section()
    return table


def _line(rows: Sequence[Row], column: Column) -> list[str]:
    """Return a column of the summary as a line of the table: its title, and each method's cell."""
    unit = f", {column.unit}" if column.unit else ""
    cells = [row.cells[column.key] for row in rows]
    # The deviation has a line of its own, so that four methods fit a narrow terminal.
    texts = [cell.text.replace(" ± ", "\n± ") for cell in cells]
    marked = [_marked(cell, text) for cell, text in zip(cells, texts, strict=True)]
    return [f"{column.title}{unit}", *marked]


def _legend(comparison: Comparison) -> str:
    several = _seeds(comparison) > 1
    untested = [] if several else ["times"]
    untested += [each.title for each in quality(comparison) if each.noise == "untested"]
    over = "seeds and examples" if several else "examples"
    over += f"; not tested: {', '.join(untested)}" if untested else ""
    return f"bold: significantly best, ≈: not significantly worse than the best (95%, over {over})"


def _constant(comparison: Comparison) -> str:
    """Return the scores of the constant prediction in a sentence."""
    constant = constant_scores(comparison)
    scores = [
        f"{column.title} {format_number(constant.scores[column.key], column)}"
        for column in quality(comparison)
        if column.key in constant.scores
    ]
    return f"constant prediction, {printable(constant.prediction)}: {', '.join(scores)}"


def _marked(cell: Cell, text: str) -> str:
    if cell.best:
        return f"[bold]{text}[/bold]"
    if cell.tied:
        number, line, deviation = text.partition("\n")
        return f"≈ {number}{line}{deviation}"
    return text


def printed_losses_table(comparison: Comparison) -> Table:
    """Return a notebook's printed losses next to those of this run, one row per epoch."""
    table = terminal_table("Loss of the last batch of each epoch: notebook | this run")
    table.add_column("epoch", justify="right")
    for name in comparison.printed:
        table.add_column(name, justify="right")
    pairs = [list(zip(*both, strict=True)) for both in comparison.printed.values()]
    for epoch, cells in enumerate(zip(*pairs, strict=True), start=1):
        table.add_row(str(epoch), *(f"{given:.4f} | {ours:.4f}" for given, ours in cells))
    return table


def ranking_table(ranking: Ranking) -> Table:
    """Return a table with a row for each data set: every method's score and (rank).

    The last row has the mean ranks, the best one bold.
    """
    by = ranking.by
    unit = f", {by.unit}" if by.unit else ""
    spread = (
        ", mean ± standard deviation over the seeds" if max(map(len, ranking.seeds)) > 1 else ""
    )
    table = terminal_table(f"{by.title}{unit}{spread}, and rank; {by.better} is better")
    table.add_column("")
    for name in ranking.names:
        table.add_column(Text(name), justify="right")
    for row, label in enumerate(ranking.datasets):
        cells = zip(ranking.scores[row], ranking.deviations[row], ranking.ranks[row], strict=True)
        table.add_row(Text(label), *(_ranked(by, *each) for each in cells))
    table.add_section()
    best = min(ranking.over_all.mean)
    table.add_row(
        "mean rank",
        *(Text(f"{each:.2f}", "bold" if each == best else "") for each in ranking.over_all.mean),
    )
    return table


def _ranked(by: Column, mean: float, deviation: float, rank: float) -> Text:
    """Return a score and its rank, the deviation below it so that methods fit side by side."""
    text = f"{format_number(mean, by)} ({rank:g})"
    if deviation > 0:
        text += f"\n± {format_deviation(deviation, mean, by)}" + " " * len(f" ({rank:g})")
    return Text(text)


def _facts(comparison: Comparison) -> str:
    data, settings = comparison.data, comparison.settings
    seeds = _seeds(comparison)
    facts = (
        f"{len(data.held_out[0]):,} held-out examples of {data.name}",
        f"{settings.members} members",
        epochs_of(settings),
        f"{seeds} seed{'s' if seeds > 1 else ''}",
    )
    return ", ".join(facts)


def _seeds(comparison: Comparison) -> int:
    return len({run.seed for run in comparison.runs})


def scores_table(title: str, scores: Mapping[str, Any]) -> Table:
    """Return a table with a row for each score of one model, the constant prediction's beside it.

    Args:
        title: the title of the table.
        scores: scores by name; those named ``constant_...`` stand in a column of their own.
    """
    table, note = terminal_table(title), ""
    table.add_column("score")
    table.add_column("value", justify="right")
    constants = {name for name in scores if name.startswith("constant_")}
    if constants:
        table.add_column("constant", justify="right")
        what = getattr(scores, "constant", "")
        if what:
            note = f"constant: predicting {what} for every example"
            table.caption, table.caption_justify = Text(f"{note}\n"), "left"
    for name, value in scores.items():
        if name in constants:
            continue
        head = SCORE_TITLES.get(name, name.replace("_", " "))
        text = _range(value) if isinstance(value, list) else significant(value)
        beside = scores.get(f"constant_{name}")
        table.add_row(head, text, *([] if beside is None else [significant(beside)]))
    table.min_width = max(cell_len(title), cell_len(note))  # so that neither is broken
    return table


def _range(values: list[float]) -> str:
    """Return the least and the largest of the members' scores; dozens have no place in a line."""
    texts = list(dict.fromkeys(map(significant, (min(values), max(values)))))
    return " to ".join(texts)


def score_tables(title: str, scores: Scores) -> list[Table]:
    """Return the scores of one model, and for few classes the confusion matrix."""
    found = scores.confusion
    more = [] if found is None or len(found) > MOST_COLUMNS else [confusion_table(found)]
    return [scores_table(title, scores), *more]


def confusion_table(found: Confusion) -> Table:
    """Return the confusion matrix of one model, with the share of each class."""
    names = [printable(each) for each in found.names]
    title = "Confusion matrix: examples by predicted class"
    table = terminal_table(title)
    table.min_width = cell_len(title)
    table.add_column("true class")
    for head in ("share", "recall", *(f"→ {name}" for name in names)):
        table.add_column(Text(head), justify="right")
    for name, share, recall, counts in zip(
        names, found.shares, found.recall, found.counts.tolist(), strict=True
    ):
        recalled = "-" if recall != recall else f"{recall:.1%}"
        table.add_row(Text(name), f"{share:.1%}", recalled, *(f"{each:,}" for each in counts))
    return table
