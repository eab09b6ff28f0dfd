"""The task of a table, told from its target where the user does not say it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batchensemble.data.datasets import NAMED
from batchensemble.data.tables.dialects import Dialect
from batchensemble.data.tables.targets import Task, task_of_file

SAID_BY = ("task", "loss", "classes", "standardise_targets")  # settings that say what the task is


def told_task(*given: Mapping[str, Any]) -> tuple[Task, str] | None:
    """Return the task that the target of a file tells, and a line that says why.

    Args:
        given: settings by name, later ones override earlier ones; ``None`` means not given.

    Returns:
        ``None`` where the settings say the task, or name no column of a file that exists.

    Raises:
        ValueError: the file has no such column, or one from which no task can be told.
        OSError: the file cannot be read.
    """
    asked = {key: value for each in given for key, value in each.items() if value is not None}
    source, target = asked.get("data"), asked.get("target")
    if source is None or source in NAMED or target is None or not Path(source).exists():
        return None
    if any(name in asked for name in SAID_BY):
        return None
    found = task_of_file(Path(source), target, Dialect.from_settings(asked))
    return found.task, f"task: {found.task} (target {target!r} holds {found.reason})"
