"""An ensemble of last layers on one shared network."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from batchensemble.core.arguments import whole_number
from batchensemble.ensembles.conversion.checks import check_network
from batchensemble.ensembles.conversion.own_layers import layers_in_order
from batchensemble.ensembles.conversion.rules import Rules
from batchensemble.ensembles.methods.by_layers import ByLayers
from batchensemble.ensembles.methods.method import Method, Style
from batchensemble.ensembles.runner import RunMode
from batchensemble.layers.rank_one.options import Options


class LastLayerEnsemble(ByLayers):
    """Members that share all but the last layer, of which each has its own.

    The shared part runs once per batch, so that training and prediction cost what those of one
    network do.

    Args:
        network: any module that maps ``[batch, ...]`` to ``[batch, ...]``; it is copied. Its last
            layer with weights is the one that it defines last.
        members: number of members (M), at least 1.
        batch_axis, untiled, run: see :class:`batchensemble.BatchEnsemble`.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of range, or the network has no layer with weights.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> model = LastLayerEnsemble(net, members=4)
        >>> model(torch.zeros(5, 2)).shape, model.parameter_counts()["parameters"]
        (torch.Size([5, 4, 3]), 132)
    """

    def __init__(
        self,
        network: nn.Module,
        members: int,
        *,
        batch_axis: int = 0,
        untiled: Collection[str] = (),
        run: RunMode | None = None,
    ) -> None:
        members = whole_number("members", members)
        check_network(network)
        layers = [name for name, _ in layers_in_order(network)]
        if not layers:
            raise ValueError(
                "the network has no layer with weights beneath it that each member could own; "
                "DeepEnsemble makes one network for each member"
            )
        options = Options(bias="shared", norm="shared", batch_axis=batch_axis)
        rules = Rules("rank_one", include=[], independent=layers[-1:], options=options)
        branch_at = layers[-1] if len(layers) > 1 else None
        super().__init__(network, members, rules, untiled=untiled, branch_at=branch_at, run=run)
        del self.options["branch_at"]


METHOD = Method(
    "last_layer",
    LastLayerEnsemble,
    "Last layers",
    "the last-layer ensemble",
    Style("#666666", "h", (0, (1, 1)), "⬢", on_light="#5f5f5f", on_dark="#b5b5b5"),
)
