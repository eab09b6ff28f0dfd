"""The data and the settings of a comparison, from what the user gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchensemble.cli.workflows.settings import column_choices
from batchensemble.comparison.results import Settings
from batchensemble.data.datasets import NAMED, Data, load_dataset
from batchensemble.data.tables.dialects import Dialect


def data_and_settings(
    source: str,
    target: str | None,
    given: Mapping[str, Any],
    *,
    task: str | None = None,
    dialect: Dialect | None = None,
    choices: Mapping[str, Any] | None = None,
) -> tuple[Data, Settings]:
    """Return the data of a comparison, and its settings, whose defaults depend on them.

    Args:
        source: a named data set, or a file.
        target: the column of targets of a file.
        given: settings that the user gives.
        task: the task; by default told from the target.
        dialect: how a CSV file is written; what it leaves open is detected.
        choices: what the user says about columns, as settings of ``train``.

    Raises:
        ValueError: the data cannot be used, or a setting is not for them.
        OSError: there is no such file.
    """
    columns = column_choices(choices or {})
    if source in NAMED:
        for name, value in (choices or {}).items():
            if value:
                option = name.removesuffix("_columns")
                raise ValueError(f"{option} is for the columns of a file, and {source} is none")
        settings = Settings(**given)
        if settings.architecture == "table":
            raise ValueError(f"architecture table is for files, and {source} is none; leave it out")
        return load_dataset(source, target, task, dialect), settings
    table = given.get("architecture", "table") == "table"
    data = load_dataset(
        source, target, task, dialect, columns, layout="codes" if table else "plain", stopping=True
    )
    return data, Settings.of_table(len(data.train[0]), **given)
