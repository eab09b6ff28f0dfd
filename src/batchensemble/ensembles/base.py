"""What every ensemble is: one network, many members."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from jaxtyping import Int
from torch import Tensor, nn

from batchensemble.core.arguments import positive_number
from batchensemble.core.inputs import Nested, Scaling
from batchensemble.ensembles.calibrated import Calibrated
from batchensemble.ensembles.conversion.branching import Branch
from batchensemble.ensembles.conversion.convert import twins
from batchensemble.ensembles.conversion.parameter_groups import parameter_groups
from batchensemble.ensembles.conversion.report import Report, count_parameters, inspect_network
from batchensemble.ensembles.forward import ForwardError, ForwardPass
from batchensemble.ensembles.freezing import Freezable
from batchensemble.ensembles.runner import RunMode
from batchensemble.ensembles.verification import Verification, verify
from batchensemble.layers import Independent, OneByOne, Twin

if TYPE_CHECKING:
    from batchensemble.losses import EnsembleLoss

__all__ = ["Ensemble", "ForwardError"]


class Ensemble(ForwardPass, Freezable, Calibrated):
    """One module that is ``members`` models: ``[batch, ...]`` to ``[batch, members, ...]``.

    Inside, the members ride in the batch axis, member-major: row ``m * batch + b`` is example
    ``b`` seen by member ``m``. Subclasses make ``network``, which maps such rows to such rows.

    Args:
        network: the converted network.
        members: how many members (M).
        parameters_of_one: how many parameters one plain network has.
        batch_axis: the axis of the batch in inputs: 0, or 1 where the sequence comes first.
        untiled: names of arguments, or keys within them, that are not per example though their
            size may be the batch's.
        branch: where the members part; what is before it runs once.
        run: whether the members run ``"together"`` or ``"one_by_one"``; by default the first call
            finds out what is right.

    Attributes:
        feature_names: the columns of the table that it was trained on, in the order of the
            network's inputs, by which other tables are read; ``None``: by position.
        target_names: the same of targets in several columns.
        feature_scaling: mean and deviation of each of these columns, where ``batchensemble train``
            standardised them: those of tables and files are from then on, arrays are taken as the
            network takes them.
        class_names: what class numbers stand for, where the training's targets said it.
    """

    def __init__(
        self,
        network: nn.Module,
        members: int,
        parameters_of_one: int,
        *,
        batch_axis: int = 0,
        untiled: Collection[str] = (),
        branch: Branch | None = None,
        run: RunMode | None = None,
    ) -> None:
        super().__init__(
            network, members, batch_axis=batch_axis, untiled=untiled, branch=branch, run=run
        )
        self.parameters_of_one = parameters_of_one
        self.options: dict[str, Any] = {}  # that it is made again with, as JSON can hold them
        self.loss: EnsembleLoss | None = None  # that it was trained with: what its outputs are
        self.trained_on: str | None = None  # fingerprint of the data, where these have one
        self.feature_names: tuple[str, ...] | None = None  # of the columns that it was trained on
        self.feature_scaling: Scaling | None = None
        self.target_names: tuple[str, ...] | None = None  # where they are several columns
        self.class_names: tuple[str, ...] = ()  # in the order of their numbers
        self.training = network.training

    def member(self, index: int) -> nn.Module:
        """Return member ``index`` as a plain network, its own weights merged in.

        It is of the user's own class, with the same names, and computes what the ensemble computes
        for that member: calibrated where :func:`batchensemble.calibrate` scales its outputs.

        Raises:
            IndexError: there is no such member.
        """
        return self._calibrate_member(super().member(index), self._check_index(index))

    def select(self, indices: Sequence[int]) -> Ensemble:
        """Return a smaller ensemble of the same kind, made of copies of these members.

        Raises:
            IndexError: there is no such member.
            ValueError: ``indices`` is empty, or the members cannot be parted.
        """
        indices = [self._check_index(index) for index in indices]
        if not indices:
            raise ValueError("indices must name at least one member, got none")
        result = copy.deepcopy(self)
        for _, twin in twins(result.network):
            twin.keep(indices)  # type: ignore[operator]
        result._keep_calibration(indices)
        result._set_members(len(indices))
        return result

    def verify(self, *args: Any, **kwargs: Any) -> Verification:
        """Check on real inputs that the ensemble computes what its members compute alone.

        Call it once after converting an unusual network. It runs in evaluation mode, and once more
        on fewer examples, where there are any, to find what only fits by the size of the batch.

        Args:
            args: what the network takes; a few examples are enough.
            kwargs: what the network takes, by name.

        Returns:
            The largest difference that was found.

        Raises:
            ValueError: they differ; the sentence names the first module at which they part.
        """
        if len(args) == 1 and isinstance(args[0], Nested):
            args, kwargs = args[0].arguments(kwargs)
        # A calibrator is the same for both, and the steps of an isotonic one enlarge rounding.
        return verify(self if self.calibrator is None else self.uncalibrated(), args, kwargs)

    @property
    def own_examples(self) -> bool:
        """Whether training gives each member examples, or an order of them, of its own."""
        return False

    @property
    def calls_per_forward(self) -> int:
        """How many times a forward pass calls a network: 1, or M where they run one by one."""
        return self.members if self.one_by_one or isinstance(self.network, Independent) else 1

    def draw(self, order: Int[Tensor, "*steps batch"]) -> Int[Tensor, "*steps members rows"]:
        """Return which example each member sees in each row of each training batch.

        Asked only if :attr:`own_examples`; draws from torch's global generator.

        Args:
            order: the shuffled examples of each batch.
        """
        return order.unsqueeze(-2).expand(*order.shape[:-1], self.members, order.shape[-1])

    def report(self) -> Report:
        """Return a row for each module that holds weights: how it is shared, and what it costs."""
        report = inspect_network(self.network, self.members, self.parameters_of_one)
        if self.one_by_one:
            report = replace(report, calls_per_forward=self.calls_per_forward)
        return report if self._branch is None else self._branch.describe(report)

    def run_as(self, run: RunMode) -> None:
        """Let the members run together or one after the other from now on, and when saved too."""
        super().run_as(run)
        self.options["run"] = run

    def parameter_counts(self) -> dict[str, int | float]:
        """Return the parameters in total, those each member owns, and the ratio to one network."""
        total = count_parameters(self)
        return {
            "parameters": total,
            "parameters_per_member": sum(row.per_member for row in self.report()),
            "parameter_ratio": total / self.parameters_of_one if self.parameters_of_one else 1.0,
        }

    def parameter_groups(
        self, *, lr: float, weight_decay: float = 0.0, fast_lr_multiplier: float = 1.0
    ) -> list[dict[str, Any]]:
        """Return the parameters for an optimiser, grouped by what they are.

        ``"shared"``, weights of layers, decay; ``"fast"``, ``"bias"`` and ``"norm"`` do not, since
        fast weights that shrink to 0 would take the shared weight with them.

        Args:
            lr: learning rate, above 0.
            weight_decay: of the weights of layers, shared or independent.
            fast_lr_multiplier: of the fast weights' learning rate.

        Example:
            >>> import torch
            >>> from batchensemble import BatchEnsemble
            >>> model = BatchEnsemble(nn.Linear(2, 3), members=4)
            >>> groups = model.parameter_groups(lr=1e-3, weight_decay=1e-2)
            >>> [(group["name"], group["weight_decay"]) for group in groups]
            [('shared', 0.01), ('fast', 0.0), ('bias', 0.0)]
            >>> optimiser = torch.optim.AdamW(groups)
        """
        positive_number("lr", lr)
        positive_number("fast_lr_multiplier", fast_lr_multiplier)
        if weight_decay:
            positive_number("weight_decay", weight_decay)
        return parameter_groups(
            self.network, lr=lr, weight_decay=weight_decay, fast_lr_multiplier=fast_lr_multiplier
        )

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Load weights, see ``nn.Module.load_state_dict``.

        Raises:
            ValueError: the weights are those of another number of members.
        """
        _check_members(self.network, self.members, state_dict)
        return super().load_state_dict(state_dict, *args, **kwargs)

    def _replicate_for_data_parallel(self) -> NoReturn:
        raise RuntimeError(
            "nn.DataParallel copies modules in a way that loses what the members own; use "
            "torch.nn.parallel.DistributedDataParallel, with one process a device"
        )

    def _set_members(self, members: int) -> None:
        self.members = members
        for module in self.network.modules():
            if isinstance(module, OneByOne):
                module.members = members
        self._look_at_network()


def _check_members(network: nn.Module, members: int, state: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` where the weights of an ensemble are those of another number of members.

    Args:
        network: the converted network.
        members: how many it has.
        state: the weights of the ensemble, by name.
    """
    for name, twin in twins(network):
        given = _members_of(twin, f"network.{name}." if name else "network.", state)
        if given is not None and given != members:
            raise ValueError(
                f"the weights are those of {given} members, and this ensemble has {members}; make "
                f"it with members={given}, then select(...) from it"
            )


def _members_of(twin: nn.Module, prefix: str, state: Mapping[str, Any]) -> int | None:
    """Return for how many members a state dictionary has weights for ``twin``, if it tells."""
    if isinstance(twin, Independent):
        start = prefix + "copies."
        numbers = {key[len(start) :].partition(".")[0] for key in state if key.startswith(start)}
        return len(numbers) or None
    for each_name, each in twin.named_modules(prefix=prefix.rstrip(".")):
        for name in each.own if isinstance(each, Twin) else ():
            value = state.get(f"{each_name}.{name}")
            if isinstance(value, Tensor) and value.dim():
                return len(value)
    return None
