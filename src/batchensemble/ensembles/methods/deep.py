"""Independent networks, each with its own random start, trained and run in one go."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from jaxtyping import Int
from torch import Tensor, nn

from batchensemble.core.arguments import whole_number
from batchensemble.ensembles.base import Ensemble
from batchensemble.ensembles.conversion.branching import Branch
from batchensemble.ensembles.conversion.checks import check_network
from batchensemble.ensembles.conversion.convert import Reset, draw_copies, same_architecture, stack
from batchensemble.ensembles.conversion.report import count_parameters
from batchensemble.ensembles.conversion.unregistered import remember_origin
from batchensemble.ensembles.methods.method import Method, Style
from batchensemble.ensembles.runner import RunMode


class DeepEnsemble(Ensemble):
    """M independent networks (Lakshminarayanan et al. 2017, arXiv 1612.01474).

    Each member is drawn anew, so the weights of ``network`` matter only through its shapes. All
    members run as one batched product a layer where stacked twins cover all weights, else one copy
    after the other on its own rows: slower, and the same numbers. ``stacked=True`` runs any other
    network, too, at once, under ``torch.func.vmap``. In training each member goes through the
    examples in its own order.

    Args:
        network: any module that maps ``[batch, ...]`` to ``[batch, ...]``.
        members: how many (M).
        reset: draws the weights of one network anew, in place; by default each module's own
            ``reset_parameters``.
        stacked: run the members all at once, or one copy after the other; by default all at once
            where stacked twins cover all weights and all modules are torch's own. ``True``: by
            stacked twins where they cover all weights, which want a ``forward`` that treats its
            rows one by one, else under ``vmap``, see :class:`~batchensemble.layers.Vmapped`.
        batch_axis: the axis of the batch in inputs: 0, or 1 where the sequence comes first.
        untiled: names of arguments, or keys within them, that are not per example though their
            first axis may be as long as the batch.
        branch_at: the name of the module at which the members part. All that is defined before it
            runs once, on the batch as it is, and is shared with the weights of ``network``; it and
            what follows is drawn anew for each member. The members then see the same examples in
            training, since there is one trunk to see them.
        run: how the members run. ``"together"``: all in one call, which wants a network that treats
            its rows one by one. ``"one_by_one"``: one after the other, each with its own rows,
            which is right for any network and takes a call for each. By default together, unless
            the first call finds that the network mixes its rows; it warns then.

    Raises:
        TypeError: ``members`` is not a whole number.
        ValueError: ``members`` is below 1, or there is no module called ``branch_at``; at a call,
            ``stacked=True`` and the network does what ``vmap`` does not allow, such as going by the
            data, or has recurrent layers.

    Example:
        >>> DeepEnsemble(nn.Linear(2, 3), members=4)(torch.zeros(5, 2)).shape
        torch.Size([5, 4, 3])
    """

    def __init__(
        self,
        network: nn.Module,
        members: int,
        *,
        reset: Reset | None = None,
        stacked: bool | None = None,
        batch_axis: int = 0,
        untiled: Collection[str] = (),
        branch_at: str | None = None,
        run: RunMode | None = None,
    ) -> None:
        members = whole_number("members", members)
        check_network(network)
        of_one = count_parameters(network)
        branch = None if branch_at is None else Branch.of(network, branch_at)
        if branch is None:
            networks = stack(draw_copies(network, members, reset), batch_axis, stacked=stacked)
        else:
            copies = branch.draw_copies(network, members, reset)
            networks = branch.stack(network, copies, batch_axis, stacked=stacked)
        super().__init__(
            networks,
            members,
            of_one,
            batch_axis=batch_axis,
            untiled=untiled,
            branch=branch,
            run=run,
        )
        remember_origin(self, network)
        self.options = {
            "stacked": stacked,
            "batch_axis": batch_axis,
            "untiled": list(self.untiled),
            "branch_at": branch_at,
            "run": run,
        }

    @property
    def own_examples(self) -> bool:
        """Each member has its own order of the examples, as if trained alone, unless branched."""
        return self._branch is None

    def draw(self, order: Int[Tensor, "*steps batch"]) -> Int[Tensor, "*steps members rows"]:
        """Return another order of the same examples for each member."""
        return own_orders(order, self.members)

    @classmethod
    def from_members(
        cls,
        networks: Sequence[nn.Module],
        *,
        stacked: bool | None = None,
        branch_at: str | None = None,
    ) -> DeepEnsemble:
        """Return the ensemble of these networks, their weights kept.

        Args:
            networks: one plain network a member, all of the same architecture.
            stacked: as above.
            branch_at: where they part; before it all must be the same.

        Raises:
            ValueError: there is none, their parameters differ in name or shape, or they differ
                before the branch.

        Example:
            >>> DeepEnsemble.from_members([nn.Linear(2, 3), nn.Linear(2, 3)]).members
            2
        """
        networks = list(networks)
        same_architecture(networks)
        ensemble = cls.__new__(cls)
        of_one, members = count_parameters(networks[0]), len(networks)
        if branch_at is None:
            Ensemble.__init__(ensemble, stack(networks, stacked=stacked), members, of_one)
        else:
            branch = Branch.of(networks[0], branch_at)
            branch.check_same_trunk(networks)
            network = branch.stack(networks[0], networks, stacked=stacked)
            Ensemble.__init__(ensemble, network, members, of_one, branch=branch)
        ensemble.options = {"stacked": stacked, "branch_at": branch_at, "run": None}
        return ensemble


def own_orders(
    order: Int[Tensor, "*steps batch"], members: int
) -> Int[Tensor, "*steps members batch"]:
    """Return another order of the same examples for each member, from torch's generator."""
    examples = order.flatten()
    orders = [examples[torch.randperm(len(examples))] for _ in range(members)]
    return torch.stack([each.view(order.shape) for each in orders], -2)


def _as_it_is(network: nn.Module) -> None:
    """Draw nothing: the weights are read."""


METHOD = Method(
    "deep",
    DeepEnsemble,
    "Deep ensemble",
    "the deep ensemble",
    Style("#0072B2", "s", (0, (5, 1.6)), "■", on_light="#0072b2", on_dark="#4aa8e0"),
    independent=True,
    unstarted={"reset": _as_it_is},
)
