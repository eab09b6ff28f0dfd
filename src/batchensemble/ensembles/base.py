"""The base class of all ensembles."""

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
from batchensemble.ensembles.choice import Choice
from batchensemble.ensembles.conversion.branching import Branch
from batchensemble.ensembles.conversion.convert import twins
from batchensemble.ensembles.conversion.parameter_groups import parameter_groups
from batchensemble.ensembles.conversion.report import Report, count_parameters, inspect_network
from batchensemble.ensembles.forward import ForwardError, ForwardPass
from batchensemble.ensembles.freezing import Freezable
from batchensemble.ensembles.publishable import Publishable
from batchensemble.ensembles.runner import RunMode, RunModeDetection
from batchensemble.ensembles.task_inference import InferredTasks, infer_task
from batchensemble.ensembles.tasks import TaskRecord, kept_tasks
from batchensemble.ensembles.verification import Verification, verify
from batchensemble.layers import Independent, OneByOne, Twin

if TYPE_CHECKING:
    from batchensemble.ensembles.base_weights import BaseWeights
    from batchensemble.losses import EnsembleLoss

__all__ = ["Ensemble", "ForwardError"]


class Ensemble(ForwardPass, Freezable, Calibrated, Publishable):
    """One module that is ``members`` models: ``[batch, ...]`` to ``[batch, members, ...]``.

    Inside, the members share the batch axis, member-major: row ``m * batch + b`` is example ``b``
    seen by member ``m``. Subclasses build ``network``, which maps such rows to such rows.

    Args:
        network: the converted network.
        members: number of members (M).
        parameters_of_one: number of parameters of one plain network.
        batch_axis: axis of the batch in the inputs: 0 (default), or 1 if the sequence comes first.
        untiled: names of arguments, or keys within them, that are not per example though their
            size may be the batch's.
        branch: the shared trunk that runs once per batch, if there is one.
        run: whether the members run ``"together"`` or ``"one_by_one"``; by default the first call
            detects which is correct.

    Attributes:
        feature_names: names of the columns of the training table, in the order of the network's
            inputs; other tables are read by these names. ``None``: columns go by position.
        encoding: what is done with these columns before the network sees them, as JSON can hold it,
            see :class:`~batchensemble.data.tables.encoding.encoding.TableEncoding`; ``None``:
            they are numbers, passed on as they are.
        target_names: names of the target columns, if there are several.
        feature_scaling: mean and standard deviation of each of these columns, if ``batchensemble
            train`` standardised them: columns of tables and files are standardised by these, arrays
            are passed to the network unchanged.
        class_names: names of the classes in the order of their indices, if the training data named
            them.
        choice: which members of a larger ensemble these are, if
            :func:`batchensemble.choose_members` chose them.
        tasks: the tasks that members learnt by :func:`batchensemble.learn`: the first by member 0,
            and so on.
        base: checksums of the weights it was adapted from, if :func:`batchensemble.adapt` made it.
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
        self.options: dict[str, Any] = {}  # arguments to build it again, as JSON can hold them
        self.loss: EnsembleLoss | None = None  # that it was trained with, which defines its outputs
        self.trained_on: str | None = None  # fingerprint of the training data, if they have one
        self.feature_names: tuple[str, ...] | None = None  # of the columns that it was trained on
        self.feature_scaling: Scaling | None = None  # as versions without an encoding stored it
        self.encoding: dict[str, Any] | None = None  # of columns of tables, as JSON can hold it
        self.target_names: tuple[str, ...] | None = None  # where they are several columns
        self.class_names: tuple[str, ...] = ()  # in the order of their numbers
        self.choice: Choice | None = None
        self.tasks: tuple[TaskRecord, ...] = ()
        self.base: BaseWeights | None = None
        self.training = network.training

    def member(self, index: int) -> nn.Module:
        """Return member ``index`` as a plain network, its own weights merged in.

        It has the class of the user's network and the same parameter names, and its outputs are
        that member's, calibrated if :func:`batchensemble.calibrate` scales the members' outputs.

        Raises:
            IndexError: there is no such member.
        """
        return self._calibrate_member(super().member(index), self._check_index(index))

    def select(self, indices: Sequence[int]) -> Ensemble:
        """Return a smaller ensemble of the same kind, made of copies of these members.

        Raises:
            IndexError: there is no such member.
            ValueError: ``indices`` is empty, or the members cannot be separated.
        """
        indices = [self._check_index(index) for index in indices]
        if not indices:
            raise ValueError("indices must name at least one member, got none")
        result = copy.deepcopy(self)
        for _, twin in twins(result.network):
            twin.keep(indices)  # type: ignore[operator]
        result._keep_calibration(indices)
        result._set_members(len(indices))
        result.choice = None  # which was of the members before
        result.tasks = kept_tasks(self.tasks, indices)
        return result

    def verify(self, *args: Any, **kwargs: Any) -> Verification:
        """Check on real inputs that the ensemble agrees with its members as plain networks.

        Call it once after converting an unusual network. It runs in evaluation mode, on all
        examples and on one less, to find code that depends on the size of the batch.

        Args:
            args: positional arguments of the network; a few examples are enough.
            kwargs: keyword arguments of the network.

        Returns:
            The numbers of members and examples that were compared, and the largest difference.

        Raises:
            ValueError: outputs differ; the message names the first module where they do.
        """
        if len(args) == 1 and isinstance(args[0], Nested):
            args, kwargs = args[0].arguments(kwargs)
        # A calibrator is the same for both, and steps of an isotonic one amplify rounding.
        return verify(self if self.calibrator is None else self.uncalibrated(), args, kwargs)

    def infer_task(self, x: Any, together: int = 16) -> InferredTasks:
        """Return which task groups of unlabelled examples are of, by the members' uncertainty.

        The member that learnt the task of a group is the most certain of it: the one whose mean
        entropy over the group is the lowest. That needs tasks with different inputs, which
        :func:`batchensemble.learn` tests, best on validation data: where the members are as certain
        of each other's examples, it is refused.

        Args:
            x: examples ``[examples, ...]`` as an array or tensor, or a tuple or dictionary of
                several, whose rows ``0`` to ``together - 1`` are of one task, and so on.
            together: number of examples of a group; the last group may have fewer.

        Raises:
            TypeError: ``x`` does not hold numbers.
            ValueError: fewer than 2 tasks were learnt, some share their inputs or are not told
                apart for another reason, the outputs are no logits of classes, or ``together`` is
                below 2.

        Example:
            >>> import torch
            >>> from batchensemble import BatchEnsemble, learn
            >>> x = torch.eye(2).repeat(64, 1)
            >>> y, blank = torch.arange(128) % 2, torch.zeros(128, 2)
            >>> tasks = [(torch.cat([x, blank], 1), y), (torch.cat([blank, x], 1), y)]
            >>> model = BatchEnsemble(nn.Sequential(nn.Linear(4, 2)), members=2, independent=["0"])
            >>> learned = learn(model, tasks, epochs=20, lr=0.1)
            >>> model.infer_task(tasks[1][0][:32], together=16).tasks
            array([1, 1])
        """
        return infer_task(self, self.tasks, x, together)

    @property
    def own_examples(self) -> bool:
        """Whether in training each member sees its own examples, or its own order of them."""
        return False

    @property
    def calls_per_forward(self) -> int:
        """Number of calls of a network in one forward pass: 1, or M if members run one by one."""
        return self.members if self.one_by_one or isinstance(self.network, Independent) else 1

    def draw(self, order: Int[Tensor, "*steps batch"]) -> Int[Tensor, "*steps members rows"]:
        """Return which example each member sees in each row of each training batch.

        Called only if :attr:`own_examples`; uses torch's global generator.

        Args:
            order: indices of the shuffled examples of each batch.
        """
        return order.unsqueeze(-2).expand(*order.shape[:-1], self.members, order.shape[-1])

    def report(self) -> Report:
        """Return one row for each module with weights: how they are shared, and their number."""
        report = inspect_network(self.network, self.members, self.parameters_of_one)
        if self.one_by_one:
            report = replace(report, calls_per_forward=self.calls_per_forward)
        return report if self._branch is None else self._branch.describe(report)

    def run_as(self, run: RunMode) -> None:
        """Set the run mode, ``"together"`` or ``"one_by_one"``; it is saved with the model."""
        super().run_as(run)
        self.options["run"] = run

    def parameter_counts(self) -> dict[str, int | float]:
        """Return the number of parameters, that of each member, and the ratio to one network."""
        total = count_parameters(self)
        return {
            "parameters": total,
            "parameters_per_member": sum(row.per_member for row in self.report()),
            "parameter_ratio": total / self.parameters_of_one if self.parameters_of_one else 1.0,
        }

    def parameter_groups(
        self, *, lr: float, weight_decay: float = 0.0, fast_lr_multiplier: float = 1.0
    ) -> list[dict[str, Any]]:
        """Return parameter groups for an optimiser.

        Weight decay applies to ``"shared"``, the weights of layers, and not to ``"fast"``,
        ``"bias"`` and ``"norm"``: fast weights decayed to 0 would cancel the shared weight.

        Args:
            lr: learning rate, above 0.
            weight_decay: weight decay of the weights of layers, shared or independent; default 0.
            fast_lr_multiplier: factor on the learning rate of the fast weights; by default 1.

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
            ValueError: the weights belong to another number of members.
        """
        _check_members(self.network, self.members, state_dict)
        return super().load_state_dict(state_dict, *args, **kwargs)

    def _replicate_for_data_parallel(self) -> NoReturn:
        raise RuntimeError(
            "nn.DataParallel loses the members' own weights when it copies modules; use "
            "torch.nn.parallel.DistributedDataParallel, with one process per device"
        )

    def _set_members(self, members: int) -> None:
        self.members = members
        if members == 1:  # which has no others whose rows could be mixed with its own
            self.detection = RunModeDetection(dict.fromkeys((False, True), True))
        for module in self.network.modules():
            if isinstance(module, OneByOne):
                module.members = members
        self._look_at_network()


def _check_members(network: nn.Module, members: int, state: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` if a state dictionary belongs to another number of members.

    Args:
        network: the converted network.
        members: its number of members.
        state: the state dictionary of the ensemble.
    """
    for name, twin in twins(network):
        given = _members_of(twin, f"network.{name}." if name else "network.", state)
        if given is not None and given != members:
            raise ValueError(
                f"the weights are those of {given} members, and this ensemble has {members}; build "
                f"it with members={given}, then select(...) from it"
            )


def _members_of(twin: nn.Module, prefix: str, state: Mapping[str, Any]) -> int | None:
    """Return the number of members in the weights for ``twin``, ``None`` if unknown."""
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
