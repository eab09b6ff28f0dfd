"""What runs the members of a converted network, as the first call and ``verify`` see it.

:class:`~batchensemble.ensembles.forward.ForwardPass` is how it is done. It looks at a network
before its first forward pass, and what looks runs the members in turn, so both stand on this.
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
class Looks:
    """What an ensemble has looked at so far.

    Attributes:
        done: whether later calls need not look, in evaluation mode and in training mode.
        times: how often it has looked in vain.
    """

    done: dict[bool, bool]
    times: int = 0


class MemberRunner(nn.Module):
    """A converted network and the ways to run its members.

    Attributes:
        network: maps member-major rows to such rows.
        members: how many members (M).
        batch_axis: the axis of the batch in inputs.
        untiled: names of arguments, or keys within them, that are not per example though their
            size may be the batch's.
        run: ``"together"``, all rows at once; ``"one_by_one"``, each member with its own; ``None``,
            what the first call finds to be right.
        looks: what the first calls found.
    """

    network: nn.Module
    members: int
    batch_axis: int
    untiled: tuple[str, ...]
    run: RunMode | None
    looks: Looks

    @property
    def branched(self) -> bool:
        """Whether what is before a module runs once."""
        raise NotImplementedError

    @property
    def one_by_one(self) -> bool:
        """Whether the members run one after the other, each with its own rows."""
        return self.run == "one_by_one" and self.members > 1

    def run_as(self, run: RunMode) -> None:
        """Let the members run together or one after the other from now on."""
        raise NotImplementedError

    def may_be_for_all(self, chosen: Collection[nn.Module]) -> list[Twin]:
        """Return which of these layers all members may share, though nobody said so."""
        return []

    def look(self, tiling: Tiling, arguments: Arguments) -> None:
        """Find out how the members run, where nobody has said or found it."""
        raise NotImplementedError

    def learn_axes(self, tiling: Tiling, arguments: Arguments) -> dict[Path, int]:
        """Learn on which axes the rows of outputs are, where sizes alone do not tell."""
        raise NotImplementedError

    def forget_axes(self) -> None:
        """Forget where the rows of outputs were found."""
        raise NotImplementedError

    def together(self, tiling: Tiling, arguments: Arguments) -> Any:
        """Run the rows of all members at once; return outputs as ``[batch, members, ...]``."""
        raise NotImplementedError

    def of_member(self, index: int, arguments: Arguments) -> Any:
        """Run one member with its own arguments and return its outputs."""
        raise NotImplementedError

    def gathered(self, outputs: list[Any], tiling: Tiling, arguments: Arguments) -> Any:
        """Return the outputs of the members, one after the other, as ``[batch, members, ...]``."""
        raise NotImplementedError

    def member(self, index: int) -> nn.Module:
        """Return member ``index`` as a plain network, its own weights merged in."""
        raise NotImplementedError

    def plain_network(self) -> nn.Module:
        """Return the module whose ``forward`` names the arguments."""
        raise NotImplementedError
