"""BatchEnsemble: one shared network, modified for each member by rank-one fast weights."""

from __future__ import annotations

import copy
import fnmatch
import warnings
from collections.abc import Collection, Sequence

import torch
from torch import nn

from batchensemble.core.arguments import one_of, whole_number
from batchensemble.ensembles.conversion.branch_inputs import without_branch_inputs
from batchensemble.ensembles.conversion.convert import extract, same_architecture, twins
from batchensemble.ensembles.conversion.own_layers import Own
from batchensemble.ensembles.conversion.rules import Rules, Selectors, as_list
from batchensemble.ensembles.growing import append_copy, joined_members, start_fast_weights
from batchensemble.ensembles.methods.by_layers import ByLayers
from batchensemble.ensembles.methods.method import Method, Style
from batchensemble.ensembles.runner import RunMode
from batchensemble.layers import Independent, MemberNorm, RankOne, StackedLinear, Twin
from batchensemble.layers.base.twin import same
from batchensemble.layers.rank_one.arithmetic import Space
from batchensemble.layers.rank_one.fast_weights import Mode, Owner
from batchensemble.layers.rank_one.initialisation import ADDITIVE, MULTIPLICATIVE
from batchensemble.layers.rank_one.options import Initialisation, Options

# Of weights of an average with a member's: with less it was of no use on digits, whatever the init.
LEAST_COSINE = 0.6


class BatchEnsemble(ByLayers):
    """Members that share their weights and own two vectors per layer (arXiv 2002.06715).

    Every layer of ``torch.nn`` with weights is replaced by its rank-one twin, in any network; its
    weights become the shared ones. For a trained network use ``init="normal", std=0.2``, so that
    every member starts near it; with ``init="ones"`` all start as the network itself.

    Modules are selected by name, by a pattern of names such as ``"layer4.*"``, by class, or by a
    function from name and module to a boolean; a selection includes all modules beneath.

    Args:
        network: any module that maps ``[batch, ...]`` to ``[batch, ...]``; it is copied.
        members: number of members (M), at least 1.
        mode: ``"multiplicative"``: ``W ∘ (s_m r_mᵀ)``; ``"additive"``: ``W + (alpha / rank)
            S_mᵀ R_m``.
        rank: rank k of each member's weight change, by default 1; above 1 only in additive mode.
        alpha: scale of the additive part; by default ``rank``, so that the factor is 1.
        init: initialisation of the fast weights, by name or as a function, see
            :mod:`batchensemble.layers.rank_one.initialisation`; by default that of the mode.
        std: standard deviation of ``init="normal"``. In multiplicative mode of the factors, by
            default 0.5; in additive mode of the added weight relative to the shared one, by default
            1.
        bias: ``"member"`` (default): each member has its own biases; ``"shared"``: one for all.
        norm: the same for the weights of norm layers and ``PReLU``. Running statistics are always
            each member's own.
        include: modules that become rank-one, all others being shared; by default all become so.
        own: share of the network's weights that each member has its own copies of, re-initialised:
            a number such as 0.12, a text such as ``"12%"``, or ``"auto"`` for 11 %. The last layer
            comes first, then layers from the input on, until the next one does not fit; norms do
            not count. ``report()`` lists them. By default none.
        independent: modules that each member has its own copy of, re-initialised; by default none.
        exclude: modules that all members share unchanged; by default none.
        one_by_one: modules that run once for each member, such as a mixture of experts, whose
            routing depends on the data; by default none.
        batch_axis: axis of the batch in the inputs: 0 (default), or 1 if the sequence comes first.
        untiled: names of arguments, or keys within them, that are not per example though their
            first axis may be as long as the batch; by default none.
        space: what linear layers and convolutions scale in multiplicative mode: ``"activation"``,
            ``"weight"``, or ``"auto"`` (default), whichever is cheaper for the shapes. It affects
            speed and memory only.
        inplace: convert ``network`` itself instead of a copy; by default a copy.
        branch_at: name of the module at which the ensemble begins. Modules defined before it are a
            shared trunk that runs once per batch. By default there is no trunk.
        run: how the members run. ``"together"``: one forward pass for all, which requires a network
            that processes each row independently. ``"one_by_one"``: one forward pass for each, for
            any network. By default together, unless the first call detects that the network mixes
            rows; it then warns and runs them one by one.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of range, a selector matches nothing, or a layer cannot be
            converted; the message names it.

    Example:
        >>> net = nn.Sequential(nn.Conv1d(2, 8, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))
        >>> _ = net(torch.zeros(1, 2, 10))
        >>> BatchEnsemble(net, members=4, independent=["0"])(torch.zeros(5, 2, 10)).shape
        torch.Size([5, 4, 3])
    """

    def __init__(
        self,
        network: nn.Module,
        members: int,
        *,
        mode: Mode = "multiplicative",
        rank: int = 1,
        alpha: float | None = None,
        init: Initialisation | None = None,
        std: float | None = None,
        bias: Owner = "member",
        norm: Owner = "member",
        own: Own | None = None,
        include: Selectors | None = None,
        independent: Selectors = (),
        exclude: Selectors = (),
        one_by_one: Selectors = (),
        batch_axis: int = 0,
        untiled: Collection[str] = (),
        space: Space = "auto",
        inplace: bool = False,
        branch_at: str | None = None,
        run: RunMode | None = None,
    ) -> None:
        members = whole_number("members", members)
        options = Options(
            mode=mode,
            rank=rank,
            alpha=alpha,
            init=init,
            std=std,
            bias=bias,
            norm=norm,
            batch_axis=batch_axis,
            space=space,
        )
        include = None if include is None else as_list("include", include)
        independent, exclude = as_list("independent", independent), as_list("exclude", exclude)
        one_by_one = as_list("one_by_one", one_by_one)
        rules = Rules("rank_one", include, independent, exclude, one_by_one, options)
        super().__init__(
            network,
            members,
            rules,
            own=own,
            untiled=untiled,
            branch_at=branch_at,
            run=run,
            inplace=inplace,
        )
        self.options = {**options.by_name(), **self.given, **self.options}

    def shareable_layers(self, chosen: Collection[nn.Module]) -> list[Twin]:
        """Return those of the chosen layers that may become shared by all members automatically.

        Not those that the user named in ``include`` or ``independent``, and never all layers.
        """
        named = [*(self.options["include"] or ()), *self.options["independent"]]
        left = [twin for _, twin in twins(self.network) if isinstance(twin, Twin)]
        found: list[Twin] = [
            twin
            for twin in left
            if twin in chosen
            and isinstance(twin, (RankOne, MemberNorm))
            and not list(twin.buffers())
            and not any(fnmatch.fnmatchcase(twin.name, each) for each in named)
        ]
        return found if len(found) < len(left) else []

    def average(self) -> nn.Module:
        """Return one plain network with the mean of the members' fast weights merged in.

        Raises:
            ValueError: there are independent modules, whose mean is no useful network.

        Warns:
            UserWarning: the merged weights differ so much from the members' that the network is
                unlikely to be of use, as with random signs: their mean cosine over the layers is
                below 0.6. Above that it may still predict worse than a member: score it.
        """
        self._check_no_copies("averaged")
        network = copy.deepcopy(self.network)
        for _, twin in twins(network):
            twin.average()  # type: ignore[operator]
        _warn_if_useless(self.network, network, self.members)
        return without_branch_inputs(extract(network, 0))

    def set_member(self, index: int, network: nn.Module) -> None:
        """Set member ``index`` to a plain ``network``.

        The network's weights must differ from the shared ones by what fast weights can represent
        exactly, as those of another ensemble's member with the same shared weights do.

        Raises:
            IndexError: there is no such member.
            ValueError: fast weights cannot represent a layer, or it differs in what all members
                share; the message names it, and the ensemble is unchanged.
        """
        index = self._check_index(index)
        same_architecture([self.member(index), network])
        trial = copy.deepcopy(self.network)
        with torch.no_grad():
            for name, twin in twins(trial):
                twin.put(index, network.get_submodule(name))  # type: ignore[operator]
            _check_the_rest(trial, network)
        self.network.load_state_dict(trial.state_dict())

    def add_member(self, like: int | None = None, *, init: Initialisation | None = None) -> int:
        """Append a member in place; no bit of the other members changes.

        A fresh one starts with the shared weights, bent by ``init``; its biases, norms and running
        statistics are the means of those of the others, and its independent modules are drawn anew.
        The parameters that members own are new tensors: make optimisers again.

        Args:
            like: the member to copy; by default none, for a fresh start.
            init: initialisation of the fast weights of a fresh start, by name or as a function; by
                default ``"ones"``, in additive mode ``"zeros"``, which is the shared network.

        Returns:
            The index of the new member.

        Raises:
            IndexError: there is no such member.
            ValueError: both arguments are given, the mode has no such initialisation, or the model
                is calibrated.

        Example:
            >>> model = BatchEnsemble(nn.Linear(2, 3), members=4)
            >>> model.add_member(like=2), model.add_member(init="random_sign"), model.members
            (4, 5, 6)
        """
        if like is not None and init is not None:
            raise ValueError("give like=, to copy a member, or init=, for a fresh start, not both")
        if isinstance(init, str):
            functions = MULTIPLICATIVE if self.options["mode"] == "multiplicative" else ADDITIVE
            one_of("init", init, functions)
        index = append_copy(self, self._check_index(0 if like is None else like))
        if like is None:
            start_fast_weights(self.network, init)
        return index

    def join(self, *others: BatchEnsemble) -> BatchEnsemble:
        """Return one ensemble of the members of this one and of others, in their order.

        Args:
            others: ensembles of the same network and options that share their weights with this
                one, bit by bit: trained apart with the shared weights frozen, for example.

        Raises:
            TypeError: one is no BatchEnsemble.
            ValueError: one differs in what all members share or in what its outputs mean, or is
                calibrated; the message says what.

        Example:
            >>> net = nn.Linear(2, 3)
            >>> BatchEnsemble(net, members=4).join(BatchEnsemble(net, members=2)).members
            6
        """
        return joined_members([self, *others])

    @classmethod
    def from_members(
        cls,
        networks: Sequence[nn.Module],
        *,
        mode: Mode = "multiplicative",
        rank: int = 1,
        branch_at: str | None = None,
    ) -> BatchEnsemble:
        """Return the ensemble of networks whose weights differ by low-rank factors only.

        The first network's weights become the shared ones.

        Args:
            networks: one plain network for each member, such as those of :meth:`member`.
            mode: ``"multiplicative"`` (default) or ``"additive"``: how their weights differ.
            rank: largest rank of the difference, by default 1. Members of an additive ensemble of
                rank k differ from the first one by rank 2k.
            branch_at: name of the module at which the ensemble begins; all modules before it must
                be equal. By default there is no shared trunk.

        Raises:
            ValueError: there are no networks, their architectures differ, or their weights differ
                by more.
        """
        networks = list(networks)
        same_architecture(networks)
        init = "ones" if mode == "multiplicative" else "zeros"
        result = cls(
            networks[0], len(networks), mode=mode, rank=rank, init=init, branch_at=branch_at
        )
        for index, network in enumerate(networks):
            result.set_member(index, network)
        return result

    def _check_no_copies(self, what: str) -> None:
        for name, twin in twins(self.network):
            if isinstance(twin, (Independent, StackedLinear)):
                raise ValueError(f"{name!r} is independent for each member and cannot be {what}")


def _warn_if_useless(network: nn.Module, averaged: nn.Module, members: int) -> None:
    """Warn if the weights of an average have little in common with those of the members."""
    cosines: list[float] = []
    with torch.no_grad():
        for twin, mean in zip(network.modules(), averaged.modules(), strict=True):
            if not isinstance(twin, RankOne) or not isinstance(mean, RankOne) or twin.for_all:
                continue
            for name in twin.layouts:
                middle = mean.merged_weight(0, name).flatten().double()
                each = (
                    twin.merged_weight(index, name).flatten().double() for index in range(members)
                )
                found = [torch.cosine_similarity(middle, one, 0).item() for one in each]
                cosines.append(sum(found) / members)
    cosine = sum(cosines) / len(cosines) if cosines else 1.0
    if cosine < LEAST_COSINE:
        warnings.warn(
            "the mean of the members is probably no useful network: the cosine of its weights with "
            f"those of a member is {cosine:.2f} in the mean of the layers, since the members' fast "
            "weights cancel out, as random signs do; score it with evaluate(Single(network), data) "
            "before use, average members that start near each other (init='normal', std=0.2), or "
            "distil the ensemble",
            stacklevel=3,
        )


def _check_the_rest(converted: nn.Module, network: nn.Module) -> None:
    """Raise ``ValueError`` if parameters outside the twins differ between the two networks."""
    covered = {parameter for _, twin in twins(converted) for parameter in twin.parameters()}
    for path, parameter in converted.named_parameters():
        if parameter not in covered and not same(parameter, network.get_parameter(path)):
            raise ValueError(
                f"{path!r} is shared by all members, and the given network has another"
            )


METHOD = Method(
    "batch",
    BatchEnsemble,
    "BatchEnsemble",
    "BatchEnsemble",
    Style("#D55E00", "^", "solid", "▲", on_light="#c25500", on_dark="#f08a45"),
)
