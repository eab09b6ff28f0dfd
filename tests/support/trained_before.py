"""Training as versions did that held out a fifth of a table and parted no other rows."""

import functools

from batchensemble.cli.workflows import train
from batchensemble.data.tables.split import Split
from batchensemble.data.train_test import open_data


def part_as_before(monkeypatch) -> None:
    """Let ``train`` hold out a fifth of the rows of a table, and train on the rest."""
    before = functools.partial(open_data, split=Split("file"))
    monkeypatch.setattr(train, "open_data", before)
