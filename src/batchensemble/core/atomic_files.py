"""Files that are either whole or not there."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

BINARY = getattr(os, "O_BINARY", 0)  # of Windows

READ_WHOLE = 1 << 26  # bytes of files that all go into their checksum
PIECES, PIECE = 1024, 1 << 16  # of larger ones, and their bytes


class WriteError(OSError):
    """A file could not be written in the midst of work: a full disk, or a folder that is gone.

    Its text is a sentence. What was asked was right, unlike with other errors of files.
    """


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in a sentence which file cannot be written.

    Example:
        >>> with writing(Path("history.jsonl")):
        ...     raise OSError(28, "No space left on device")
        Traceback (most recent call last):
        batchensemble.core.atomic_files.WriteError: cannot write history.jsonl: No space left on \
device
    """
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror or error}") from error


@contextmanager
def leaving_nothing_empty(folder: Path) -> Iterator[None]:
    """Take away at the end what was made of a folder's path and holds nothing.

    Args:
        folder: it and those above it that are not there yet; one that is there before stays.

    Example:
        >>> import tempfile
        >>> runs = Path(tempfile.mkdtemp()) / "runs"
        >>> with leaving_nothing_empty(runs / "moons"):
        ...     (runs / "moons").mkdir(parents=True)
        >>> runs.exists()
        False
    """
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        yield
    finally:
        for each in made:
            with suppress(OSError):
                each.rmdir()


def open_regular(path: Path) -> BinaryIO:
    """Open a file to read it, if it is one: not a folder, a pipe, a socket or a device.

    A pipe that nobody writes to would be waited for, and a device may have no end. A link to a file
    is followed, since caches of downloads are made of links.

    Raises:
        ValueError: it is none.
        OSError: it is not there, or cannot be read.

    Example:
        >>> open_regular(Path("/"))
        Traceback (most recent call last):
        ValueError: / is a folder, and must be a file
    """
    _check_regular(path, path.stat().st_mode)
    # What is there may have been replaced in between.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | BINARY)
    try:
        _check_regular(path, os.fstat(descriptor).st_mode)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _check_regular(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
        raise ValueError(f"{path} is {kind}, and must be a file")


def write_file(path: Path, content: bytes) -> None:
    """Write a file and wait until it is on the disk.

    Raises:
        OSError: it cannot be written; a part of it may stay.
    """
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under another name, and put it in its place when it is on the disk.

    Raises:
        WriteError: it cannot be written; what was there before stays.
    """
    # Where each process of a training writes the same file, none writes into another's.
    rank = os.environ.get("RANK", "0")
    part = path.with_name(f".{path.name}.part" if rank == "0" else f".{path.name}.{rank}.part")
    with writing(path):
        try:
            write_file(part, content)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        sync(path.parent)


def sync(path: Path) -> None:
    """Make sure that a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checksum(paths: Iterable[Path]) -> str:
    """Return what tells the content of files, in their order, from any other.

    Of more than 64 MiB in all it is their sizes and about 1,024 pieces of 64 KiB, evenly spread,
    two or more of each file: rows that were added, left out or shuffled show, a few that were
    changed or swapped in place may not.

    Raises:
        OSError: one cannot be read.
    """
    sizes = {path: path.stat().st_size for path in paths}
    total, found = sum(sizes.values()), hashlib.sha256()
    for path, size in sizes.items():
        found.update(size.to_bytes(8, "little"))
        pieces = max(2, PIECES * size // max(total, 1))
        with path.open("rb") as file:
            if total <= READ_WHOLE or size <= pieces * PIECE:
                found.update(file.read())
                continue
            for piece in range(pieces):
                file.seek((size - PIECE) * piece // (pieces - 1))
                found.update(file.read(PIECE))
    return found.hexdigest()
