"""``verify``: compare an ensemble with its members as plain networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from batchensemble.core.pytree import Path, leaves
from batchensemble.ensembles.conversion.axes import SIZES
from batchensemble.ensembles.conversion.tiling import Arguments, Tiling
from batchensemble.ensembles.conversion.unregistered import check_weights_registered
from batchensemble.ensembles.runner import MemberRunner
from batchensemble.layers import Twin
from batchensemble.layers.modes import evaluating

MODULE_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class Divergence:
    """Where the outputs of an ensemble and of one of its members first differ.

    Attributes:
        text: a sentence without its full stop.
        around: name of the module whose ``forward`` causes it; empty for the network itself.
    """

    text: str
    around: str


@dataclass(frozen=True)
class Verification:
    """The result of :func:`verify`.

    Attributes:
        members: number of members that were compared.
        batches: sizes of the batches that were compared.
        largest_difference: the largest absolute difference between an output of the ensemble and
            of a member, divided by the largest absolute output of that member.
    """

    members: int
    batches: tuple[int, ...]
    largest_difference: float

    def __str__(self) -> str:
        sizes = " and ".join(str(size) for size in self.batches)
        return (
            f"{self.members} members agree with their plain networks (batches of {sizes}); largest "
            f"difference {self.largest_difference:.1e} relative to the output"
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

    A forward pass works there and gives shapes; values do not exist.
    """
    for name, weight in (*model.named_parameters(), *model.named_buffers()):
        if weight.is_meta:
            raise ValueError(
                f"{name} is on torch's meta device, which holds shapes and no values; allocate "
                "memory with model.to_empty(device=...), then load the weights with load_state_dict"
            )


def verify(model: MemberRunner, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Verification:
    """Compare an ensemble with its members one by one; see :meth:`Ensemble.verify`."""
    check_numbers(model)
    arguments = Arguments.of(model.plain_network(), args, kwargs)
    tiling = Tiling.of(arguments, model.members, model.batch_axis, False, model.untiled)
    axes, sizes = _learn_axes(model, tiling, arguments)
    check_weights_registered(model, lambda: arguments.copied().call(model.forward))
    largest = 0.0
    with evaluating(model), torch.no_grad(), torch.random.fork_rng([]):
        for size in sizes:
            part = tiling.resized(arguments, size)
            outputs = _outputs(model, part, size)
            for index in range(model.members):
                member = model.member(index).eval()
                expected = part.copied().call(member)
                difference = _difference(outputs, expected, model.members, index, axes)
                if not difference <= tolerance(expected):
                    raise ValueError(
                        f"member {index} of the ensemble does not compute what member({index}) "
                        f"computes on {size} examples: outputs differ by {difference:.1e} of their "
                        f"size. {_advice(model, member, index, part)}"
                    )
                largest = max(largest, difference)
    return Verification(model.members, tuple(sizes), largest)


def _learn_axes(
    model: MemberRunner, tiling: Tiling, arguments: Arguments
) -> tuple[dict[Path, int], list[int]]:
    """Return the row axes of the outputs, and the batch sizes to compare.

    Where only this batch size fits and the members run together, raise an error that names the
    module.
    """
    member = model.member(0).eval()
    sizes = sorted({tiling.batch, max(tiling.batch - 1, min(1, tiling.batch))}, reverse=True)
    with torch.no_grad(), torch.random.fork_rng([]):
        expected = arguments.copied().call(member)  # wrong inputs raise the network's own error
        with evaluating(model):
            model.detect_run_mode(tiling, arguments)
        try:
            return model.learn_axes(tiling, arguments), sizes
        except Exception as error:
            if model.members == 1 or model.one_by_one:
                return tiling.default_axes(expected), [tiling.batch]
            ends = _calls(member, lambda: arguments.copied().call(member))
            for size in SIZES:
                part = tiling.resized(arguments, size)
                reached = len(_calls(member, lambda part=part: part.copied().call(member)))
                if reached < len(ends):
                    place = f"{ends[reached].name or 'the network'!r} ({ends[reached].kind})"
                    raise ValueError(
                        f"the network takes {tiling.batch} examples but not {size}, and the rows "
                        f"are members times examples: {place} fails with {error}; run='one_by_one' "
                        "gives each member its own"
                    ) from error
            raise


def _outputs(model: MemberRunner, arguments: Arguments, size: int) -> Any:
    """Run the ensemble; where it fails and a member does not, name the first difference."""
    try:
        # What members have no part in, a calibrator, is not in forward.
        return arguments.call(model.forward)
    except Exception as error:
        member = model.member(0).eval()
        arguments.copied().call(member)  # if that fails too, its error is the one to read
        raise ValueError(
            f"the ensemble fails on {size} examples where member(0) does not: {error}. "
            f"{_advice(model, member, 0, arguments)}"
        ) from error


def _difference(
    outputs: Any, expected: Any, members: int, index: int, axes: dict[Path, int]
) -> float:
    """Return the largest difference of member ``index``'s outputs, relative to the largest."""
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


def difference_of(together: Any, apart: Any, each: Sequence[Any]) -> float:
    """Return the largest difference of two run modes, relative to the largest output.

    Args:
        together: outputs ``[batch, members, ...]`` of one forward pass for all members.
        apart: outputs ``[batch, members, ...]`` of one forward pass for each.
        each: the outputs that each member returned in its forward pass.
    """
    members = [dict(leaves(one)) for one in each]
    others = dict(leaves(apart))
    pairs = [
        (path, leaf, others[path])
        for path, leaf in leaves(together)
        if isinstance(leaf, Tensor) and isinstance(others.get(path), Tensor)
    ]
    # Rounding may change a label that a network returns beside its outputs.
    numbers = [pair for pair in pairs if pair[1].is_floating_point() or pair[1].is_complex()]
    largest = 0.0
    for path, leaf, other in numbers or pairs:
        if leaf.shape == other.shape:
            largest = max(largest, _relative(leaf, other))
            continue
        for index, own in enumerate(members):
            part = _part(leaf, own[path], len(members), index)
            largest = max(largest, _relative(part, own[path]))
    return largest


def _relative(one: Tensor, other: Tensor) -> float:
    """Return the largest difference of two tensors, relative to the largest; NaN equals NaN."""
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


def tolerance(expected: Any) -> float:
    """Return the tolerated relative difference: the square root of the machine epsilon."""
    kinds = [leaf.dtype for _, leaf in leaves(expected) if isinstance(leaf, Tensor)]
    floating = [torch.finfo(kind).eps for kind in kinds if kind.is_floating_point]
    return max(floating, default=torch.finfo(torch.float32).eps) ** 0.5


def _advice(model: MemberRunner, member: nn.Module, index: int, arguments: Arguments) -> str:
    """Return where the ensemble and a member first differ, and what to do about it."""
    divergence = first_divergence(
        model.network,
        lambda: arguments.call(model),
        lambda: arguments.copied().call(member),
        model.members,
        index,
        member=member,
    )
    own = model.run_member(index, arguments.copied())
    expected = arguments.copied().call(member)
    if not difference_of(own, expected, [expected]) <= tolerance(expected):
        return (
            f"{divergence.text}, which reads the weights of another module directly: call that "
            "module instead, or name it in exclude= or independent="
        )
    name = f"[{divergence.around!r}]" if divergence.around else ""
    return (
        f"{divergence.text}, which does not process each row independently. run='one_by_one' runs "
        "the members one after the other, correct for any network; it is cheaper to name that "
        f"module in one_by_one={name}, or an argument that is not per example in untiled="
    )


def first_divergence(
    network: nn.Module,
    together: Callable[[], Any],
    alone: Callable[[], Any],
    members: int,
    index: int,
    *,
    member: nn.Module | None = None,
) -> Divergence:
    """Find the module in which the outputs of all members and of one member first differ.

    Args:
        network: a converted network.
        together: runs it on the rows of all members.
        alone: runs one member on its own rows.
        members: number of members (M).
        index: which member ``alone`` runs, 0 to M - 1.
        member: the network that ``alone`` runs; by default ``network`` itself.
    """
    called: dict[str, list[_Call]] = {}
    for call in _calls(network, together):
        called.setdefault(call.name, []).append(call)
    names = dict(network.named_modules())
    last = ""
    for call in _calls(member or network, alone):
        others = called.get(call.name)
        if others is None and call.name not in names:
            continue  # beneath a twin
        place = f"{call.name or 'the network'!r} ({call.kind})"
        if not others:
            after = f"after {last}" if last else "at the start"
            return Divergence(
                f"They first differ {after}, before {place} returns", _caller(names, call.name)
            )
        other = others.pop(0)
        if not _same(other.output, call.output, members, index):
            if _same(other.inputs, call.inputs, members, index):
                is_twin = isinstance(names.get(call.name), Twin)
                around = _caller(names, call.name) if is_twin else call.name
                return Divergence(f"They first differ in {place}", around)
            text = f"They first differ before {place}, in the forward of a module that calls it"
            return Divergence(text, _caller(names, call.name))
        last = place
    return Divergence(
        "Every module agrees, so they differ in the forward of the network itself", ""
    )


def _caller(names: Mapping[str, nn.Module], name: str) -> str:
    """Return the name of the module around another that has a ``forward`` of its own."""
    while name:
        name = name.rpartition(".")[0]
        if not isinstance(names.get(name), MODULE_CONTAINERS):
            return name
    return ""


def _calls(network: nn.Module, run: Any) -> list[_Call]:
    """Return the calls of all modules of a network in the order in which they return."""
    calls: list[_Call] = []
    handles = []
    for name, module in network.named_modules():

        def note(module: nn.Module, args: Any, kwargs: Any, output: Any, name: str = name) -> None:
            calls.append(_Call(name, _kind(module), (args, kwargs), output))

        handles.append(module.register_forward_hook(note, with_kwargs=True))
    try:
        run()
    except Exception:
        pass  # the calls up to the error are the result
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _kind(module: nn.Module) -> str:
    return type(module.shell if isinstance(module, Twin) else module).__name__


def _same(rows: Any, plain: Any, members: int, index: int) -> bool:
    """Return whether one member's part of some rows equals that of the plain network."""
    for (_, one), (_, other) in zip(leaves(rows), leaves(plain), strict=False):
        if not isinstance(one, Tensor) or not isinstance(other, Tensor):
            continue
        if not _relative(_part(one, other, members, index), other) <= tolerance(other):
            return False
    return True


def _part(rows: Tensor, plain: Tensor, members: int, index: int) -> Tensor:
    """Return a member's part along the axis that is ``members`` times longer than the plain one."""
    if rows.shape == plain.shape or rows.dim() != plain.dim():
        return rows
    for axis, (many, one) in enumerate(zip(rows.shape, plain.shape, strict=True)):
        if many != one and many % members == 0 and one in (1, many // members):
            # One row for all examples is repeated for each, see
            # batchensemble.layers.base.rows.enter.
            return rows.narrow(axis, index * (many // members), one)
    return rows
