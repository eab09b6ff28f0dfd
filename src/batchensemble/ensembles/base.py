"""What every ensemble is: one network, many members."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from jaxtyping import Int
from torch import Tensor, nn

from batchensemble.axes import learn_axes
from batchensemble.branching import Branch
from batchensemble.checks import positive_number, whole_number
from batchensemble.convert import extract, takes_any_leading_axes, twins
from batchensemble.ensembles.calibrating import Calibrating
from batchensemble.ensembles.freezing import Freezing
from batchensemble.ensembles.state import check_members
from batchensemble.entrances import BranchError, repeat_outputs, without_entrances
from batchensemble.inputs import Inputs, Nested
from batchensemble.inspection import Report, count_parameters, inspect_network
from batchensemble.layers import Independent, OneByOne, Twin, Vmapped
from batchensemble.layers.rows import RUNNING, AmbiguousAxisError, NotPerExampleError
from batchensemble.nesting import Path
from batchensemble.parameter_groups import parameter_groups
from batchensemble.tiling import Arguments, Tiling
from batchensemble.verification import Verification, verify

if TYPE_CHECKING:
    from batchensemble.losses import EnsembleLoss


class ForwardError(RuntimeError):
    """A converted network did not take the rows of all members."""


class Ensemble(Freezing, Calibrating):
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
    ) -> None:
        super().__init__()
        self.network = network
        self.members = whole_number("members", members)
        self.parameters_of_one = parameters_of_one
        self.options: dict[str, Any] = {}  # that it is made again with, as JSON can hold them
        self.loss: EnsembleLoss | None = None  # that it was trained with: what its outputs are
        self.batch_axis = batch_axis
        self.untiled = (untiled,) if isinstance(untiled, str) else tuple(untiled)
        self._output_axes: dict[Path, int] = {}
        self._branch = branch
        self._branch_seen = False  # in a forward pass that was watched
        self._trunk_outputs: set[Path] = set()
        if branch is not None:
            branch.install(network)
        self._look_at_network()
        self.training = network.training

    def forward(self, *args: Any, per_member: bool = False, **kwargs: Any) -> Any:
        """Run all members.

        Args:
            args: what the network takes, or one :class:`~batchensemble.inputs.Nested` that holds
                it. Every tensor with the axis of the batch, wherever it is nested, is seen by every
                member; with ``per_member=True`` it is ``[batch, members, ...]``, a different
                example for each member.
            per_member: whether each member has examples of its own.
            kwargs: what the network takes, by name.

        Returns:
            What the network returns; each tensor of it that is per example as
            ``[batch, members, ...]``.

        Raises:
            ForwardError: the network does not take the rows; see :meth:`verify`.
            ValueError: there is no tensor with an axis of the batch, ``per_member=True`` and there
                is no axis of members, or an input of a layer is not per example.
        """
        if len(args) == 1 and isinstance(args[0], Nested):
            args, kwargs = args[0].arguments(kwargs)
        if len(args) == 1 and not kwargs and self._is_chain_for(args[0]):
            return self._stacked(args[0], per_member).transpose(0, 1)
        arguments = Arguments.of(self._plain(), args, kwargs)
        tiling = Tiling.of(arguments, self.members, self.batch_axis, per_member, self.untiled)
        branch = None if tiling.per_member else self._branch
        if branch is not None:
            return self._branched(branch, tiling, arguments)
        try:
            return self._outputs(tiling, arguments)
        except AmbiguousAxisError:
            self.learn_axes(tiling, arguments)
            return self._outputs(tiling, arguments)

    def _outputs(self, tiling: Tiling, arguments: Arguments) -> Any:
        """Return the outputs, each as ``[batch, members, ...]``."""
        if isinstance(self.network, Independent):
            own = [tiling.of_member(arguments, index) for index in range(self.members)]
            pairs = zip(self.network.copies, own, strict=True)
            outputs = [each.call(network) for network, each in pairs]
            return self._gathered(outputs, tiling, arguments)
        if isinstance(self.network, Vmapped):
            axes = arguments.replaced(tiling.member_axes(arguments))
            outputs = self.network.of_each(*arguments.split(), axes.split())
            return self._gathered(outputs, tiling, arguments)
        outputs = self._run(tiling, arguments, lambda: tiling.tile(arguments).call(self.network))
        return tiling.take_apart(outputs, self._output_axes)

    def _branched(self, branch: Branch, tiling: Tiling, arguments: Arguments) -> Any:
        """Return the outputs where what is before the branch runs once."""
        watch = not self._branch_seen and not torch.compiler.is_compiling()
        if watch:
            # Before anything has run in training mode, which could not be taken back.
            with contextlib.suppress(Exception):  # a network for one size of batch tells nothing
                self.learn_axes(tiling, arguments)

        def run() -> Any:
            return branch.run(self.network, tiling, arguments, watch=watch)

        outputs = self._run(tiling, arguments, run, branch.hint(tiling))
        self._branch_seen = True
        outputs = repeat_outputs(
            branch.name,
            outputs,
            tiling,
            self._output_axes,
            self._trunk_outputs,
            lambda: self._alone(arguments),
        )
        return tiling.take_apart(outputs, self._output_axes)

    def _alone(self, arguments: Arguments) -> Any:
        """Return the outputs of the first member."""
        with torch.no_grad(), torch.random.fork_rng([]):
            return arguments.call(self.member(0).eval())

    def _gathered(self, outputs: list[Any], tiling: Tiling, arguments: Arguments) -> Any:
        """Put what the members return together; statistics would count a second run twice."""
        try:
            return tiling.gather(outputs, self._output_axes)
        except AmbiguousAxisError:
            return tiling.gather(outputs, self.learn_axes(tiling, arguments))

    def learn_axes(self, tiling: Tiling, arguments: Arguments) -> dict[Path, int]:
        """Learn on which axes the rows are, where sizes alone do not tell."""
        self._output_axes = learn_axes(self.network, self.member(0), tiling, arguments)
        return self._output_axes

    def _run(
        self, tiling: Tiling, arguments: Arguments, run: Callable[[], Any], hint: str = ""
    ) -> Any:
        """Run the network on the rows of all members."""
        before, RUNNING.rows = RUNNING.rows, tiling.rows
        hint = f". {hint}" if hint else ""
        try:
            return run()
        except (AmbiguousAxisError, BranchError):
            raise
        except NotPerExampleError as error:
            error.args = (f"{error} (inputs {tiling.describe(arguments)}{hint})",)
            raise
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            lines = str(error).splitlines() or [type(error).__name__]
            raise ForwardError(
                f"{lines[0]} (the network ran on {self.members} members x {tiling.batch} examples, "
                f"{tiling.rows} rows; {tiling.describe(arguments)}. If member(0) takes these "
                f"inputs, verify(...) with two or three examples tells which module does not{hint})"
            ) from error
        finally:
            RUNNING.rows = before

    def rows(self, x: Inputs, *, per_member: bool = False) -> Tensor:
        """Run all members and return ``[members * batch, ...]``, in the order they lie in memory.

        That order is the method's own, and :meth:`target_rows` knows it; a loss that takes rows
        saves the views that :meth:`forward` needs to put the batch first.
        """
        if isinstance(x, Tensor) and self._is_chain_for(x):
            if self.members == 1 and not per_member:
                return self.network(x)
            return self._stacked(x, per_member).flatten(0, 1)
        return self.forward(x, per_member=per_member).transpose(0, 1).flatten(0, 1)

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

        It is of the user's own class, with the same names, and computes what the ensemble computes
        for that member.

        Raises:
            IndexError: there is no such member.
        """
        return without_entrances(extract(self.network, self._check_index(index)))

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
        return verify(self, args, kwargs)

    @property
    def own_examples(self) -> bool:
        """Whether training gives each member examples, or an order of them, of its own."""
        return False

    @property
    def is_plain(self) -> bool:
        """Whether conversion can hide nothing: a chain of torch's layers, or copies."""
        return self._any_leading_axes or isinstance(self.network, (Independent, Vmapped))

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

    def report(self) -> Report:
        """Return a row for each module that holds weights: how it is shared, and what it costs."""
        report = inspect_network(self.network, self.members, self.parameters_of_one)
        return report if self._branch is None else self._branch.describe(report)

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
        check_members(self.network, self.members, state_dict)
        return super().load_state_dict(state_dict, *args, **kwargs)

    def _replicate_for_data_parallel(self) -> NoReturn:
        raise RuntimeError(
            "nn.DataParallel copies modules in a way that loses what the members own; use "
            "torch.nn.parallel.DistributedDataParallel, with one process a device"
        )

    def _look_at_network(self) -> None:
        rows_only = bool(self.batch_axis) or self._branch is not None
        self._any_leading_axes = not rows_only and takes_any_leading_axes(self.network)
        modules = self.network.modules() if self._any_leading_axes else ()
        self._hooks = [
            hooks
            for module in modules
            for hooks in (module._forward_hooks, module._forward_pre_hooks)
        ]

    def _is_chain_for(self, x: Any) -> bool:
        """Tell whether the network takes ``[members, batch, ...]``: a user's hooks want rows."""
        return (
            self._any_leading_axes
            and isinstance(x, Tensor)
            and x.dim() > 1
            and not any(self._hooks)
        )

    def _stacked(self, x: Tensor, per_member: bool) -> Tensor:
        """Return the outputs of a plain chain of layers as ``[members, batch, ...]``."""
        if per_member:
            self._check_member_axis(x)
            return self.network(x.transpose(0, 1))
        return self.network(x.expand(self.members, *x.shape))

    def _plain(self) -> nn.Module:
        """Return the module whose ``forward`` names the arguments."""
        network = self.network
        while isinstance(network, OneByOne):
            network = network.module
        if isinstance(network, Independent):
            return network.copies[0]
        return network.shell if isinstance(network, Twin) else network

    def _set_members(self, members: int) -> None:
        self.members = members
        for module in self.network.modules():
            if isinstance(module, OneByOne):
                module.members = members
        self._look_at_network()

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
