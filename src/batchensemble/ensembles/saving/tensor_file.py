"""Read a safetensors file: validate its header, then read one tensor after the other.

Nothing is memory-mapped or held twice: each tensor is read into its own memory, whose size the
validated header bounds. The format is 8 bytes with the length of the header, the header as JSON,
and the tensors in the order of their offsets, without gaps.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from batchensemble.core.atomic_files import open_regular
from batchensemble.core.strict_json import brief, parse_json

MOST_HEADER = 2**25  # bytes
MOST_TENSORS = 50_000
MOST_AXES = 64
PIECE = 2**20  # bytes read at a time, a multiple of what any number takes
TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


@dataclass(frozen=True)
class TensorEntry:
    """The header's entry of one tensor.

    Attributes:
        name: name of the tensor.
        dtype: its type.
        shape: its shape.
        bytes: its size in bytes.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    bytes: int


class TensorFile:
    """An open safetensors file, used in a ``with``.

    Args:
        path: path of the file.

    Attributes:
        entries: the entries of its tensors by name, in the order of the file.

    Raises:
        ValueError: it is not a valid safetensors file.
        OSError: it cannot be read.

    Example:
        >>> import tempfile
        >>> from safetensors.torch import save_file
        >>> path = Path(tempfile.mkdtemp()) / "model.safetensors"
        >>> save_file({"weight": torch.ones(2, 3)}, path)
        >>> with TensorFile(path) as file:
        ...     file.entries["weight"].shape, [value.sum() for _, value in file.read()]
        ((2, 3), [tensor(6.)])
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open_regular(path)
        try:
            self._digest, self.entries = self._read_header()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def read(
        self, watch: Callable[[str, Tensor], None] | None = None
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield the tensors by name, in the order of the file.

        Args:
            watch: called with each tensor's name and values, flat and in pieces.

        Raises:
            ValueError: the file ends before its last tensor.
        """
        for entry in self.entries.values():
            # Read as bytes, which need no alignment, then viewed in their type.
            raw = torch.empty(entry.bytes, dtype=torch.uint8)
            for start in range(0, entry.bytes, PIECE):
                piece = raw[start : start + PIECE]
                self._fill(piece)
                if entry.dtype == torch.bool and int(piece.max()) > 1:
                    raise ValueError(f"{self.path} is damaged: {entry.name} holds no booleans")
                if watch is not None:
                    watch(entry.name, piece.view(entry.dtype))
            yield entry.name, raw.view(entry.dtype).view(entry.shape)

    def sha256(self) -> str:
        """Return the checksum of the bytes read so far, all of them after :meth:`read`."""
        return self._digest.hexdigest()

    def sha256_of_rest(self) -> str:
        """Return the checksum of the whole file, before any tensor is read."""
        digest = self._digest.copy()
        while piece := self._file.read(PIECE):
            digest.update(piece)
        return digest.hexdigest()

    @property
    def bytes(self) -> int:
        """Size of all tensors in bytes."""
        return sum(entry.bytes for entry in self.entries.values())

    def _fill(self, piece: Tensor) -> None:
        view = memoryview(piece.numpy())  # type: ignore[arg-type]
        done = 0
        while done < len(view):
            count = self._file.readinto(view[done:])  # type: ignore[attr-defined]
            if not count:
                raise ValueError(f"{self.path} is damaged: it ends too early")
            done += count
        self._digest.update(view)

    def _read_header(self) -> tuple[Any, dict[str, TensorEntry]]:
        size = self._file.seek(0, 2)
        self._file.seek(0)
        start = self._file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > size - 8:
            raise ValueError(f"{self.path} is damaged: it ends within its header")
        if length > MOST_HEADER:
            raise ValueError(
                f"{self.path} has a header of {length:,} bytes, and models have {MOST_HEADER:,} at "
                "most"
            )
        text = self._file.read(length)
        if text.count(b'"data_offsets"') > MOST_TENSORS:
            raise ValueError(f"{self.path} has more tensors than {MOST_TENSORS:,}")
        header = parse_json(
            text,
            f"the header of {self.path}",
            most_values=16 * MOST_TENSORS,
            most_nested=4 * MOST_TENSORS,
        )
        return hashlib.sha256(start + text), self._entries(header, size - 8 - length)

    def _entries(self, header: Any, size: int) -> dict[str, TensorEntry]:
        if not isinstance(header, dict):
            raise self._damaged("it is no object")
        placed: list[tuple[int, int, TensorEntry]] = []
        for name, each in header.items():
            if name != "__metadata__":
                placed.append(self._entry(name, each))
        placed.sort(key=lambda each: each[:2])
        end = 0
        for start, after, entry in placed:
            if start != end:
                raise self._damaged(f"{brief(entry.name)} overlaps another tensor, or leaves a gap")
            end = after
        if end != size:
            raise self._damaged(f"its tensors take {end:,} bytes, and the file has {size:,}")
        return {entry.name: entry for _, _, entry in placed}

    def _entry(self, name: str, found: Any) -> tuple[int, int, TensorEntry]:
        if not isinstance(found, dict) or set(found) != {"dtype", "shape", "data_offsets"}:
            raise self._damaged(f"{brief(name)} has no dtype, shape and data_offsets")
        dtype, shape, offsets = found["dtype"], found["shape"], found["data_offsets"]
        if not isinstance(dtype, str) or dtype not in TYPES:
            raise ValueError(
                f"{self.path}: {brief(name)} has the type {brief(dtype)}, and weights have one of "
                f"{', '.join(TYPES)}"
            )
        if not _are_sizes(shape, MOST_AXES) or not _are_sizes(offsets, 2) or len(offsets) != 2:
            raise self._damaged(f"{brief(name)} has no shape and offsets of whole numbers")
        bytes_ = math.prod(shape) * TYPES[dtype].itemsize
        start, end = offsets
        if end - start != bytes_:
            raise self._damaged(
                f"{brief(name)} of shape {brief(shape)} takes {brief(bytes_)} bytes, and has "
                f"{end - start}"
            )
        return start, end, TensorEntry(name, TYPES[dtype], tuple(shape), bytes_)

    def _damaged(self, what: str) -> ValueError:
        return ValueError(f"the header of {self.path} is damaged: {what}")


def _are_sizes(value: Any, most: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= most
        and all(
            isinstance(each, int) and not isinstance(each, bool) and each >= 0 for each in value
        )
    )
