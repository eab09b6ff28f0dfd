"""Checksums of tables in files, which checkpoints remember; so what goes into them must stay."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from batchensemble.data.tables.encoding.encoding import TableEncoding
from batchensemble.data.tables.split import ChosenRows, HashPart

END_BYTES = 1 << 16  # of a file that go into its checksum, at each end


def ends_checksum(about: str, paths: Sequence[Path]) -> str:
    """Return eight digits that identify a text, and files by their sizes and their ends."""
    checksum = hashlib.sha256(about.encode())
    for path in paths:
        size = path.stat().st_size
        with path.open("rb") as file:
            checksum.update(file.read(END_BYTES))
            file.seek(max(0, size - END_BYTES))
            checksum.update(file.read())
        checksum.update(str(size).encode())
    return checksum.hexdigest()[:8]


def stored_name(rows: ChosenRows | None) -> str:
    """Return the text of a split that goes into checksums: its class was once called ``Fifth``."""
    if isinstance(rows, HashPart):
        return f"{rows.part}, {rows.scoring}"
    return "None" if rows is None else f"Fifth(held_out={rows.held_out})"


def stored_encoding(encoding: TableEncoding | None) -> list[str]:
    """Return the text of an encoding that goes into checksums: once it was means and deviations."""
    if encoding is None:
        return [repr(()), repr(())]
    if encoding.scaling is not None:
        return [repr(each) for each in encoding.scaling]
    return [json.dumps(encoding.to_dict(), sort_keys=True)]
