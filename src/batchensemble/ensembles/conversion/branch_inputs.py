"""Branch inputs: repeat the rows of the trunk for all members within a branched network.

Without a branch the inputs of the network are repeated, see
:mod:`batchensemble.ensembles.conversion.tiling`. With one, forward pre-hooks repeat the inputs of
each module from the branch on, and outputs that come from the trunk are repeated at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from batchensemble.core.pytree import Path, leaves, map_leaves
from batchensemble.ensembles.conversion.tiling import Tiling, choose_packed
from batchensemble.layers.base.rows import RUNNING, repeat
from batchensemble.layers.base.written_inputs import shares_memory

RESHAPED = (
    "reshaped by the size of the batch as it was before the branch; let the network read that size "
    "from what it reshapes"
)


class BranchError(ValueError):
    """A network does not run its modules in the order that its branch needs."""


@dataclass(eq=False)
class InputTensor:
    """One tensor among the inputs of a module, and the axis of its rows.

    Attributes:
        batch_axis: the axis to try first.
        learned_axis: see :func:`batchensemble.ensembles.conversion.axes.learn_axes`.
        shapes: the shapes it had when a member ran alone.
    """

    batch_axis: int = 0
    learned_axis: int | str | None = None
    shapes: set[tuple[int, ...]] = field(default_factory=set)

    def expects(self, x: Tensor, axis: int) -> bool:
        """Return whether a member alone gets such a tensor, of any size along one axis."""
        if not isinstance(self.learned_axis, int):
            return True
        rest = (*x.shape[:axis], *x.shape[axis + 1 :])
        return any((*each[:axis], *each[axis + 1 :]) == rest for each in self.shapes)


@dataclass
class BranchedPass:
    """One forward pass of a branched network: ``batch`` rows until the branch runs.

    Attributes:
        name: name of the branch module.
        members: number of members (M).
        batch: number of examples.
        axis: axis of the batch, unless another one was learned.
        checked: whether this pass is checked, as the first one is.
        opened: whether the branch module has run.
        repeats: in a checked pass, what was repeated: the name of the module, the tensor, the rows
            of all members, and their version counter.
    """

    name: str
    members: int
    batch: int
    axis: int
    checked: bool = False
    opened: bool = False
    repeats: list[tuple[str, Tensor, Tensor, int]] = field(default_factory=list)

    def repeated(self, path: Path, leaf: Any, known: InputTensor | None, module: str) -> Any:
        """Return an input of a module with the rows of all members."""
        if self.members == 1 or not self.batch:
            return leaf
        if isinstance(leaf, PackedSequence):
            if int(leaf.batch_sizes[0]) != self.batch:
                return leaf
            return choose_packed(leaf, range(self.batch), self.members)
        if not isinstance(leaf, Tensor):
            return leaf
        axis = self._axis_of(leaf, None if known is None else known.learned_axis)
        if axis is None:
            return leaf
        if self.checked and known is not None and not known.expects(leaf, axis):
            raise BranchError(
                f"a module after branch_at={self.name!r} gets an input of shape "
                f"{list(leaf.shape)}, which no member alone gives it: it was {RESHAPED}"
            )
        # Of one example that would be a view, into which no module could write.
        rows = repeat(leaf, self.members, axis).contiguous()
        if self.checked and not rows.is_inference():
            self.check_unwritten(leaf)
            self.repeats.append((module, leaf, rows, rows._version))
        return rows

    def check_unwritten(self, x: Tensor) -> None:
        """Raise ``BranchError`` if a module after the branch should have written into ``x``.

        In a plain network ``x`` would change; here only the members' copies of it did.
        """
        for module, leaf, rows, version in self.repeats:
            if rows._version != version and shares_memory(leaf, x):
                raise BranchError(
                    f"{module!r} is after branch_at={self.name!r} and writes into its input, "
                    "which others read later: the members cannot write into what they share. "
                    "Branch at an earlier module, or let it work out of place (inplace=False)"
                )

    def _axis_of(self, x: Tensor, learned: int | str | None) -> int | None:
        """Return the axis of an input that is as long as the batch; ``None`` without one."""
        if isinstance(learned, int):
            return learned if x.shape[learned : learned + 1] == (self.batch,) else None
        axes = [axis for axis in (self.axis, 1 - self.axis) if axis < x.dim()]
        if any(x.shape[axis] == self.members * self.batch for axis in axes):
            return None
        return next((axis for axis in axes if x.shape[axis] == self.batch), None)


@dataclass(eq=False)
class BranchInput:
    """A forward pre-hook that repeats inputs with the rows of the batch for all members.

    Attributes:
        name: name of the module.
        opens: whether the module is the branch.
        own: whether the module holds weights of each member's own.
        tensors: the tensors among its inputs, by path.
    """

    name: str
    opens: bool
    own: bool
    tensors: dict[Path, InputTensor] = field(default_factory=dict)

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """Return the arguments with the rows of all members."""
        current = RUNNING.branch
        if current is None:
            if RUNNING.calls is not None:
                self._record_shapes(args, kwargs)
            return None
        if self.opens:
            current.opened = True
        if current.opened:
            return map_leaves(
                lambda path, leaf: current.repeated(path, leaf, self.tensors.get(path), self.name),
                (args, kwargs),
            )
        if self.own and current.members > 1:
            raise BranchError(
                f"{self.name!r} is defined after branch_at={current.name!r}, and so each member's "
                "own, but runs before it; name it in exclude=, so that all members share it, or "
                f"give branch_at={self.name!r}"
            )
        return None

    def _record_shapes(self, args: Any, kwargs: Any) -> None:
        """Record the shapes of the inputs while the ensemble learns the axes of the rows."""
        assert RUNNING.calls is not None
        for path, leaf in leaves((args, kwargs)):
            if isinstance(leaf, Tensor):
                known = self.tensors.setdefault(path, InputTensor())
                known.shapes.add(tuple(leaf.shape))
                RUNNING.calls.append((known, tuple(leaf.shape)))


def without_branch_inputs(network: nn.Module) -> nn.Module:
    """Remove all branch inputs from a network, in place, and return it."""
    for module in network.modules():
        hooks = module._forward_pre_hooks
        for key in [key for key, hook in hooks.items() if isinstance(hook, BranchInput)]:
            del hooks[key]
            module._forward_pre_hooks_with_kwargs.pop(key, None)
    return network


def repeat_outputs(
    branch: str,
    outputs: Any,
    tiling: Tiling,
    axes: Mapping[Path, int],
    known: set[Path],
    plain: Callable[[], Any],
) -> Any:
    """Return the outputs with those of the trunk repeated for all members.

    Args:
        branch: name of the branch module, for errors.
        outputs: the outputs of the network, nested in any way.
        tiling: numbers of members and examples.
        axes: the known row axes of outputs, by path.
        known: paths of outputs that are known to come from the trunk; new ones are added.
        plain: returns the outputs of one member for the same inputs, to distinguish an output of
            the trunk from one that was reshaped to as many rows as there are examples.

    Raises:
        BranchError: an output has as many rows as the batch, but not the shape of a member's.
    """
    if tiling.rows == tiling.batch:
        return outputs
    found = {
        path: axis
        for path, leaf in leaves(outputs)
        for axis in (_axis_of_examples(leaf, tiling, axes.get(path)),)
        if axis is not None
    }
    if not known.issuperset(found) and not torch.compiler.is_compiling():
        _check_outputs(branch, outputs, plain(), found)
        known.update(found)
    return map_leaves(
        lambda path, leaf: repeat(leaf, tiling.members, found[path]) if path in found else leaf,
        outputs,
    )


def _check_outputs(branch: str, outputs: Any, plain: Any, found: Collection[Path]) -> None:
    expected = dict(leaves(plain))
    for path, leaf in leaves(outputs):
        if path in found and path not in expected:
            raise BranchError(
                f"the output {'.'.join(map(str, path))} of shape {list(leaf.shape)} is none that a "
                f"member has: modules after branch_at={branch!r} run once per member, and the "
                "network collects what each of them returns; let it return its final outputs only"
            )
        member = expected.get(path)
        shape = list(member.shape) if isinstance(member, Tensor) else member
        if path in found and shape != list(leaf.shape):
            raise BranchError(
                f"an output has the shape {list(leaf.shape)}, and a member's is {shape}: it "
                f"was {RESHAPED} (branch_at={branch!r})"
            )


def _axis_of_examples(leaf: Any, tiling: Tiling, known: int | None) -> int | None:
    """Return the axis of an output that is as long as the batch; ``None`` without one."""
    if not isinstance(leaf, Tensor) or (known is not None and known < 0):
        return None
    if known is not None:
        return known if leaf.shape[known : known + 1] == (tiling.batch,) else None
    if tiling.rows in leaf.shape:
        return None
    axes = (tiling.axis, 1 - tiling.axis)
    return next((axis for axis in axes if leaf.shape[axis : axis + 1] == (tiling.batch,)), None)
