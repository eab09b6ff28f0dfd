"""Masksembles: one network whose members keep different parts of each layer's inputs."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from batchensemble.core.arguments import positive_number, whole_number
from batchensemble.ensembles.methods.masked import Masked
from batchensemble.ensembles.methods.method import Method, Style
from batchensemble.ensembles.runner import RunMode

TRIES = 1_000  # draws of the masks of a layer


class Masksembles(Masked):
    """Members with one set of weights and a fixed binary mask each (arXiv 2012.08334).

    Linear layers and convolutions but the first have masks on their inputs, in training too. All
    masks of a layer keep equally many inputs, each input is kept by one member at least, and two
    members have about ``1 / scale`` of theirs in common: with ``scale=1`` all members are the same,
    with a large one they are as different as separate narrow networks.

    Args:
        network: any module that maps ``[batch, ...]`` to ``[batch, ...]``; it is copied.
        members: number of members (M), at least 1.
        scale: how little the masks overlap, at least 1; by default 2.
        batch_axis, untiled, branch_at, run: see :class:`batchensemble.BatchEnsemble`.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of range, or no layer is left to have masks.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 3))
        >>> model = Masksembles(net, members=4)
        >>> model(torch.zeros(5, 2)).shape, model.network[2].r.sum(1).tolist()
        (torch.Size([5, 4, 3]), [8.0, 8.0, 8.0, 8.0])
    """

    def __init__(
        self,
        network: nn.Module,
        members: int,
        *,
        scale: float = 2.0,
        batch_axis: int = 0,
        untiled: Collection[str] = (),
        branch_at: str | None = None,
        run: RunMode | None = None,
    ) -> None:
        members = whole_number("members", members)
        if positive_number("scale", scale) < 1:
            raise ValueError(f"scale must be at least 1, got {scale}")
        super().__init__(
            network,
            members,
            lambda channels: overlapping_masks(channels, members, scale),
            batch_axis=batch_axis,
            untiled=untiled,
            branch_at=branch_at,
            run=run,
        )
        self.options = {"scale": scale, **self.options}


def overlapping_masks(channels: int, members: int, scale: float) -> Tensor:
    """Return masks ``[members, channels]`` of zeros and ones.

    Each member draws equally many of some positions, and those that nobody drew are left out; this
    is repeated until as many are left as there are channels. The number of positions is the one
    with which that is expected.

    Args:
        channels: how many inputs a layer has.
        members: number of members (M).
        scale: positions for each one that a member draws.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> masks = overlapping_masks(8, members=2, scale=2.0)
        >>> masks.sum(1).tolist(), masks.any(0).all().item()
        ([6.0, 6.0], True)
    """
    missed = (1 - 1 / scale) ** members  # the share of positions that nobody draws
    positions = max(channels, round(channels / (1 - missed)))
    drawn = min(positions, max(round(positions / scale), -(-channels // members)))
    masks = torch.ones(members, channels)
    for _ in range(TRIES):
        order = torch.rand(members, positions).argsort(1)
        found = torch.zeros(members, positions).scatter_(1, order[:, :drawn], 1.0)
        masks = found[:, found.any(0)]
        if masks.shape[1] == channels:
            break
    else:  # too few channels for chance: each member takes its own first, then those that follow
        places = (torch.arange(members)[:, None] * drawn + torch.arange(drawn)) % channels
        masks = torch.zeros(members, channels).scatter_(1, places, 1.0)
    return masks


METHOD = Method(
    "masksembles",
    Masksembles,
    "Masksembles",
    "Masksembles",
    Style("#E69F00", "P", (0, (4, 1.2, 1.2, 1.2)), "✚", on_light="#8f6300", on_dark="#f0b840"),
    grows=False,
)
