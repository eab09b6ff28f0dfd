"""The forward pass of an ensemble: rows of all members through one network."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from batchensemble.core.arguments import one_of, whole_number
from batchensemble.core.inputs import Inputs, Nested
from batchensemble.core.outputs import logits_of
from batchensemble.core.pytree import Path, map_leaves
from batchensemble.ensembles.conversion.axes import learn_axes
from batchensemble.ensembles.conversion.branch_inputs import (
    BranchError,
    repeat_outputs,
    without_branch_inputs,
)
from batchensemble.ensembles.conversion.branching import Branch
from batchensemble.ensembles.conversion.convert import (
    extract,
    takes_any_leading_axes,
    writes_into_input,
)
from batchensemble.ensembles.conversion.tiling import Arguments, Tiling
from batchensemble.ensembles.first_call.detection import detect_run_mode
from batchensemble.ensembles.runner import RUN_MODES, MemberRunner, RunMode, RunModeDetection
from batchensemble.layers import Independent, OneByOne, Twin, Vmapped
from batchensemble.layers.base.rows import RUNNING, AmbiguousAxisError, NotPerExampleError, running
from batchensemble.layers.base.written_inputs import lending

ALONE = "Expected more than 1 value per channel when training"  # torch's, of batch norm


class ForwardError(RuntimeError):
    """A converted network failed on the rows of all members."""


class ForwardPass(MemberRunner):
    """A module that runs all members of a converted network in one call.

    Args:
        network: the converted network, from member-major rows to member-major rows.
        members: number of members (M).
        batch_axis: axis of the batch in the inputs, 0 or 1.
        untiled: names of arguments, or keys within them, that are not per example though an axis
            may be as long as the batch.
        branch: the shared trunk that runs once per batch, if there is one.
        run: ``"together"``: one forward pass for all members; ``"one_by_one"``: one for each;
            ``None``: together, unless the first call detects that this is wrong.
    """

    def __init__(
        self,
        network: nn.Module,
        members: int,
        *,
        batch_axis: int,
        untiled: Collection[str],
        branch: Branch | None,
        run: RunMode | None,
    ) -> None:
        super().__init__()
        self.network = network
        self.members = whole_number("members", members)
        self.batch_axis = batch_axis
        self.untiled = (untiled,) if isinstance(untiled, str) else tuple(untiled)
        self._branch = branch
        self.forget_axes()
        if branch is not None:
            branch.install(network)
        self.run = run if run is None else one_of("run", run, RUN_MODES)  # type: ignore[assignment]
        self._look_at_network()
        alone = self.members == 1 or self.is_plain
        self.detection = RunModeDetection(dict.fromkeys((False, True), alone or run is not None))

    def forward(self, *args: Any, per_member: bool = False, **kwargs: Any) -> Any:
        """Run all members.

        Args:
            args: what the network takes, or one :class:`~batchensemble.core.inputs.Nested` that
                holds it. Every tensor with the axis of the batch, wherever it is nested, is seen by
                every member; with ``per_member=True`` it is ``[batch, members, ...]``, a different
                example for each member.
            per_member: whether each member has examples of its own.
            kwargs: what the network takes, by name.

        Returns:
            What the network returns; each tensor of it that is per example as
            ``[batch, members, ...]``.

        The first call runs some examples both ways, see
        :mod:`batchensemble.ensembles.first_call.detection`.

        Raises:
            ForwardError: the network does not take the rows; see :meth:`verify`.
            ValueError: there is no tensor with an axis of the batch, ``per_member=True`` and there
                is no axis of members, or an input of a layer is not per example.
        """
        if len(args) == 1 and isinstance(args[0], Nested):  # as training and prediction call it
            args, kwargs = args[0].arguments(kwargs)
            return logits_of(ForwardPass.forward(self, *args, per_member=per_member, **kwargs))
        if len(args) == 1 and not kwargs and self._is_chain_for(args[0]):
            return self._stacked(args[0], per_member).transpose(0, 1)
        arguments = Arguments.of(self.plain_network(), args, kwargs)
        tiling = Tiling.of(arguments, self.members, self.batch_axis, per_member, self.untiled)
        self.detect_run_mode(tiling, arguments)
        if self.one_by_one or isinstance(self.network, Independent):
            return self.gathered(self._each(tiling, arguments), tiling, arguments)
        return self.together(tiling, arguments)

    def detect_run_mode(self, tiling: Tiling, arguments: Arguments) -> None:
        """Detect the run mode, unless it is given or already known."""
        if self.detection.done[self.network.training]:
            return
        if torch.compiler.is_compiling():
            from batchensemble.ensembles.first_call.compiled import detect_between_graphs

            detect_between_graphs(self, tiling, arguments)
        else:
            detect_run_mode(self, tiling, arguments)

    @property
    def branched(self) -> bool:
        """Whether the network has a trunk that runs once for all members."""
        return self._branch is not None

    def forget_axes(self) -> None:
        """Forget the row axes that were found."""
        self._output_axes: dict[Path, int] = {}
        self._branch_seen = False  # in a forward pass that was watched
        self._trunk_outputs: set[Path] = set()

    def run_as(self, run: RunMode) -> None:
        """Set the run mode: ``"together"`` or ``"one_by_one"``."""
        self.run = run
        self.detection.done = {False: True, True: True}
        self._look_at_network()

    def run_member(self, index: int, arguments: Arguments) -> Any:
        """Run one member on its own arguments and return its outputs."""
        if isinstance(self.network, Independent):
            return arguments.call(self.network.copies[index])
        # The trunk sees the same batch again, which must not update its statistics again.
        branch = self._branch if index > 0 and self.network.training else None
        kept = nullcontext() if branch is None else branch.statistics_kept(self.network)
        with running(member=index), kept:
            return arguments.call(self.network)

    def together(self, tiling: Tiling, arguments: Arguments) -> Any:
        """Run all members in one forward pass; return outputs as ``[batch, members, ...]``."""
        branch = None if tiling.per_member else self._branch
        if branch is not None:
            return self._branched(branch, tiling, arguments)
        try:
            return self._outputs(tiling, arguments)
        except AmbiguousAxisError:
            self.learn_axes(tiling, arguments)
            return self._outputs(tiling, arguments)

    def _each(self, tiling: Tiling, arguments: Arguments) -> list[Any]:
        """Return the outputs of each member, run one after the other on its own rows."""
        outputs = []
        with lending(self) as lent:
            if not lent.copies_any:
                lent.lend(arguments.values)
            for index in range(self.members):
                own = tiling.member_arguments(arguments, index)
                if lent.copies_any:
                    own = own.replaced(lent.lend(own.values))
                outputs.append(self.run_member(index, own))
        return outputs

    def _outputs(self, tiling: Tiling, arguments: Arguments) -> Any:
        """Return the outputs, each as ``[batch, members, ...]``."""
        if isinstance(self.network, Vmapped):
            axes = arguments.replaced(tiling.member_axes(arguments))
            outputs = self.network.run_each(*arguments.split(), axes.split())
            return self.gathered(outputs, tiling, arguments)
        with lending(self) as lent:
            rows = tiling.tile(arguments)
            rows = rows.replaced(lent.lend(rows.values, arguments.values))
            outputs = self._run(tiling, arguments, lambda: rows.call(self.network))
        return tiling.take_apart(outputs, self._output_axes)

    def _branched(self, branch: Branch, tiling: Tiling, arguments: Arguments) -> Any:
        """Return the outputs of a network with a trunk that runs once."""
        watch = not self._branch_seen and not torch.compiler.is_compiling()
        if watch:
            # Before anything runs in training mode, whose effects could not be undone.
            with contextlib.suppress(Exception):  # the network may take only one batch size
                self.learn_axes(tiling, arguments)

        with lending(self) as lent:
            # Copies of the containers, since the network may remove items.
            values = map_leaves(lambda _, leaf: leaf, lent.lend(arguments.values))
            own = arguments.replaced(values)

            def run() -> Any:
                return branch.run(self.network, tiling, own, watch=watch)

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
            return arguments.copied().call(self.member(0).eval())

    def gathered(self, outputs: list[Any], tiling: Tiling, arguments: Arguments) -> Any:
        """Stack the outputs of the members; a second run would update statistics twice."""
        try:
            return tiling.gather(outputs, self._output_axes)
        except AmbiguousAxisError:
            with contextlib.suppress(Exception):  # the network may take only one batch size
                self.learn_axes(tiling, arguments)
            self._output_axes = {**tiling.default_axes(outputs[0]), **self._output_axes}
            return tiling.gather(outputs, self._output_axes)

    def learn_axes(self, tiling: Tiling, arguments: Arguments) -> dict[Path, int]:
        """Find the row axis of each output where its size is ambiguous."""
        self._output_axes = learn_axes(self.network, self.member(0), tiling, arguments)
        return self._output_axes

    def _run(
        self, tiling: Tiling, arguments: Arguments, run: Callable[[], Any], hint: str = ""
    ) -> Any:
        """Run the network on the rows of all members, and explain its errors."""
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
            advice = (
                "If member(0) takes these inputs, verify(...) with two or three examples tells "
                "which module does not"
            )
            if lines[0].startswith(ALONE):
                advice = "Batch norm needs two rows in training: give two examples, or call eval()"
            raise ForwardError(
                f"{lines[0]} (the network ran on {self.members} members x {tiling.batch} examples, "
                f"{tiling.rows} rows; {tiling.describe(arguments)}. {advice}{hint})"
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
                return self.network(x.clone() if self._writes_at_once else x)
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
        return torch.cat([targets] * self.members, -1)  # one operation: this runs in each step

    def by_member(self, values: Tensor) -> Tensor:
        """Return values of :meth:`rows`, ``[members * batch]``, as ``[batch, members]``."""
        return values.view(self.members, -1).t()

    def member(self, index: int) -> nn.Module:
        """Return member ``index`` as a plain network, its own weights merged in.

        It has the class of the user's network and the same parameter names, and its outputs are
        that member's.

        Raises:
            IndexError: there is no such member.
        """
        return without_branch_inputs(extract(self.network, self._check_index(index)))

    @property
    def is_chain(self) -> bool:
        """Whether the network is a chain of torch's layers and nothing else."""
        return self._any_leading_axes

    @property
    def is_plain(self) -> bool:
        """Whether conversion is always correct: for a chain of torch's layers, and for copies."""
        return self._any_leading_axes or isinstance(self.network, (Independent, Vmapped))

    def _look_at_network(self) -> None:
        rows_only = bool(self.batch_axis) or self._branch is not None or self.one_by_one
        self._any_leading_axes = not rows_only and takes_any_leading_axes(self.network)
        self._writes_at_once = self._any_leading_axes and writes_into_input(self.network)
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
        x = x.transpose(0, 1) if per_member else x.expand(self.members, *x.shape)
        return self.network(x.clone() if self._writes_at_once else x)

    def plain_network(self) -> nn.Module:
        """Return the module whose ``forward`` names the arguments."""
        network = self.network
        while isinstance(network, OneByOne):
            network = network.module
        if isinstance(network, Independent):
            return network.copies[0]
        return network.shell if isinstance(network, Twin) else network

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
