"""Members that share weights layer by layer, as rules say: what several methods have in common."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import nn

from batchensemble.ensembles.base import Ensemble
from batchensemble.ensembles.conversion.branching import Branch
from batchensemble.ensembles.conversion.checks import check_network
from batchensemble.ensembles.conversion.convert import convert, twins
from batchensemble.ensembles.conversion.own_layers import Own
from batchensemble.ensembles.conversion.report import count_parameters
from batchensemble.ensembles.conversion.rules import Rules
from batchensemble.ensembles.conversion.unregistered import remember_origin
from batchensemble.ensembles.runner import RunMode
from batchensemble.layers.registry import is_norm


class ByLayers(Ensemble):
    """An ensemble whose members share weights layer by layer.

    Args:
        network: any module that maps ``[batch, ...]`` to ``[batch, ...]``.
        members: number of members (M), at least 1.
        rules: what the members share.
        own: a budget of layers of which each member has its own copy, see
            :class:`batchensemble.BatchEnsemble`.
        untiled, branch_at, run, inplace: see :class:`batchensemble.BatchEnsemble`.

    Attributes:
        given: the selectors of the rules as names and patterns, by argument.

    Raises:
        TypeError: ``network`` is no module, or a selector has the wrong type.
        ValueError: a selector matches nothing, or a layer cannot be converted.
    """

    def __init__(
        self,
        network: nn.Module,
        members: int,
        rules: Rules,
        *,
        own: Own | None = None,
        untiled: Collection[str] = (),
        branch_at: str | None = None,
        run: RunMode | None = None,
        inplace: bool = False,
    ) -> None:
        check_network(network)
        branch = None if branch_at is None else Branch.of(network, branch_at)
        rules = rules.with_own(network, own, () if branch is None else branch.trunk)
        of_one, given = count_parameters(network), rules.names(network)
        if branch is not None:
            rules = branch.share(network, rules)
        origin = {module: name for name, module in network.named_modules()}
        converted = convert(network, members, rules, inplace=inplace)
        if members > 1 and not any(True for _ in twins(converted)):
            raise ValueError(
                "all members would be the same network: there is no layer with weights to convert; "
                "include= and exclude= leave none, or the network itself holds all weights"
            )
        super().__init__(
            converted,
            members,
            of_one,
            batch_axis=rules.options.batch_axis,
            untiled=untiled,
            branch=branch,
            run=run,
        )
        remember_origin(self, origin)
        self.given = given
        self.options: dict[str, Any] = {
            "batch_axis": rules.options.batch_axis,
            "untiled": list(self.untiled),
            "branch_at": branch_at,
            "run": run,
        }


def shared_before(network: nn.Module, branch_at: str | None) -> list[nn.Module]:
    """Return the modules that run once for all members, before ``branch_at``.

    Raises:
        TypeError, ValueError: it is no module at which an ensemble can begin.
    """
    trunk = () if branch_at is None else Branch.of(network, branch_at).trunk
    return [network.get_submodule(each) for each in trunk]


def norms_after(network: nn.Module, shared: Collection[nn.Module]) -> list[str]:
    """Return the names of the norm layers that are in none of the shared modules."""
    before = {each for module in shared for each in module.modules()}
    return [
        name
        for name, each in network.named_modules()
        if name and is_norm(each) and each not in before
    ]
