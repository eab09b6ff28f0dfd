"""Compare the two run modes on a few examples: all members together, and one after the other."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from batchensemble.core.pytree import leaves, map_leaves
from batchensemble.ensembles.conversion.axes import unchanging
from batchensemble.ensembles.conversion.convert import twins
from batchensemble.ensembles.conversion.tiling import Arguments, Tiling
from batchensemble.ensembles.first_call.isolation import (
    distinct_members,
    network_random_states,
    perturbed_shared_weights,
    preserve_attributes,
    preserve_random_states,
    without_hooks,
)
from batchensemble.ensembles.runner import MemberRunner, RunMode
from batchensemble.ensembles.verification import (
    Divergence,
    difference_of,
    first_divergence,
    tolerance,
)
from batchensemble.layers import Twin
from batchensemble.layers.modes import evaluating, preserve_buffers, training_without_noise

NOT_PER_EXAMPLE = "its input is not per example"
BORROWED = "never called; another module reads its weights"
REPETITIONS = 4  # of a comparison with random numbers, which may agree by chance
MOST_TRIED = 16  # layers that are excluded one by one
LARGE_DIFFERENCE = 0.05  # a difference relative to the largest output that rounding hardly explains


@dataclass(frozen=True)
class Finding:
    """The result of one comparison.

    Attributes:
        run: the run mode that gives each member its own outputs.
        certain: whether the result is conclusive; if not, a later call compares again.
        shared: layers that all members have to share, with the reason.
        divergence: where the outputs of both modes first differ, if that could be located.
        error: first line of the error that the network raised with all members together; empty if
            it raised none.
    """

    run: RunMode
    certain: bool = True
    shared: dict[Twin, str] = field(default_factory=dict)
    divergence: Divergence | None = None
    error: str = ""


class ModeComparison:
    """Both run modes on two or three examples of a call.

    Args:
        model: the ensemble.
        tiling: how the arguments of the call become rows.
        arguments: the arguments of the call.
        training: whether to compare in training mode.
    """

    def __init__(
        self, model: MemberRunner, tiling: Tiling, arguments: Arguments, *, training: bool
    ) -> None:
        self.model, self.tiling, self.arguments = model, tiling, arguments
        self.training = training
        self.error = ""
        self.outputs: Any = None
        self.called: set[nn.Module] = set()

    def find(self) -> Finding:
        """Return the run mode that is correct for the network."""
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            if not self._prepare(stack):
                # The call itself raises the error about its inputs.
                return Finding("together", certain=False)
            stack.enter_context(distinct_members(self.model.network))
            borrowed = dict.fromkeys(self._borrowed(), BORROWED)
            if not self._differs():
                return Finding("together", certain=self._is_conclusive(), shared=borrowed)
            error, same = self.error, dict.fromkeys(self._not_per_example(), NOT_PER_EXAMPLE)
            if same:
                return Finding("together", shared={**borrowed, **same})
            divergence = None
            with suppress(Exception):
                divergence = self._divergence()
            return Finding("one_by_one", shared=borrowed, divergence=divergence, error=error)

    def _prepare(self, stack: ExitStack) -> bool:
        """Choose examples that a member accepts, isolated; return whether there are any."""
        for as_it_is in (False, True):  # a network may need its hooks, or autocast
            for size in self._sizes():
                with ExitStack() as trial:
                    trial.enter_context(self._isolated(as_it_is))
                    self.size = self.tiling.resized_to(size)
                    self.rows = self._examples(size)
                    with suppress(Exception):
                        self.called = _called(self.model.network, lambda: self._alone(0))
                        stack.push(trial.pop_all())
                        return True
        return False

    def _sizes(self) -> Iterator[int]:
        """Yield batch sizes for which the same tensors are per example as in the call."""
        batch = self.tiling.batch
        for size in dict.fromkeys((3, 2, batch) if batch > 2 else (2, batch)):
            part = self.tiling.resized(self.arguments, size)
            if _axes(self.tiling.resized_to(size), part) == _axes(self.tiling, self.arguments):
                yield size

    @contextmanager
    def _isolated(self, as_it_is: bool) -> Iterator[None]:
        network = self.model.network
        with ExitStack() as stack:
            mode = training_without_noise if self.training else evaluating
            stack.enter_context(mode(network))
            stack.enter_context(preserve_random_states(network))
            stack.enter_context(preserve_buffers(network))
            stack.enter_context(preserve_attributes(network))
            if not as_it_is:
                stack.enter_context(without_hooks(network))
                kinds = {each.device.type for each in network.parameters()}
                for kind in kinds or {"cpu"}:
                    stack.enter_context(torch.autocast(kind, enabled=False))
            yield

    def _examples(self, size: int) -> Arguments:
        """Return a few examples; a single one is repeated with scaled values."""
        part = self.tiling.resized(self.arguments, size)
        if self.tiling.batch != 1 or size == 1:
            return part

        def apart(path: Any, leaf: Any) -> Any:
            axis = self.size.axis_of(path, leaf)
            if axis is None or not isinstance(leaf, Tensor) or not leaf.is_floating_point():
                return leaf
            factors = 1 - 0.25 * torch.arange(size, device=leaf.device, dtype=leaf.dtype)
            return leaf * factors.view(*[1] * axis, size, *[1] * (leaf.dim() - axis - 1))

        return part.replaced(map_leaves(apart, part.values))

    def _alone(self, index: int) -> Any:
        return self.model.run_member(index, self._own(index))

    def _own(self, index: int) -> Arguments:
        """Return copies of one member's rows, which the network may write into."""
        return self.size.member_arguments(self.rows, index).copied()

    def _differs(self) -> bool:
        """Return whether the members compute something else together than alone."""
        self.error = ""
        before = network_random_states(self.model.network)
        try:
            difference, bound = self._difference(self.model)
            drew = before != network_random_states(self.model.network)
            for _ in range(REPETITIONS if drew else 0):
                if difference <= bound:
                    difference, bound = self._difference(self.model)
        except Exception as error:  # the network's own, whatever it is
            line = (str(error).splitlines() or [type(error).__name__])[0]
            self.error = line.partition(" (the network ran on ")[0].partition(". ")[0]
            if self.model.branched:  # where it says what to do, or to branch elsewhere
                return False
            return self._runs_one_by_one() and not self._is_random()
        if difference <= bound or self._is_random():
            return False
        if difference > LARGE_DIFFERENCE and self._sensitivity_to_rounding() < LARGE_DIFFERENCE:
            return True
        return self._remains_in_float64(difference, bound)

    def _difference(self, model: MemberRunner) -> tuple[float, float]:
        """Return the difference between the outputs of both modes, and its tolerance."""
        together = model.together(self.size, self.rows)
        self.outputs, each = self._one_by_one(model)
        return difference_of(together, self.outputs, each), tolerance(each[0])

    def _one_by_one(self, model: MemberRunner) -> tuple[Any, list[Any]]:
        """Return the outputs of all members, as ``[batch, members, ...]``, and of each."""
        members = range(model.members)
        each = [model.run_member(index, self._own(index)) for index in members]
        return model.gathered(each, self.size, self.rows), each

    def _runs_one_by_one(self) -> bool:
        """Return whether the network runs with one member after the other."""
        try:
            self.outputs = self._one_by_one(self.model)[0]
        except Exception:
            return False
        return True

    def _is_random(self) -> bool:
        """Return whether one member alone gives different outputs for the same inputs."""
        one, other = self._alone(0), self._alone(0)
        return not difference_of(one, other, [other]) <= tolerance(other)

    def _sensitivity_to_rounding(self) -> float:
        """Return how far the outputs of one member change with the last bits of its inputs."""
        rows = self.rows
        before = self._alone(0)
        try:
            self.rows = rows.replaced(map_leaves(_nudged, rows.values))
            after = self._alone(0)
        finally:
            self.rows = rows
        return difference_of(after, before, [before])

    def _remains_in_float64(self, difference: float, bound: float) -> bool:
        """Return whether a difference remains in float64, where rounding is far smaller."""
        rows = self.rows
        try:
            self.rows = rows.replaced(map_leaves(_doubled, rows.values))
            found, _ = self._difference(copy.deepcopy(self.model).double())
        except Exception:  # it does not run in this type
            return difference > 10 * bound
        finally:
            self.rows = rows
        return found > 0.1 * difference

    def _is_conclusive(self) -> bool:
        """Return whether outputs differ between members and examples, so that mixing would show."""
        if self.tiling.batch < 2:
            return False
        for _, leaf in leaves(self.outputs):
            if isinstance(leaf, Tensor) and leaf.dim() > 1 and leaf.is_floating_point():
                bound = tolerance(leaf) * leaf.abs().nan_to_num(posinf=0.0).max()
                apart = [(leaf - leaf.roll(1, axis)).abs().nan_to_num() for axis in (0, 1)]
                if all((each > bound).any() for each in apart):
                    return True
        return False

    def _borrowed(self) -> list[Twin]:
        """Return layers that are never called and whose weights another module reads.

        It reads the shared weights, so each member has to have these.
        """
        idle = {twin for _, twin in twins(self.model.network) if twin not in self.called}
        candidates = self.model.shareable_layers(idle)
        if not candidates or self._is_random():
            return []
        before, found = self._alone(0), []
        for twin in candidates:
            with perturbed_shared_weights(twin):
                after = self._alone(0)
            if difference_of(after, before, [before]):
                found.append(twin)
        return found

    def _not_per_example(self) -> list[Twin]:
        """Return layers whose input is the same for any batch, if sharing them makes both agree."""
        never, once = unchanging(self.model.network, self.tiling, self.arguments)
        for chosen in (never, never | once):
            candidates = self.model.shareable_layers(chosen)
            for twin in candidates:
                twin.run_for_all(NOT_PER_EXAMPLE)
            right = bool(candidates) and not self._differs()
            # Mostly, one row for all examples is seen once by each member, as it should be.
            for twin in once.intersection(candidates) if right and len(once) <= MOST_TRIED else ():
                twin.run_for_each()
                if self._differs():
                    twin.run_for_all(NOT_PER_EXAMPLE)
            needed = [twin for twin in candidates if twin.for_all]
            for twin in needed:
                twin.run_for_each()
            if right:
                return needed
        return []

    def _divergence(self) -> Divergence | None:
        return first_divergence(
            self.model.network,
            lambda: self.model.together(self.size, self.rows),
            lambda: self._alone(0),
            self.model.members,
            0,
        )


def _called(network: nn.Module, run: Callable[[], Any]) -> set[nn.Module]:
    """Return the modules that a run calls, directly or through a bound ``forward``."""
    called: set[nn.Module] = set()

    def note(module: nn.Module, args: Any) -> None:
        called.add(module)

    def noting(twin: Twin) -> Callable[..., Any]:
        run_member = twin.run_member

        def run_noted(*args: Any, **kwargs: Any) -> Any:
            called.add(twin)
            return run_member(*args, **kwargs)

        return run_noted

    modules = list(network.modules())
    noted = [module for module in modules if isinstance(module, Twin)]
    handles = [module.register_forward_pre_hook(note) for module in modules]
    try:
        for twin in noted:
            twin.run_member = noting(twin)  # type: ignore[method-assign]
        run()
    finally:
        for twin in noted:
            del twin.run_member
        for handle in handles:
            handle.remove()
    return called


def _doubled(_: Any, leaf: Any) -> Any:
    floating = isinstance(leaf, Tensor) and leaf.is_floating_point()
    return leaf.double() if floating else leaf


def _nudged(_: Any, leaf: Any) -> Any:
    floating = isinstance(leaf, Tensor) and leaf.is_floating_point()
    return leaf * (1 + 2 * torch.finfo(leaf.dtype).eps) if floating else leaf


def _axes(tiling: Tiling, arguments: Arguments) -> list[int | None]:
    return [tiling.axis_of(path, leaf) for path, leaf in leaves(arguments.values)]
