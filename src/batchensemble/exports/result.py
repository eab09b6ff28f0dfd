"""What an export found: the file, its outputs, and how far they are from torch's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Exported:
    """A file that predicts, and the check of it.

    Attributes:
        path: of the file.
        layout: ``"shared"``: the members' weights are bent in the graph; ``"merged"``: each member
            has its own.
        bytes: size of the file.
        inputs: type and shape of each input, by name.
        outputs: type and shape of each output, by name.
        runtime: what ran the file for the check.
        differences: largest difference to torch by batch size and output. Numbers are in units of
            their largest value, probabilities and entropies as they are.
        notes: what the file does not do, in sentences.
        quantised: how the weights are rounded, if they are; the same file in float32 was as close
            to torch as it must be.
    """

    path: Path
    layout: str
    bytes: int
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    runtime: str
    differences: Mapping[int, Mapping[str, float]]
    notes: tuple[str, ...] = ()
    quantised: str | None = None

    @property
    def largest_difference(self) -> float:
        """The largest difference to torch of all outputs and batches."""
        return max(max(each.values()) for each in self.differences.values())

    def __str__(self) -> str:
        batches = list(map(str, self.differences))
        close = "same as" if self.quantised is None else f"rounded to {self.quantised}, beside"
        lines = [
            f"{self.path}: {size_in_words(self.bytes)}, layout {self.layout}",
            *(f"  takes {name} {kind}" for name, kind in self.inputs.items()),
            *(f"  gives {name} {kind}" for name, kind in self.outputs.items()),
            f"  {close} torch in {self.runtime} at batches of {', '.join(batches[:-1])} and "
            f"{batches[-1]}: largest difference {self.largest_difference:.1e}",
            *(f"  note: {note}" for note in self.notes),
        ]
        return "\n".join(lines)


def size_in_words(size: int) -> str:
    """Return a size in bytes for people.

    Example:
        >>> size_in_words(1_234_000), size_in_words(999)
        ('1.2 MB', '999 bytes')
    """
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"
