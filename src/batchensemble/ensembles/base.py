"""What every ensemble is: one network, many members."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor, nn

from batchensemble.checks import whole_number
from batchensemble.convert import extract, is_twin, takes_any_leading_axes
from batchensemble.layers import Independent


@dataclass(frozen=True)
class ModuleReport:
    """What conversion made of one module that holds weights.

    Attributes:
        name: in the network.
        kind: its class.
        detail: its shape.
        sharing: ``"shared"``, ``"rank_one"``, ``"independent"``, or ``"heads"`` in MIMO.
        shared: parameters that all members use.
        per_member: parameters that each member owns.
    """

    name: str
    kind: str
    detail: str
    sharing: str
    shared: int
    per_member: int


class Ensemble(nn.Module):
    """One module that is ``members`` models: ``[batch, ...]`` to ``[batch, members, ...]``.

    Inside, the members ride in the batch axis, member-major: row ``m * batch + b`` is example
    ``b`` seen by member ``m``. Subclasses make ``network``, which maps such rows to such rows.

    Args:
        network: the converted network.
        members: how many members (M).
        parameters_of_one: how many parameters one plain network has.
    """

    def __init__(self, network: nn.Module, members: int, parameters_of_one: int) -> None:
        super().__init__()
        self.network = network
        self.members = whole_number("members", members)
        self.parameters_of_one = parameters_of_one
        self._any_leading_axes = self.members > 1 and takes_any_leading_axes(network)

    def forward(self, x: Tensor, *, per_member: bool = False) -> Tensor:
        """Run all members.

        Args:
            x: ``[batch, ...]``, seen by every member; with ``per_member=True``
                ``[batch, members, ...]``, a different example for each member.

        Returns:
            ``[batch, members, ...]``.

        Raises:
            ValueError: ``per_member=True`` and the second axis of ``x`` is not ``members``.
        """
        return self._stacked(x, per_member).transpose(0, 1)

    def rows(self, x: Tensor, *, per_member: bool = False) -> Tensor:
        """Run all members and return ``[members * batch, ...]``, in the order they lie in memory.

        That order is the method's own, and :meth:`target_rows` knows it; a loss that takes rows
        saves the views that :meth:`forward` needs to put the batch first.
        """
        if self.members == 1 and not per_member:
            return self.network(x)
        return self._stacked(x, per_member).flatten(0, 1)

    def target_rows(self, targets: Tensor, *, per_member: bool = False) -> Tensor:
        """Return targets in the order of :meth:`rows`.

        Args:
            targets: ``[..., batch]``, or with ``per_member=True`` ``[..., batch, members]``.
            per_member: whether each member has targets of its own.
        """
        if per_member:
            return targets.transpose(-1, -2).flatten(-2)
        return targets.repeat(*[1] * (targets.dim() - 1), self.members)

    def by_member(self, values: Tensor) -> Tensor:
        """Return values of :meth:`rows`, ``[members * batch]``, as ``[batch, members]``."""
        return values.view(self.members, -1).t()

    def member(self, index: int) -> nn.Module:
        """Return member ``index`` as a plain network, its own weights merged in.

        Raises:
            IndexError: there is no such member.
        """
        return extract(self.network, self._check_index(index))

    @property
    def own_examples(self) -> bool:
        """Whether training gives each member examples, or an order of them, of its own."""
        return False

    @property
    def calls_per_forward(self) -> int:
        """How many times a forward pass calls a network: 1, or M where the members are copies."""
        return self.members if isinstance(self.network, Independent) else 1

    def draw(self, order: Int[Tensor, "*steps batch"]) -> Int[Tensor, "*steps members rows"]:
        """Return which example each member sees in each row of each training batch.

        Asked only if :attr:`own_examples`; draws from torch's global generator.

        Args:
            order: the shuffled examples of each batch.
        """
        return order.unsqueeze(-2).expand(*order.shape[:-1], self.members, order.shape[-1])

    def report(self) -> list[ModuleReport]:
        """Return one row for each module that holds weights: how it is shared, what it costs."""
        return _report(self.network, "", self.members, set())

    def parameter_counts(self) -> dict[str, int | float]:
        """Return the parameters in total, those each member owns, and the ratio to one network."""
        rows = self.report()
        total = count_parameters(self)
        return {
            "parameters": total,
            "parameters_per_member": sum(row.per_member for row in rows),
            "parameter_ratio": total / self.parameters_of_one,
        }

    def _stacked(self, x: Tensor, per_member: bool) -> Tensor:
        """Return the outputs as ``[members, batch, ...]``."""
        if per_member:
            self._check_member_axis(x)
            stacked = x.transpose(0, 1)
        else:
            stacked = x.expand(self.members, *x.shape)
        if self._any_leading_axes:
            return self.network(stacked)
        y = self.network(stacked.flatten(0, 1))
        return y.view(self.members, len(x), *y.shape[1:])

    def _check_member_axis(self, x: Tensor) -> None:
        if x.dim() < 2 or x.shape[1] != self.members:
            raise ValueError(
                f"per_member=True takes inputs of shape [batch, members={self.members}, ...], "
                f"got {list(x.shape)}"
            )

    def _check_index(self, index: int) -> int:
        if not -self.members <= index < self.members:
            raise IndexError(f"member {index} of {self.members}: give 0 to {self.members - 1}")
        return index % self.members


def count_parameters(network: nn.Module) -> int:
    """Return how many parameters ``network`` has, a shared one counted once."""
    return sum(parameter.numel() for parameter in network.parameters())


def _shape(module: nn.Module) -> str:
    if hasattr(module, "in_features") and hasattr(module, "out_features"):
        return f"{module.in_features} → {module.out_features}"
    return module.extra_repr()


def _report(module: nn.Module, name: str, members: int, seen: set[nn.Module]) -> list[ModuleReport]:
    """Describe ``module`` and all beneath it that is not yet ``seen``, a twin as one row."""
    if module in seen:
        return []
    seen.add(module)
    kind = type(module).__name__
    if is_twin(module):
        fast = [p.numel() for n, p in module.named_parameters() if n in ("r", "s")]
        total = count_parameters(module)
        if fast:
            bias = module.bias
            own = sum(fast) + (bias.numel() if isinstance(bias, Tensor) and bias.dim() == 2 else 0)
            sharing = "rank_one"
        else:
            own, sharing = total, "independent"
        detail = _shape(module)
        return [ModuleReport(name, kind, detail, sharing, total - own, own // members)]
    rows = []
    own_parameters = sum(p.numel() for p in module.parameters(recurse=False))
    if own_parameters:
        rows.append(ModuleReport(name, kind, _shape(module), "shared", own_parameters, 0))
    for child_name, child in module.named_children():
        rows += _report(child, f"{name}.{child_name}" if name else child_name, members, seen)
    return rows
