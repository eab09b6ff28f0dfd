"""FiLM-Ensemble: one network whose members scale and shift its features differently."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from batchensemble.core.arguments import positive_number, whole_number
from batchensemble.ensembles.conversion.checks import check_network
from batchensemble.ensembles.conversion.convert import twins
from batchensemble.ensembles.conversion.own_layers import layers_in_order
from batchensemble.ensembles.conversion.rules import Rules
from batchensemble.ensembles.methods.by_layers import ByLayers, norms_after, shared_before
from batchensemble.ensembles.methods.method import Method, Style
from batchensemble.ensembles.runner import RunMode
from batchensemble.layers import MemberNorm, RankOne
from batchensemble.layers.rank_one.options import Options


class FiLMEnsemble(ByLayers):
    """Members that share all but a scale and a shift of each feature (arXiv 2206.00050).

    The weights and biases of the norm layers are each member's own. They start uniform between
    ``± gain * sqrt(6 / (members + features))``: some features of a member start with their sign
    flipped, and all are small. A network without norm layers, which the paper does not have, is
    modulated at the outputs of its layers but the last: by a scale and a bias of the member's own,
    which start as far from 1 and from the layer's bias.

    Args:
        network: any module that maps ``[batch, ...]`` to ``[batch, ...]``; it is copied.
        members: number of members (M), at least 1.
        gain: how far apart scales and shifts start, above 0; by default 1.
        batch_axis, untiled, branch_at, run: see :class:`batchensemble.BatchEnsemble`.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of range, or no layer is left to modulate.

    Example:
        >>> layers = [nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)]
        >>> model = FiLMEnsemble(nn.Sequential(*layers), members=4)
        >>> model(torch.zeros(5, 2)).shape, model.network[1].weight.shape
        (torch.Size([5, 4, 3]), torch.Size([4, 8]))
    """

    def __init__(
        self,
        network: nn.Module,
        members: int,
        *,
        gain: float = 1.0,
        batch_axis: int = 0,
        untiled: Collection[str] = (),
        branch_at: str | None = None,
        run: RunMode | None = None,
    ) -> None:
        members = whole_number("members", members)
        gain = positive_number("gain", gain)
        check_network(network)
        trunk = shared_before(network, branch_at)
        norms = [
            name
            for name in norms_after(network, trunk)
            if not isinstance(network.get_submodule(name), nn.PReLU)
        ]
        modulated = [name for name in norms if network.get_submodule(name).weight is not None]
        layers = [] if modulated else [name for name, _ in layers_in_order(network, trunk)][:-1]
        if members > 1 and not (modulated or layers):
            raise ValueError(
                "FiLMEnsemble modulates norm layers, or the outputs of layers before the last, and "
                "the network has neither; the members would all be the same"
            )
        options = Options(init="ones", batch_axis=batch_axis)
        rules = Rules("rank_one", include=[*norms, *layers], options=options)
        super().__init__(network, members, rules, untiled=untiled, branch_at=branch_at, run=run)
        for _, twin in twins(self.network):
            if isinstance(twin, RankOne):
                _add_to_outputs(twin, gain)
            elif isinstance(twin, MemberNorm):
                for vectors in twin.parameters():
                    _add(vectors, gain, start=0.0)
        self.options = {"gain": gain, **self.options}


def _add_to_outputs(twin: RankOne, gain: float) -> None:
    """Let members differ in the scale and the bias of a layer's outputs alone."""
    for name, vectors in twin.named_parameters():
        if name == "r" or name.endswith("_r"):
            vectors.requires_grad_(False)
        elif name in twin.own:
            _add(vectors, gain)


def _add(vectors: Tensor, gain: float, start: float | None = None) -> None:
    """Add draws as of Glorot and Bengio (2010) to the members' vectors, or to one start of all."""
    bound = gain * (6 / (len(vectors) + vectors[0].numel())) ** 0.5
    with torch.no_grad():
        if start is not None:
            vectors.fill_(start)
        vectors.add_(torch.empty_like(vectors).uniform_(-bound, bound))


METHOD = Method(
    "film",
    FiLMEnsemble,
    "FiLM-Ensemble",
    "FiLM-Ensemble",
    Style("#A6761D", "*", (0, (3, 1, 1, 1)), "★", on_light="#8a5f10", on_dark="#d9a94e"),
)
