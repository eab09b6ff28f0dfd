"""Members that see the same layers through masks of their own on the layers' inputs."""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch import Tensor, nn

from batchensemble.ensembles.conversion.convert import twins
from batchensemble.ensembles.conversion.rules import Rules
from batchensemble.ensembles.methods.by_layers import ByLayers
from batchensemble.ensembles.runner import RunMode
from batchensemble.layers import RankOne, RankOneConvolution, RankOneLinear
from batchensemble.layers.rank_one.options import Options
from batchensemble.layers.registry import EMBEDDINGS


class Masked(ByLayers):
    """Members with one set of weights, each with a fixed mask on the inputs of the layers.

    Linear layers and convolutions but the first have masks, one number for each input or channel:
    a mask is a fast weight that is not trained, so that a member with its masks merged in is a
    plain network.

    Args:
        network: any module that maps ``[batch, ...]`` to ``[batch, ...]``; it is copied.
        members: number of members (M), at least 1.
        masks: returns masks ``[members, channels]`` for a number of channels.
        batch_axis, untiled, branch_at, run: see :class:`batchensemble.BatchEnsemble`.

    Raises:
        ValueError: no layer is left to have a mask.
    """

    def __init__(
        self,
        network: nn.Module,
        members: int,
        masks: Callable[[int], Tensor],
        *,
        batch_axis: int,
        untiled: Collection[str],
        branch_at: str | None,
        run: RunMode | None,
    ) -> None:
        tables = [name for name, each in network.named_modules() if isinstance(each, EMBEDDINGS)]
        options = Options(init="ones", bias="shared", norm="shared", batch_axis=batch_axis)
        rules = Rules("rank_one", exclude=tables, options=options)
        super().__init__(network, members, rules, untiled=untiled, branch_at=branch_at, run=run)
        layers = self.masked_layers()
        if members > 1 and not layers:
            raise ValueError(
                f"{type(self).__name__} masks the inputs of linear layers and convolutions after "
                "the first one, and the network has none; the members would all be the same"
            )
        for _, twin in twins(self.network):
            if isinstance(twin, RankOne):
                for name, role in twin.roles().items():
                    if role == "fast":
                        twin.get_parameter(name).requires_grad_(False)
        for layer in layers:
            with torch.no_grad():
                layer.r.copy_(masks(layer.r.shape[1]))

    def masked_layers(self) -> list[RankOne]:
        """Return the layers that have masks."""
        layers: list[RankOne] = [
            twin
            for _, twin in twins(self.network)
            if isinstance(twin, (RankOneLinear, RankOneConvolution))
            and "forward" not in vars(twin)  # it runs as the user wrote it
        ]
        return layers[1:]
