"""A comparison in a few lines of Markdown, for pull requests."""

from __future__ import annotations

from collections.abc import Sequence

from batchensemble.comparison.summary import COST, Column, Row, compare_methods, quality, summarise
from batchensemble.report.sections import tables
from batchensemble.report.subject import Subject
from batchensemble.report.verdict import verdict

LEFT_OUT = {"parameters_per_member", "forward_calls", "training_multiply_adds"}


def markdown(subject: Subject) -> str:
    """Return the verdict and the table of scores as Markdown.

    Args:
        subject: the comparison or the trained model to report.

    Example:
        >>> from batchensemble.comparison.compare import Settings, compare
        >>> from batchensemble.data.datasets import load_dataset
        >>> from batchensemble.report.subject import subject_from_comparison
        >>> quick = Settings(methods=("single",), epochs=1)
        >>> text = markdown(subject_from_comparison(compare(load_dataset("breast_cancer"), quick)))
        >>> text.splitlines()[0]
        '### breast\\\\_cancer'
    """
    comparison = subject.comparison
    differences = compare_methods(comparison)
    rows = summarise(comparison, differences)
    found = verdict(comparison, rows, differences)
    lines = [f"### {markdown_text(comparison.data.name)}", "", markdown_text(subject.facts), ""]
    lines += [f"**{markdown_text(found.headline)}**", ""]
    lines += [f"- {_label(each.title)} **{each.short}.** {each.text}" for each in found.answers]
    lines += ["", *_table(quality(comparison), rows), ""] if rows else []
    note = f"{tables.means(comparison)}{tables.marks(comparison, rows)}"
    lines += [f"<sub>{note}</sub>", ""] if rows else []
    lines += [f"- Failed: {markdown_text(failure)}" for failure in comparison.failures]
    lines += _code(subject.command)
    return "\n".join(lines) + "\n"


def _table(scores: Sequence[Column], rows: list[Row]) -> list[str]:
    columns = [column for column in (*scores, *COST) if column.key not in LEFT_OUT]
    heads = [f"{each.title}{f' ({each.unit})' if each.unit else ''}" for each in columns]
    lines = [f"| Method | {' | '.join(heads)} |", f"| --- |{' ---: |' * len(heads)}"]
    for row in rows:
        cells = [row.cells[column.key] for column in columns]
        texts = [
            f"**{cell.text}**" if cell.best else f"≈ {cell.text}" if cell.tied else cell.text
            for cell in cells
        ]
        lines.append(f"| {row.name} | {' | '.join(texts)} |")
    return lines


def _label(title: str) -> str:
    return title if title.endswith("?") else f"{title}:"


def markdown_text(text: str) -> str:
    """Return text that Markdown and HTML in it leave as it is, on one line.

    Example:
        >>> print(markdown_text("a_b | <c>\\n# d"))
        a\\_b \\| &lt;c&gt; \\# d
    """
    text = " ".join(text.split())
    for letter in "\\`*_{}[]#+!|~$":
        text = text.replace(letter, f"\\{letter}")
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _code(text: str) -> list[str]:
    """Return a block of code, fenced by more backticks than it contains."""
    fence = "```"
    while fence in text:
        fence += "`"
    return [f"{fence}sh", *text.splitlines(), fence]
