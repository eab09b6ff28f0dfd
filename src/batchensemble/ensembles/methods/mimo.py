"""MIMO: one network with M inputs side by side and M heads."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import NoReturn

import torch
from jaxtyping import Int
from torch import Tensor, nn

from batchensemble.core.arguments import fraction, whole_number
from batchensemble.core.inputs import Inputs
from batchensemble.core.pytree import Path
from batchensemble.ensembles.base import Ensemble
from batchensemble.ensembles.conversion.axes import learn_axes
from batchensemble.ensembles.conversion.branching import Branch
from batchensemble.ensembles.conversion.checks import check_network
from batchensemble.ensembles.conversion.convert import put_module
from batchensemble.ensembles.conversion.copies import copied, relink
from batchensemble.ensembles.conversion.report import Report, count_parameters
from batchensemble.ensembles.conversion.tiling import Arguments, Tiling
from batchensemble.ensembles.conversion.unregistered import remember_origin
from batchensemble.ensembles.methods.method import Method, Style
from batchensemble.layers.base.rows import RUNNING, running
from batchensemble.layers.base.written_inputs import lending
from batchensemble.layers.linear import plain_linear


class MIMO(Ensemble):
    """M subnetworks in one network (Havasi et al. 2021, openreview OGg9XnKxFAH).

    The first linear layer is widened to M inputs and the last to M outputs, both re-initialised;
    all layers between are shared. In training each member sees its own examples, so that the shared
    layers learn M subnetworks; in prediction all members see the same example.

    Args:
        network: a module whose first and last layer with weights are ``nn.Linear``.
        members: number of members (M), at least 1.
        input_repetition: share of the training rows in which all members see the same example, 0
            to 1, by default 0 (rho in the paper).
        batch_repetition: number of times each example occurs in a training batch, by default 1; a
            batch of B examples becomes ``B * batch_repetition`` rows.
        branch_at: name of the module at which the ensemble begins. Modules defined before it run on
            each example by itself, with the weights of ``network``, and their outputs are put side
            by side; the first layer is then the first one from there on. By default the inputs
            themselves are put side by side.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of range, the first or last layer is not linear, or there is
            no module called ``branch_at``.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> MIMO(net, members=4)(torch.zeros(5, 2)).shape
        torch.Size([5, 4, 3])
    """

    def __init__(
        self,
        network: nn.Module,
        members: int,
        *,
        input_repetition: float = 0.0,
        batch_repetition: int = 1,
        branch_at: str | None = None,
    ) -> None:
        members = whole_number("members", members)
        check_network(network)
        trunk = () if branch_at is None else Branch.of(network, branch_at).trunk
        first, last = _ends(network, trunk)
        widened = _widen(copied(network), first, inputs=members)
        widened = _widen(widened, last, outputs=members)
        if branch_at is not None:
            wide = _linear(widened, first)
            wide.register_forward_pre_hook(_SideBySide(members))
        super().__init__(widened, members, count_parameters(network), run="together")
        remember_origin(self, network)
        self.first, self.last = first, last
        self.input_repetition = fraction("input_repetition", input_repetition)
        self.batch_repetition = whole_number("batch_repetition", batch_repetition)
        self.branch_at = branch_at
        self.options = {
            "input_repetition": input_repetition,
            "batch_repetition": batch_repetition,
            "branch_at": branch_at,
        }

    @property
    def own_examples(self) -> bool:
        """Whether each member sees its own examples: always."""
        return True

    def forward(self, x: Inputs, *, per_member: bool = False) -> Tensor:  # type: ignore[override]
        """Run all members, see :meth:`Ensemble.forward`."""
        return self._wide(x, per_member).unflatten(1, (self.members, -1))

    def rows(self, x: Inputs, *, per_member: bool = False) -> Tensor:
        """Run all members; the rows are example-major, see :meth:`Ensemble.rows`."""
        y = self._wide(x, per_member)
        return y.view(len(y) * self.members, -1)

    def target_rows(self, targets: Tensor, *, per_member: bool = False) -> Tensor:
        """Return targets in the order of :meth:`rows`."""
        return targets.flatten(-2) if per_member else targets.repeat_interleave(self.members, -1)

    def by_member(self, values: Tensor) -> Tensor:
        """Return values of :meth:`rows` as ``[batch, members]``."""
        return values.view(-1, self.members)

    def _wide(self, x: Inputs, per_member: bool) -> Tensor:
        """Return the heads side by side, ``[batch, members * outputs]``."""
        if not isinstance(x, Tensor):
            raise TypeError("MIMO takes one tensor of inputs, got several or a nested one")
        if self.branch_at is not None:
            return self._wide_from_branch(x, per_member)
        if not per_member:
            return self.network(x.repeat(1, self.members, *[1] * (x.dim() - 2)))
        self._check_member_axis(x)
        side_by_side = x.flatten(1, 2) if x.dim() > 2 else x
        with lending(self) as lent:
            return self.network(lent.one((), side_by_side, x))

    def _wide_from_branch(self, x: Tensor, per_member: bool) -> Tensor:
        """Return the same where the first modules run on each example by itself."""
        if per_member:
            self._check_member_axis(x)
        rows = x.flatten(0, 1) if per_member else x
        with lending(self) as lent, running(rows=x.shape[0]):
            return self.network(lent.one((), rows, x))

    def draw(self, order: Int[Tensor, "*steps batch"]) -> Int[Tensor, "*steps members rows"]:
        """Return ``batch * batch_repetition`` rows of ``members`` examples for each batch.

        In a share ``input_repetition`` of the rows all members have the same example; in the
        others each member has its own permutation of the batch.
        """
        rows = order.repeat(*[1] * (order.dim() - 1), self.batch_repetition)
        apart = round(rows.shape[-1] * (1 - self.input_repetition))
        own, same = rows[..., :apart], rows[..., apart:]
        shuffled = [own.gather(-1, torch.rand(own.shape).argsort(-1)) for _ in range(self.members)]
        return torch.stack([torch.cat([each, same], -1) for each in shuffled], -2)

    def member(self, index: int) -> nn.Module:
        """Return member ``index`` as the plain network it is if all inputs are the same example.

        The M blocks of the first layer's weight are summed; the member's block of the last layer is
        kept.
        """
        index = self._check_index(index)
        network = copy.deepcopy(self.network)
        wide = _linear(network, self.first)  # whose hook goes with it
        weight = wide.weight.unflatten(1, (self.members, -1)).sum(1)
        network = _put(network, self.first, plain_linear(weight, wide.bias))
        wide = _linear(network, self.last)
        weight = wide.weight.unflatten(0, (self.members, -1))[index]
        bias = None if wide.bias is None else wide.bias.unflatten(0, (self.members, -1))[index]
        network = _put(network, self.last, plain_linear(weight, bias))
        return self._calibrate_member(network.train(self.network.training), index)

    def report(self) -> Report:
        """Return one row per module; each head of the last layer is its member's own."""
        report = super().report()
        rows = [
            replace(
                row, sharing="heads", shared=0, per_member=row.shared // self.members, reason=""
            )
            if row.name == self.last
            else replace(row, reason="")
            for row in report
        ]
        return replace(report, rows=rows)

    def learn_axes(self, tiling: Tiling, arguments: Arguments) -> dict[Path, int]:
        """Find the row axis of each output, from a member: the network takes wider inputs."""
        plain = self.member(0)
        return learn_axes(plain, plain, tiling, arguments)

    def select(self, indices: Sequence[int]) -> NoReturn:
        """Raise ``ValueError``: the members share all layers and cannot be separated."""
        raise ValueError("the members of MIMO share one network and cannot be separated")


class _SideBySide:
    """A hook of the first layer: puts the rows of all members' examples side by side.

    There are either ``batch * members`` rows, example-major, or one row for each example, which all
    members then see.
    """

    def __init__(self, members: int) -> None:
        self.members = members

    def __call__(self, layer: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        (x,) = args
        if x.shape[0] == RUNNING.rows:
            return (x.repeat(1, self.members),)
        return (x.unflatten(0, (-1, self.members)).flatten(1),)


def _ends(network: nn.Module, trunk: Collection[str]) -> tuple[str, str]:
    """Return the names of the first layer after the trunk and the last one; both must be linear."""
    before = {each for name in trunk for each in network.get_submodule(name).modules()}
    holders = [
        (name, module)
        for name, module in network.named_modules()
        if module not in before and next(module.parameters(recurse=False), None) is not None
    ]
    if not holders:
        raise ValueError("MIMO needs a network with linear layers, got one without weights")
    for position, (name, module) in (("first", holders[0]), ("last", holders[-1])):
        if type(module) is not nn.Linear:
            raise ValueError(
                f"MIMO widens the {position} layer of the network, which must be a Linear; "
                f"{name or 'the network'!r} is a {type(module).__name__}"
            )
    return holders[0][0], holders[-1][0]


def _widen(network: nn.Module, name: str, *, inputs: int = 1, outputs: int = 1) -> nn.Module:
    """Replace the linear layer called ``name`` by a wider one with a random start."""
    old = _linear(network, name)
    wide = nn.Linear(
        old.in_features * inputs,
        old.out_features * outputs,
        bias=old.bias is not None,
        device=old.weight.device,
        dtype=old.weight.dtype,
    )
    return _put(network, name, wide)


def _put(network: nn.Module, name: str, layer: nn.Linear) -> nn.Module:
    old = network.get_submodule(name)
    return relink(put_module(network, name, layer), {old: layer})


def _linear(network: nn.Module, name: str) -> nn.Linear:
    layer = network.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    return layer


METHOD = Method(
    "mimo",
    MIMO,
    "MIMO",
    "MIMO",
    Style("#009E73", "D", (0, (5, 1.5, 1.2, 1.5)), "◆", on_light="#008a64", on_dark="#35c497"),
    grows=False,
)
