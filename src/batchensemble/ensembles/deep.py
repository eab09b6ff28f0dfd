"""Independent networks, each with its own random start, trained and run in one go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from batchensemble.checks import whole_number
from batchensemble.convert import Reset, check_network, draw_copies, stack
from batchensemble.ensembles.base import Ensemble, count_parameters


class DeepEnsemble(Ensemble):
    """M independent networks (Lakshminarayanan et al. 2017, arXiv 1612.01474).

    Each member is drawn anew, so the weights of ``network`` matter only through its shapes. All
    members run as one batched product a layer where stacked twins cover all the weights, else one
    copy after the other on its own rows: slower, and the same numbers. In training each member goes
    through the examples in its own order.

    Args:
        network: any module that maps ``[batch, ...]`` to ``[batch, ...]``.
        members: how many (M).
        reset: draws the weights of one network anew, in place; by default each module's own
            ``reset_parameters``.

    Raises:
        TypeError: ``members`` is not a whole number.
        ValueError: ``members`` is below 1.

    Example:
        >>> DeepEnsemble(nn.Linear(2, 3), members=4)(torch.zeros(5, 2)).shape
        torch.Size([5, 4, 3])
    """

    def __init__(self, network: nn.Module, members: int, *, reset: Reset | None = None) -> None:
        members = whole_number("members", members)
        check_network(network)
        networks = draw_copies(network, members, reset)
        super().__init__(stack(networks), members, count_parameters(network))

    @property
    def own_examples(self) -> bool:
        """Each member has its own order of the examples, as if trained alone."""
        return True

    def draw(self, order: Int[Tensor, "*steps batch"]) -> Int[Tensor, "*steps members rows"]:
        """Return another order of the same examples for each member."""
        examples = order.flatten()
        orders = [examples[torch.randperm(len(examples))] for _ in range(self.members)]
        return torch.stack([each.view(order.shape) for each in orders], -2)

    @classmethod
    def from_members(cls, networks: Sequence[nn.Module]) -> DeepEnsemble:
        """Return the ensemble of these networks, their weights kept.

        Args:
            networks: one plain network a member, all of the same architecture.

        Raises:
            ValueError: there is none, or their parameters differ in name or shape.

        Example:
            >>> DeepEnsemble.from_members([nn.Linear(2, 3), nn.Linear(2, 3)]).members
            2
        """
        networks = list(networks)
        if not networks:
            raise ValueError("networks must hold at least one network, got none")
        shapes = [_shapes(network) for network in networks]
        for index, other in enumerate(shapes):
            if other != shapes[0]:
                raise ValueError(
                    f"the networks must have the same architecture, but number {index} has the "
                    f"parameters {other} and number 0 has {shapes[0]}"
                )
        ensemble = cls.__new__(cls)
        Ensemble.__init__(ensemble, stack(networks), len(networks), count_parameters(networks[0]))
        return ensemble


def _shapes(network: nn.Module) -> dict[str, Any]:
    return {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
