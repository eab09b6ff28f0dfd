"""Files that are written completely or not at all."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

BINARY = getattr(os, "O_BINARY", 0)  # of Windows

READ_WHOLE = 1 << 26  # bytes; of smaller files all goes into the checksum
PIECES, PIECE = 1024, 1 << 16  # of larger ones, and their bytes


class WriteError(OSError):
    """A file could not be written during work: the disk is full, or a folder was removed.

    Unlike other ``OSError``, it is not caused by wrong arguments.
    """


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn ``OSError`` into a :class:`WriteError` that names the file.

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
    """Remove, at the end, the folders that were created but stayed empty.

    Args:
        folder: it and its parents are removed if they did not exist before and are empty.

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
    """Open a regular file for reading: not a folder, pipe, socket or device.

    Reading a pipe could block forever, and a device may have no end. Links are followed, since
    caches of downloads consist of links.

    Raises:
        ValueError: it is not a regular file.
        OSError: it does not exist or cannot be read.

    Example:
        >>> open_regular(Path("/"))
        Traceback (most recent call last):
        ValueError: / is a folder, and must be a file
    """
    _check_regular(path, path.stat().st_mode)
    # The file may have been replaced in between.
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
    """Write a file and flush it to disk.

    Raises:
        OSError: it cannot be written; a part of it may remain.
    """
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, flush it to disk, and rename it.

    Raises:
        WriteError: it cannot be written; a previous file is unchanged.
    """
    # Processes of one training may write the same file at once.
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
    """Flush a file, or the entries of a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_checksum(paths: Iterable[Path]) -> str:
    """Return a SHA-256 checksum of files, in their order.

    Above 64 MiB in total it covers the sizes and about 1,024 evenly spaced pieces of 64 KiB, at
    least two of each file: it detects rows that were added, removed or shuffled, but possibly not a
    few that were changed in place.

    Raises:
        OSError: a file cannot be read.
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
