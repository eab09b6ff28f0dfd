"""What becomes of the columns of a table, as rows of text for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from batchensemble.cli.workflows.model_folder import ModelFolder
from batchensemble.cli.workflows.task import told_task
from batchensemble.data.tables.dialects import Dialect
from batchensemble.data.tables.encoding.encoding import ColumnChoices, TableEncoding, fit_encoding
from batchensemble.data.tables.encoding.treatment import Treatment
from batchensemble.data.tables.in_memory import feature_names
from batchensemble.data.tables.rows import BLOCK_ROWS, open_rows

LISTED_LEVELS = 6
INDICATOR = "gap indicator"


@dataclass(frozen=True)
class ColumnTable:
    """The columns of a table.

    Attributes:
        title: what they are of.
        rows: for each column its name, kind, values, what it becomes, and a note.
        inputs: a sentence on the inputs of the network.
    """

    title: str
    rows: tuple[tuple[str, str, str, str, str], ...]
    inputs: str


HEADS = ("column", "kind", "values", "becomes", "note")


def columns_of_model(path: Path) -> ColumnTable:
    """Return the columns that a saved model takes.

    Raises:
        ValueError: the folder does not say which.
        OSError: there is no model in it.
    """
    folder = ModelFolder(path)
    columns, settings = folder.columns, folder.settings
    encoding = columns.encoding or TableEncoding.of_scaling(
        columns.feature_names,
        ((0.0,) * len(columns.feature_names), (1.0,) * len(columns.feature_names)),
    )
    name = (folder.config.get("data") or {}).get("name") or settings.get("data") or "its data"
    title = f"the columns of {name}, as the model in {path} takes them"
    target = _target(columns.target, columns.class_names)
    return _table(f"{title}{target}", encoding)


def columns_of_file(
    path: Path,
    target: str,
    choices: ColumnChoices | None = None,
    dialect: Dialect | None = None,
) -> ColumnTable:
    """Return what training would make of the columns of a file, from all of its rows.

    Args:
        path: of a file or of a folder of Parquet files.
        target: the column of targets.
        choices: what the user says about columns.
        dialect: how a CSV file is written; what it leaves open is detected.

    Raises:
        ValueError: it cannot be used; the message says why.
        OSError: it cannot be read.
    """
    with open_rows(path, dialect=dialect) as rows:
        names = feature_names(path.name, rows.names, target, rows.index)
        told = told_task({"data": str(path), "target": target}, vars(dialect or Dialect()))
        encoding = fit_encoding(
            lambda: rows.blocks(BLOCK_ROWS, names), names, path.name, choices=choices
        )
    task = "" if told is None else f"; {told[1]}"
    return _table(f"the columns of {path.name}, as train would take them{task}", encoding)


def _target(name: str | None, classes: Sequence[str]) -> str:
    if name is None:
        return ""
    what = f"classes {_few(classes)}" if classes else "a number"
    return f"; target {name!r}: {what}"


def _table(title: str, encoding: TableEncoding) -> ColumnTable:
    inputs = encoding.inputs
    counts = {"number": inputs.numbers, "flag": inputs.flags}
    if encoding.layout == "codes":
        counts["category"] = len(inputs.levels)
    parts = [_count(count, what) for what, count in counts.items()]
    rows = tuple((one.name, *_cells(one, encoding.layout)) for one in encoding.treatments)
    return ColumnTable(title, rows, f"inputs of the network: {', '.join(parts)}")


def _cells(one: Treatment, layout: str) -> tuple[str, str, str, str]:
    scaled = "normal quantiles" if layout == "codes" else "mean 0, deviation 1"
    gaps = [INDICATOR] if one.gaps else []
    if one.kind == "left out":
        return "left out", "", "", one.note
    if one.kind == "category":
        count = len(one.levels)
        values = f"{count:,} level{'s' if count > 1 else ''}: {_few(one.levels)}"
        becomes = "a code per level" + (", one for gaps" if one.gaps else "")
        return "category", values, becomes, one.note
    if one.kind == "truth value":
        return "truth value", "0 or 1", ", ".join(["0 or 1", *gaps]), one.note
    if one.kind == "date":
        cycles = {"year": "season", "weekday": "weekday", "day": "time of day"}
        parts = [f"time ({scaled})", *(cycles[each] for each in one.parts if each in cycles)]
        return "date", f"written as {one.form}", ", ".join([*parts, *gaps]), one.note
    values = f"mean {one.mean:.4g}, deviation {one.scale:.4g}"
    if one.knots:
        values = f"{one.knots[0] + 0.0:.6g} to {one.knots[-1] + 0.0:.6g}"
    return "number", values, ", ".join([scaled, *gaps]), one.note


def _count(count: int, what: str) -> str:
    """Return such as ``1 number`` and ``2 categories``."""
    if count == 1:
        return f"1 {what}"
    return f"{count:,} {what[:-1]}ies" if what.endswith("y") else f"{count:,} {what}s"


def _few(names: Sequence[str]) -> str:
    more = f", and {len(names) - LISTED_LEVELS:,} more" if len(names) > LISTED_LEVELS else ""
    return ", ".join(names[:LISTED_LEVELS]) + more
