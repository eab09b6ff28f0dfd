"""``verify``: does the ensemble compute what its members compute alone?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from batchensemble.axes import SIZES
from batchensemble.modes import evaluating
from batchensemble.nesting import Path, leaves
from batchensemble.tiling import Arguments, Tiling

if TYPE_CHECKING:
    from batchensemble.ensembles.base import Ensemble


@dataclass(frozen=True)
class Verification:
    """What :func:`verify` found.

    Attributes:
        members: how many members were compared.
        batches: the sizes of the batches that were tried.
        largest_difference: between an output of the ensemble and of a member, over the largest
            output of that member.
    """

    members: int
    batches: tuple[int, ...]
    largest_difference: float

    def __str__(self) -> str:
        sizes = " and ".join(str(size) for size in self.batches)
        return (
            f"{self.members} members compute alone what they compute together ({sizes} examples); "
            f"largest difference {self.largest_difference:.1e} of the output"
        )


@dataclass(frozen=True)
class _Call:
    """One call of a module: its name and class, what went in and what came out."""

    name: str
    kind: str
    inputs: Any
    output: Any


def check_numbers(model: nn.Module) -> None:
    """Raise ``ValueError`` for a model with weights on torch's ``meta`` device.

    It runs there, which tells shapes; whatever reads a number cannot.
    """
    for name, weight in (*model.named_parameters(), *model.named_buffers()):
        if weight.is_meta:
            raise ValueError(
                f"{name} is on torch's meta device, which holds shapes and no numbers; give the "
                "model memory with model.to_empty(device=...), and then its weights with "
                "load_state_dict"
            )


def verify(model: Ensemble, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Verification:
    """Compare an ensemble with its members one by one; see :meth:`Ensemble.verify`."""
    check_numbers(model)
    arguments = Arguments.of(model._plain(), args, kwargs)
    tiling = Tiling.of(arguments, model.members, model.batch_axis, False, model.untiled)
    axes = _learn_axes(model, tiling, arguments)
    largest = 0.0
    sizes = sorted({tiling.batch, max(tiling.batch - 1, min(1, tiling.batch))}, reverse=True)
    with evaluating(model), torch.no_grad(), torch.random.fork_rng([]):
        for size in sizes:
            part = tiling.resized(arguments, size)
            outputs = _outputs(model, part, size)
            for index in range(model.members):
                member = model.member(index).eval()
                expected = part.copied().call(member)
                difference = _difference(outputs, expected, model.members, index, axes)
                if not difference <= _tolerance(expected):
                    raise ValueError(
                        f"member {index} of the ensemble does not compute what member({index}) "
                        f"computes on {size} examples: outputs differ by {difference:.1e} of their "
                        f"size. {_first_parting(model, member, index, part)}"
                    )
                largest = max(largest, difference)
    return Verification(model.members, tuple(sizes), largest)


def _learn_axes(model: Ensemble, tiling: Tiling, arguments: Arguments) -> dict[Path, int]:
    """Learn where the rows are; where only this number of examples fits, say which module it is."""
    member = model.member(0).eval()
    with torch.no_grad(), torch.random.fork_rng([]):
        arguments.copied().call(member)  # wrong inputs raise the network's own error
        try:
            return model.learn_axes(tiling, arguments)
        except Exception as error:
            ends = _calls(member, lambda: arguments.copied().call(member))
            for size in SIZES:
                part = tiling.resized(arguments, size)
                reached = len(_calls(member, lambda part=part: part.copied().call(member)))
                if reached < len(ends):
                    place = f"{ends[reached].name or 'the network'!r} ({ends[reached].kind})"
                    raise ValueError(
                        f"the network takes {tiling.batch} examples but not {size}, and the rows "
                        f"are members times examples: {place} fails with {error}"
                    ) from error
            raise


def _outputs(model: Ensemble, arguments: Arguments, size: int) -> Any:
    """Run the ensemble; where it fails and a member does not, say where they part."""
    try:
        # What members have no part in, a calibrator, is not in forward.
        return arguments.call(model.forward)
    except Exception as error:
        member = model.member(0).eval()
        arguments.copied().call(member)  # if that fails too, its error is the one to read
        raise ValueError(
            f"the ensemble fails on {size} examples where member(0) does not: {error}. "
            f"{_first_parting(model, member, 0, arguments)}"
        ) from error


def _difference(
    outputs: Any, expected: Any, members: int, index: int, axes: dict[Path, int]
) -> float:
    """Return the largest difference of member ``index``'s outputs over the largest output."""
    got = dict(leaves(outputs))
    largest = 0.0
    for path, leaf in leaves(expected):
        axis, rows = axes.get(path, -1), got.get(path)
        if not isinstance(leaf, Tensor) or not isinstance(rows, Tensor):
            continue
        if axis >= 0:
            largest = max(largest, _relative(rows.select(1, index), leaf.movedim(axis, 0)))
        elif rows.shape != leaf.shape:  # a part for each step of each example, for example
            largest = max(largest, _relative(_part(rows, leaf, members, index), leaf))
    return largest


def _relative(one: Tensor, other: Tensor) -> float:
    """Return the largest difference of two tensors over the largest entry; NaN equals NaN."""
    if one.shape != other.shape:
        return float("inf")
    if not one.numel():
        return 0.0
    if one.is_complex() and other.is_complex():
        one, other = torch.view_as_real(one), torch.view_as_real(other)
    one, other = one.double(), other.double()
    same = (one == other) | (one.isnan() & other.isnan())
    size = other[other.isfinite()].abs().max().item() if other.isfinite().any() else 1.0
    differences = (one - other).abs().masked_fill(same, 0.0)
    return (differences.max() / (size or 1.0)).nan_to_num(nan=float("inf")).item()


def _tolerance(expected: Any) -> float:
    """Return the square root of the precision of the outputs."""
    kinds = [leaf.dtype for _, leaf in leaves(expected) if isinstance(leaf, Tensor)]
    floating = [torch.finfo(kind).eps for kind in kinds if kind.is_floating_point]
    return max(floating, default=torch.finfo(torch.float32).eps) ** 0.5


def _first_parting(model: Ensemble, member: nn.Module, index: int, arguments: Arguments) -> str:
    """Say in which module the ensemble and the member part first."""
    together: dict[str, list[_Call]] = {}
    for call in _calls(model.network, lambda: arguments.call(model)):
        together.setdefault(call.name, []).append(call)
    cure = (
        "it does not treat its rows one by one, or reads the weights of another module itself. "
        "Name it in exclude=, independent= or one_by_one=, or an argument in untiled="
    )
    last = ""
    for call in _calls(member, lambda: arguments.copied().call(member)):
        others = together.get(call.name)
        if others is None and call.name not in dict(model.network.named_modules()):
            continue  # beneath a twin
        place = f"{call.name or 'the network'!r} ({call.kind})"
        if not others:
            return (
                f"They part {f'after {last}' if last else 'at once'}, before {place} ends: {cure}"
            )
        other = others.pop(0)
        if not _same(other.output, call.output, model.members, index):
            if _same(other.inputs, call.inputs, model.members, index):
                return f"They part in {place}: {cure}"
            return f"They part before {place}, in the forward of a module that calls it: {cure}"
        last = place
    return f"Every module agrees, so they part in the forward of the network itself: {cure}"


def _calls(network: nn.Module, run: Any) -> list[_Call]:
    """Return the calls of all modules of a network in the order in which they end."""
    calls: list[_Call] = []
    handles = []
    for name, module in network.named_modules():

        def note(module: nn.Module, args: Any, kwargs: Any, output: Any, name: str = name) -> None:
            calls.append(_Call(name, _kind(module), (args, kwargs), output))

        handles.append(module.register_forward_hook(note, with_kwargs=True))
    try:
        run()
    except Exception:
        pass  # the calls up to there are what is asked for
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _kind(module: nn.Module) -> str:
    return type(getattr(module, "shell", module)).__name__


def _same(rows: Any, plain: Any, members: int, index: int) -> bool:
    """Tell whether one member's part of some rows is what the plain network has there."""
    for (_, one), (_, other) in zip(leaves(rows), leaves(plain), strict=False):
        if not isinstance(one, Tensor) or not isinstance(other, Tensor):
            continue
        if not _relative(_part(one, other, members, index), other) <= _tolerance(other):
            return False
    return True


def _part(rows: Tensor, plain: Tensor, members: int, index: int) -> Tensor:
    """Return a member's part along the axis that is ``members`` times longer than the plain one."""
    if rows.shape == plain.shape or rows.dim() != plain.dim():
        return rows
    for axis, (many, one) in enumerate(zip(rows.shape, plain.shape, strict=True)):
        if many == one * members:
            return rows.narrow(axis, index * one, one)
    return rows
