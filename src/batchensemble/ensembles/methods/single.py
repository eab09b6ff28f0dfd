"""A single network, the baseline: an ensemble with one member."""

from __future__ import annotations

from torch import nn

from batchensemble.ensembles.base import Ensemble
from batchensemble.ensembles.conversion.checks import check_network
from batchensemble.ensembles.conversion.copies import copied
from batchensemble.ensembles.conversion.report import count_parameters
from batchensemble.ensembles.conversion.unregistered import remember_origin
from batchensemble.ensembles.methods.method import Method, Style


class Single(Ensemble):
    """One member: the plain network with an axis of members of length 1.

    Args:
        network: any module that maps ``[batch, ...]`` to ``[batch, ...]``; it is copied with its
            weights.
        batch_axis: axis of the batch in the inputs: 0 (default), or 1 if the sequence comes first.

    Example:
        >>> import torch
        >>> Single(nn.Linear(2, 3))(torch.zeros(5, 2)).shape
        torch.Size([5, 1, 3])
    """

    def __init__(self, network: nn.Module, *, batch_axis: int = 0) -> None:
        check_network(network)
        of_one = count_parameters(network)
        super().__init__(copied(network), 1, of_one, batch_axis=batch_axis)
        remember_origin(self, network)
        self.options = {"batch_axis": batch_axis}


METHOD = Method(
    "single",
    Single,
    "Single network",
    "the single network",
    Style("#000000", "o", (0, (1.2, 1.2)), "●", on_light="#000000", on_dark="#f2f2f2"),
    fixed_members=1,
)
