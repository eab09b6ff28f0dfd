"""TabM and TabM-mini: BatchEnsembles of perceptrons in the form that is strongest on tables."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from batchensemble.core.arguments import whole_number
from batchensemble.ensembles.conversion.checks import check_network
from batchensemble.ensembles.conversion.own_layers import layers_in_order
from batchensemble.ensembles.conversion.rules import Rules
from batchensemble.ensembles.methods.by_layers import ByLayers, norms_after, shared_before
from batchensemble.ensembles.methods.method import Method, Style
from batchensemble.ensembles.runner import RunMode
from batchensemble.layers import RankOne
from batchensemble.layers.rank_one.options import Initialisation, Options


class TabM(ByLayers):
    """A BatchEnsemble with random signs at the first layer alone, and own heads (arXiv 2410.24210).

    Each layer has fast weights for each member; they start at one, but for those on the inputs of
    the first layer, which start as signs. The last layer and the biases are each member's own.

    Args:
        network: any module that maps ``[batch, ...]`` to ``[batch, ...]``; it is copied.
        members: number of members (M), at least 1; the authors take 32.
        init: how fast weights start, see :class:`batchensemble.BatchEnsemble`; by default
            ``"tabm"``.
        batch_axis, untiled, branch_at, run: see :class:`batchensemble.BatchEnsemble`.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of range, or the network has fewer than two layers.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> TabM(net, members=4)(torch.zeros(5, 2)).shape
        torch.Size([5, 4, 3])
    """

    everywhere = True  # whether layers between the first and the last have fast weights

    def __init__(
        self,
        network: nn.Module,
        members: int,
        *,
        init: Initialisation | None = "tabm",
        batch_axis: int = 0,
        untiled: Collection[str] = (),
        branch_at: str | None = None,
        run: RunMode | None = None,
    ) -> None:
        members = whole_number("members", members)
        check_network(network)
        shared = shared_before(network, branch_at)
        layers = [name for name, _ in layers_in_order(network, shared)]
        if len(layers) < 2:
            raise ValueError(
                f"{type(self).__name__} needs a first and a last layer, and the network has "
                f"{len(layers)} layer with weights after what all members share"
            )
        options = Options(
            init=init,
            batch_axis=batch_axis,
            bias="member" if self.everywhere else "shared",
            norm="member" if self.everywhere else "shared",
        )
        norms = norms_after(network, shared)  # whose running statistics are each member's own
        rules = Rules(
            "rank_one",
            include=None if self.everywhere else [*layers[:1], *norms],
            independent=layers[-1:],
            options=options,
        )
        super().__init__(network, members, rules, untiled=untiled, branch_at=branch_at, run=run)
        if not self.everywhere:
            for module in self.network.modules():
                if isinstance(module, RankOne):
                    module.s.requires_grad_(False)
        self.options = {"init": init, **self.options}


class TabMMini(TabM):
    """Members that differ by a scale of each input and by their heads (arXiv 2410.24210).

    The inputs of the first layer are multiplied by numbers of each member's own, which start as
    random signs; the last layer is each member's own, and all else is shared.

    Arguments and errors are those of :class:`TabM`.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> model = TabMMini(net, members=4)
        >>> model.network[0].r.abs().unique().tolist(), model.network[0].s.requires_grad
        ([1.0], False)
    """

    everywhere = False


METHOD = Method(
    "tabm",
    TabM,
    "TabM",
    "TabM",
    Style("#56B4E9", "X", (0, (6, 1, 1.2, 1, 1.2, 1)), "✖", on_light="#1f78ab", on_dark="#7cc6f0"),
)
MINI = Method(
    "tabm_mini",
    TabMMini,
    "TabM-mini",
    "TabM-mini",
    Style("#8C6BB1", "p", (0, (2.5, 1)), "⬟", on_light="#7a55a8", on_dark="#b79be0"),
)
