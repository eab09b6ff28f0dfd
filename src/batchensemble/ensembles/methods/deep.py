"""Deep ensembles: independently initialised networks, trained and run as one module."""

from __future__ import annotations

import warnings
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
from batchensemble.ensembles.growing import append_copy, joined_members, start_anew
from batchensemble.ensembles.methods.method import Method, Style
from batchensemble.ensembles.runner import RunMode


class DeepEnsemble(Ensemble):
    """M independent networks (Lakshminarayanan et al. 2017, arXiv 1612.01474).

    Each member is re-initialised, so that members differ; only the architecture of ``network``
    matters, not its weights. A network does not tell whether it was trained: to start all members
    from its weights, name what is still to be drawn anew, ``reset=["classifier"]``, or nothing,
    ``reset=[]``.

    If all layers have stacked twins, each layer is one batched product for all members; otherwise
    the members run as copies, one after the other: slower, with the same results. ``stacked=True``
    runs any other network at once, too, under ``torch.func.vmap``. In training each member sees
    the examples in its own order.

    Args:
        network: any module that maps ``[batch, ...]`` to ``[batch, ...]``.
        members: number of members (M), at least 1.
        reset: names of the modules that are re-initialised for each member, as in
            :class:`batchensemble.BatchEnsemble`, all others starting from the weights of
            ``network``; or a function that re-initialises one network in place. By default all
            modules, each by its own ``reset_parameters``.
        stacked: ``True``: run all members at once, with stacked twins if all layers have one
            (``forward`` must then process each row independently), else under ``vmap``, see
            :class:`~batchensemble.layers.Vmapped`. ``False``: run copies one after the other. By
            default stacked if all layers have stacked twins and all modules are torch's own.
        batch_axis: axis of the batch in the inputs: 0 (default), or 1 if the sequence comes first.
        untiled: names of arguments, or keys within them, that are not per example though their
            first axis may be as long as the batch; by default none.
        branch_at: name of the module at which the ensemble begins. Modules defined before it are a
            shared trunk with the weights of ``network`` that runs once per batch; the others are
            re-initialised for each member. The members then see the same examples in training. By
            default there is no trunk.
        run: how the members run. ``"together"``: one forward pass for all, which requires a network
            that processes each row independently. ``"one_by_one"``: one forward pass for each, for
            any network. By default together, unless the first call detects that the network mixes
            rows; it then warns and runs them one by one.

    Warns:
        UserWarning: by default, where a network of transformers was loaded from pretrained weights,
            which would be lost.

    Raises:
        TypeError: ``members`` is not a whole number.
        ValueError: ``members`` is below 1, or there is no module called ``branch_at`` or as
            ``reset`` names; at a call,
            ``stacked=True`` and ``vmap`` does not support the network, for example because its
            control flow depends on data or it has recurrent layers.

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
        if reset is None:
            _warn_of_lost_weights(network)
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
        """Whether each member sees the examples in its own order: unless there is a trunk."""
        return self._branch is None

    def draw(self, order: Int[Tensor, "*steps batch"]) -> Int[Tensor, "*steps members rows"]:
        """Return a different order of the same examples for each member."""
        return own_orders(order, self.members)

    def add_member(self, like: int | None = None, *, reset: Reset | None = None) -> int:
        """Append a member in place; no bit of the other members changes.

        The parameters that members own are new tensors: make optimisers again.

        Args:
            like: the member to copy; by default none, for one with fresh random weights.
            reset: how these are drawn, see the class; modules that it does not name are copied from
                member 0.

        Returns:
            The index of the new member.

        Raises:
            IndexError: there is no such member.
            ValueError: both arguments are given, or the model is calibrated.

        Example:
            >>> model = DeepEnsemble(nn.Linear(2, 3), members=4)
            >>> model.add_member(), model.add_member(like=0), model.members
            (4, 5, 6)
        """
        if like is not None and reset is not None:
            raise ValueError("give like=, to copy a member, or reset=, for a fresh start, not both")
        index = append_copy(self, self._check_index(0 if like is None else like))
        if like is None:
            start_anew(self, reset)
        return index

    def join(self, *others: DeepEnsemble) -> DeepEnsemble:
        """Return one ensemble of the members of this one and of others, in their order.

        Args:
            others: ensembles of the same network; with a shared trunk, of the same trunk bit by
                bit.

        Raises:
            TypeError: one is no DeepEnsemble.
            ValueError: the networks, their trunks, or what their outputs mean differ, or one is
                calibrated; the message says what.

        Example:
            >>> net = nn.Linear(2, 3)
            >>> DeepEnsemble(net, members=4).join(DeepEnsemble(net, members=2)).members
            6
        """
        return joined_members([self, *others])

    @classmethod
    def from_members(
        cls,
        networks: Sequence[nn.Module],
        *,
        stacked: bool | None = None,
        branch_at: str | None = None,
    ) -> DeepEnsemble:
        """Return the ensemble of these networks with their weights.

        Args:
            networks: one plain network for each member, all of the same architecture.
            stacked: whether to run them all at once, see the class; by default if all layers have
                stacked twins and all modules are torch's own.
            branch_at: name of the module at which the ensemble begins; all modules before it must
                be equal. By default there is no shared trunk.

        Raises:
            ValueError: there are no networks, their parameters differ in name or shape, or they
                differ before ``branch_at``.

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
    """Return a random order of the same examples for each member, from torch's generator."""
    examples = order.flatten()
    orders = [examples[torch.randperm(len(examples))] for _ in range(members)]
    return torch.stack([each.view(order.shape) for each in orders], -2)


def _warn_of_lost_weights(network: nn.Module) -> None:
    source = getattr(network, "name_or_path", None)
    if isinstance(source, str) and source:
        warnings.warn(
            f"the network was loaded from {source!r}, and DeepEnsemble re-initialises all its "
            'weights; to start from them give reset=["classifier"], the modules to be drawn anew, '
            "or reset=[] for none",
            stacklevel=3,
        )


def _keep_weights(network: nn.Module) -> None:
    """Initialise nothing: the weights will be loaded."""


METHOD = Method(
    "deep",
    DeepEnsemble,
    "Deep ensemble",
    "the deep ensemble",
    Style("#0072B2", "s", (0, (5, 1.6)), "■", on_light="#0072b2", on_dark="#4aa8e0"),
    independent=True,
    unstarted={"reset": _keep_weights},
)
