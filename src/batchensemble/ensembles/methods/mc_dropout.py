"""MC dropout: one network with dropout, which is kept on in prediction."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from batchensemble.core.arguments import fraction, whole_number
from batchensemble.ensembles.methods.masked import Masked
from batchensemble.ensembles.methods.method import Method, Style
from batchensemble.ensembles.runner import RunMode


class MCDropout(Masked):
    """One network with dropout whose members are fixed draws of it (arXiv 1506.02142).

    Linear layers and convolutions but the first have dropout on their inputs; convolutions drop
    whole channels. In training it is ordinary dropout, drawn anew for each row and step, and the
    members are one network. In prediction each member keeps one draw, so that its answers do not
    change from call to call, and ``member(i)`` is a plain network. Dropout layers that the network
    has of its own stay: they are off in prediction.

    All members see each batch; with ``fit(..., batches="split")`` training costs what that of one
    network does.

    Args:
        network: any module that maps ``[batch, ...]`` to ``[batch, ...]``; it is copied.
        members: number of draws (M), at least 1.
        rate: probability of an input to be dropped, above 0 and below 1; by default 0.1.
        batch_axis, untiled, branch_at, run: see :class:`batchensemble.BatchEnsemble`.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of range, or no layer is left to have dropout.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> model = MCDropout(net, members=4, rate=0.25).eval()
        >>> model(torch.zeros(5, 2)).shape, model.network[2].r.unique().tolist()
        (torch.Size([5, 4, 3]), [0.0, 1.3333333730697632])
    """

    def __init__(
        self,
        network: nn.Module,
        members: int,
        *,
        rate: float = 0.1,
        batch_axis: int = 0,
        untiled: Collection[str] = (),
        branch_at: str | None = None,
        run: RunMode | None = None,
    ) -> None:
        members = whole_number("members", members)
        if not 0 < fraction("rate", rate) < 1:
            raise ValueError(f"rate must be above 0 and below 1, got {rate}")

        def masks(channels: int) -> Tensor:
            return (torch.rand(members, channels) >= rate) / (1 - rate)

        super().__init__(
            network,
            members,
            masks,
            batch_axis=batch_axis,
            untiled=untiled,
            branch_at=branch_at,
            run=run,
        )
        for layer in self.masked_layers():
            layer.input_dropout = rate
        self.options = {"rate": rate, **self.options}


METHOD = Method(
    "mc_dropout",
    MCDropout,
    "MC dropout",
    "MC dropout",
    Style("#CC79A7", "v", (0, (3, 1.5)), "▼", on_light="#a8487f", on_dark="#e39cc4"),
    grows=False,
)
