"""The interface for running the members of a converted network.

:class:`~batchensemble.ensembles.forward.ForwardPass` implements it. The first call and ``verify``
run the members through it, and are imported by the implementation.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from batchensemble.core.pytree import Path
from batchensemble.ensembles.conversion.tiling import Arguments, Tiling
from batchensemble.layers import Twin

RunMode = Literal["together", "one_by_one"]
RUN_MODES = ("together", "one_by_one")


@dataclass
class RunModeDetection:
    """State of the run mode detection, see :mod:`batchensemble.ensembles.first_call.detection`.

    Attributes:
        done: whether the mode is settled, in evaluation (``False``) and in training (``True``).
        attempts: number of comparisons so far that were inconclusive.
    """

    done: dict[bool, bool]
    attempts: int = 0


class MemberRunner(nn.Module):
    """A converted network that can run its members together or one after the other.

    Attributes:
        network: the converted network, from member-major rows to member-major rows.
        members: number of members (M).
        batch_axis: axis of the batch in the inputs, 0 or 1.
        untiled: names of arguments, or keys within them, that are not per example though an axis
            may be as long as the batch.
        run: ``"together"``: one forward pass for all members; ``"one_by_one"``: one for each;
            ``None``: together, unless the first call detects that this is wrong.
        detection: what the first calls have detected.
    """

    network: nn.Module
    members: int
    batch_axis: int
    untiled: tuple[str, ...]
    run: RunMode | None
    detection: RunModeDetection

    @property
    def branched(self) -> bool:
        """Whether the network has a trunk that runs once for all members."""
        raise NotImplementedError

    @property
    def one_by_one(self) -> bool:
        """Whether the members run one after the other, each with its own rows."""
        return self.run == "one_by_one" and self.members > 1

    def run_as(self, run: RunMode) -> None:
        """Set the run mode."""
        raise NotImplementedError

    def shareable_layers(self, chosen: Collection[nn.Module]) -> list[Twin]:
        """Return those of the chosen layers that may become shared by all members automatically."""
        return []

    def detect_run_mode(self, tiling: Tiling, arguments: Arguments) -> None:
        """Detect the run mode, unless it is given or already known."""
        raise NotImplementedError

    def learn_axes(self, tiling: Tiling, arguments: Arguments) -> dict[Path, int]:
        """Find the row axis of each output where its size is ambiguous."""
        raise NotImplementedError

    def forget_axes(self) -> None:
        """Forget the row axes that were found."""
        raise NotImplementedError

    def together(self, tiling: Tiling, arguments: Arguments) -> Any:
        """Run the rows of all members at once; return outputs as ``[batch, members, ...]``."""
        raise NotImplementedError

    def run_member(self, index: int, arguments: Arguments) -> Any:
        """Run one member on its own arguments and return its outputs."""
        raise NotImplementedError

    def gathered(self, outputs: list[Any], tiling: Tiling, arguments: Arguments) -> Any:
        """Stack the outputs of the members as ``[batch, members, ...]``."""
        raise NotImplementedError

    def member(self, index: int) -> nn.Module:
        """Return member ``index`` as a plain network, its own weights merged in."""
        raise NotImplementedError

    def plain_network(self) -> nn.Module:
        """Return the module whose ``forward`` names the arguments."""
        raise NotImplementedError
