"""Run whole networks in parallel: stacked weights, and the plain network under ``vmap``.

``torch.func.vmap`` turns each operation on one member's tensors into one on those of all members.
Stacked twins are faster; this needs none.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.utils.rnn import PackedSequence

from batchensemble.core.pytree import leaves, map_leaves
from batchensemble.layers.base.autocast import autocasts
from batchensemble.layers.base.rows import (
    RUNNING,
    each_member,
    find_rows,
    holds_rows,
    repeated,
    unfold,
)
from batchensemble.layers.base.twin import FILLED, MODULE_HOOKS, Twin
from batchensemble.layers.base.written_inputs import copies_of, lending

NamedTensors = dict[str, Tensor]


class NotVmappableError(ValueError):
    """A network does something that ``torch.func.vmap`` does not support."""


class Vmapped(Twin):
    """M networks of one architecture that run in one call.

    Buffers are each member's own, too, such as running statistics of batch norm. Random numbers, as
    in dropout, differ between members. Operations without a batching rule run member by member.
    Under autocast, which does not apply within ``vmap``, all members run one by one.

    Shape:
        rows ``[members * batch, ...]``, member-major, to rows of the same order; in nested
        arguments and outputs too.

    Args:
        networks: one network for each member, all of the same architecture; tied weights stay tied
            in each member.
        batch_axis: axis of the rows, 0 (default) or 1.

    Raises:
        NotVmappableError: at a call, if the network fails under ``vmap`` and a single member does
            not; the message says why.

    Example:
        >>> twin = Vmapped([nn.Conv1d(2, 4, 3), nn.Conv1d(2, 4, 3)])
        >>> twin.stacked.weight.shape, twin(torch.zeros(2 * 5, 2, 7)).shape
        (torch.Size([2, 4, 2, 3]), torch.Size([10, 4, 5]))
    """

    sharing = "independent"

    def __init__(self, networks: Sequence[nn.Module], batch_axis: int = 0) -> None:
        first = networks[0]
        super().__init__(first, len(networks), batch_axis)
        shell = _with_tensors(first, lambda tensor: tensor.to("meta"))
        for hooks in MODULE_HOOKS:  # the shell calls them, with the tensors of a member
            getattr(self, hooks).clear()
        self.__dict__["shell"] = shell
        self.training = first.training
        self.stacked = _stacked(networks, {})
        names = [
            *(name for name, _ in self.stacked.named_parameters(remove_duplicate=False)),
            *(name for name, _ in self.stacked.named_buffers(remove_duplicate=False)),
        ]
        self.own = [f"stacked.{name}" for name in names]
        self.places = dict(_places(shell))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Map member-major rows to member-major rows."""
        if RUNNING.member is not None or self._autocasts():
            return each_member(self, self.run_member, *args, **kwargs)
        axis, times = find_rows(self, (args, kwargs), (self.batch_axis, 0))

        def axis_of(_: Any, leaf: Any) -> int | None:
            return axis if holds_rows(leaf, axis, self.members) else None

        def apart(_: Any, leaf: Any, axis: int | None) -> Any:
            if axis is None or isinstance(leaf, PackedSequence):
                return leaf
            return unfold(leaf, self.members, axis)

        axes = map_leaves(axis_of, (args, kwargs))
        outputs = self._at_once(map_leaves(apart, (args, kwargs), axes), axes)
        rows = map_leaves(lambda _, leaf: _as_rows(leaf, axis), outputs)
        return repeated(self, rows, axis, times)

    def run_each(self, args: Any, kwargs: Any, axes: Any) -> list[Any]:
        """Return the outputs of each member.

        Args:
            args: positional arguments of the plain network; tensors may have an axis of members.
            kwargs: keyword arguments of the plain network, alike.
            axes: nested as ``(args, kwargs)``: the axis of members, ``None`` for what all members
                share. What depends on shared integers and masks only need not support ``vmap``.
        """
        axes = map_leaves(_also_shared, (args, kwargs), axes)
        values = map_leaves(self._expanded, (args, kwargs), axes)
        with lending(self) as lent:
            if self._autocasts():
                outputs = []
                for index in range(self.members):
                    own, named = lent.lend(_select_member(values, axes, index))
                    outputs.append(self.run_member(index, *own, **named))
                return outputs
            outputs = self._at_once(lent.lend(values, (args, kwargs)), axes)
        parts = {path: leaf.unbind() for path, leaf in leaves(outputs) if isinstance(leaf, Tensor)}
        return [
            map_leaves(lambda path, leaf, i=i: parts[path][i] if path in parts else leaf, outputs)
            for i in range(self.members)
        ]

    def _expanded(self, _: Any, leaf: Any, axis: int | None) -> Any:
        """Return a shared tensor with an axis of members, if it needs one."""
        if axis != 0:
            return leaf
        return leaf.expand(self.members, *leaf.shape)

    def _at_once(self, values: Any, axes: Any) -> Any:
        """Run all members under ``vmap``; each tensor of the outputs is ``[members, ...]``."""
        if self.shell.training != self.training:  # set without a call of train()
            self.shell.train(self.training)
        if torch.compiler.is_compiling():
            return self._under_vmap(values, axes)
        try:
            with FILLED, _as_vmap_needs_it():
                return self._under_vmap(values, axes)
        except Exception as error:
            self._run_without_a_trace(values, axes)  # wrong inputs raise the network's own error
            raise NotVmappableError(_explained(error, self.shell)) from error

    def _under_vmap(self, values: Any, axes: Any) -> Any:
        tensors, buffers = self._tensors()
        given = dict(leaves(values))
        own = {path: axis for path, axis in leaves(axes) if axis is not None}
        if any(isinstance(leaf, PackedSequence) for leaf in given.values()):
            raise TypeError("an input is a PackedSequence.")
        structure: list[Any] = []

        def one(tensors: NamedTensors, parts: list[Tensor]) -> tuple[list[Tensor], NamedTensors]:
            part = dict(zip(own, parts, strict=True))
            args, kwargs = map_leaves(lambda path, leaf: part.get(path, leaf), values)
            output, changed = self._call(tensors, buffers, args, kwargs)
            structure[:] = [output]
            return _tensors_in(output), changed

        run = vmap(one, in_dims=(0, list(own.values())), randomness="different")
        outputs, changed = run(tensors, [given[path] for path in own])
        self._set_buffers(changed)
        rest = iter(outputs)
        return map_leaves(lambda _, x: next(rest) if isinstance(x, Tensor) else x, structure[0])

    def _run_without_a_trace(self, values: Any, axes: Any) -> None:
        """Run the first member without side effects."""
        tensors = {name: value.detach().clone() for name, value in self.tensors(0).items()}
        args, kwargs = copies_of(_select_member(values, axes, 0))
        with FILLED, torch.no_grad(), torch.random.fork_rng([]):
            self._call(tensors, set(), args, kwargs)

    def run_member(self, index: int, *args: Any, **kwargs: Any) -> Any:
        """Run member ``index`` as a plain network."""
        if RUNNING.calls is not None and args and isinstance(args[0], Tensor):
            RUNNING.calls.append((self, tuple(args[0].shape)))
        if self.shell.training != self.training:
            self.shell.train(self.training)
        with nullcontext() if torch.compiler.is_compiling() else FILLED:
            output, changed = self._call(self.tensors(index), self._tensors()[1], args, kwargs)
        self._set_buffers(changed, index)
        return output

    def _call(
        self, tensors: NamedTensors, buffers: set[str], args: Any, kwargs: Any
    ) -> tuple[Any, NamedTensors]:
        """Call the shell with a member's tensors; also return the buffers that it replaced.

        What it writes into a buffer is there anyway.
        """
        filled = {place: tensors[name] for place, name in self.places.items()}
        output = functional_call(self.shell, filled, args, kwargs, tie_weights=False)
        changed = {name: filled[name] for name in buffers if filled[name] is not tensors[name]}
        return output, changed

    def _autocasts(self) -> bool:
        devices = {tensor.device.type for _, tensor in _tensors_of(self.stacked)}
        return any(map(autocasts, devices))

    def _tensors(self) -> tuple[NamedTensors, set[str]]:
        """Return all stacked tensors once, and the names of the buffers among them."""
        buffers = dict(self.stacked.named_buffers())
        return {**dict(self.stacked.named_parameters()), **buffers}, set(buffers)

    def _set_buffers(self, changed: NamedTensors, index: int | None = None) -> None:
        """Store the buffers that a network replaced, those of all members or of one."""
        for name, value in changed.items():
            buffer = self.stacked.get_buffer(name)
            (buffer if index is None else buffer[index]).copy_(value.detach())

    def tensors(self, index: int) -> NamedTensors:
        """Return the tensors of member ``index``'s network, by name, for autograd to follow."""
        return {name: value[index] for name, value in self._tensors()[0].items()}

    def member(self, index: int) -> nn.Module:
        """Return member ``index`` as a plain network."""
        own = {name: value.detach().clone() for name, value in self.tensors(index).items()}
        names = {tensor: name for name, tensor in _tensors_of(self.shell)}
        plain = _with_tensors(self.shell, lambda tensor: own[names[tensor]])
        return plain if plain.training == self.training else plain.train(self.training)

    def put(self, index: int, network: nn.Module) -> None:
        """Set member ``index`` to the plain ``network``, in place."""
        given = dict(_tensors_of(network))
        with torch.no_grad():
            for name, value in self.tensors(index).items():
                value.copy_(given[name])

    def pick(self, function: Callable[[Tensor], Tensor], members: int) -> None:
        """Apply ``function`` to all stacked tensors, which leaves ``members`` members."""
        self.stacked = _with_tensors(self.stacked, function)
        self.members = members

    def extra_repr(self) -> str:
        """Describe the network in one line."""
        return f"{type(self.shell).__name__}, members={self.members}"


def _stacked(networks: Sequence[nn.Module], done: dict[Any, Any]) -> nn.Module:
    """Return a tree of the networks' module names that holds nothing but their stacked tensors.

    What is in two places of the first network is in two places of the tree.
    """
    first = networks[0]
    if first in done:
        return done[first]
    held = done[first] = nn.Module()
    for name, parameter in first._parameters.items():
        if parameter is not None and parameter not in done:
            values = torch.stack([each._parameters[name].detach() for each in networks])  # type: ignore[union-attr]
            done[parameter] = nn.Parameter(values, requires_grad=parameter.requires_grad)
        held.register_parameter(name, None if parameter is None else done[parameter])
    for name, buffer in first._buffers.items():
        if buffer is not None and buffer not in done:
            done[buffer] = torch.stack([each._buffers[name].detach() for each in networks])  # type: ignore[union-attr]
        kept = name not in first._non_persistent_buffers_set
        held.register_buffer(name, None if buffer is None else done[buffer], persistent=kept)
    for name, child in first._modules.items():
        children = [each._modules[name] for each in networks]
        held.add_module(name, None if child is None else _stacked(children, done))  # type: ignore[arg-type]
    return held


def _with_tensors(network: nn.Module, function: Callable[[Tensor], Tensor]) -> Any:
    """Return a copy with ``function`` of each parameter and buffer; shared ones stay shared."""
    memo: dict[int, Any] = {}
    for _, tensor in _tensors_of(network):
        with torch.no_grad():
            value = function(tensor)
        if isinstance(tensor, nn.Parameter):
            value = nn.Parameter(value, requires_grad=tensor.requires_grad)
        memo[id(tensor)] = value
    return copy.deepcopy(network, memo)


def _tensors_of(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the names of parameters and buffers, each once."""
    yield from network.named_parameters()
    yield from network.named_buffers()


def _places(network: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield each place of a parameter or buffer and the first name of what is there.

    A module in two places counts once: ``functional_call`` would not put back what it has twice.
    """
    names = {tensor: name for name, tensor in _tensors_of(network)}
    for path, module in network.named_modules():
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                yield f"{path}.{name}" if path else name, names[tensor]


def _tensors_in(output: Any) -> list[Tensor]:
    found = [leaf for _, leaf in leaves(output)]
    if any(isinstance(leaf, PackedSequence) for leaf in found):
        raise TypeError("an output is a PackedSequence.")
    return [leaf for leaf in found if isinstance(leaf, Tensor)]


def _also_shared(_: Any, leaf: Any, axis: int | None) -> int | None:
    """Return the axis of members that a tensor has or needs.

    Networks write results into copies of floating inputs, which only works where both have it, and
    look at masks and whole numbers before they use them, which only works without.
    """
    floating = isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex())
    return 0 if axis is None and floating else axis


def _select_member(values: Any, axes: Any, index: int) -> Any:
    """Return member ``index``'s part of nested values."""

    def own(_: Any, leaf: Any, axis: int | None) -> Any:
        return leaf.select(axis, index) if axis is not None and isinstance(leaf, Tensor) else leaf

    return map_leaves(own, values, axes)


def _as_rows(outputs: Any, axis: int) -> Any:
    """Return an output of all members, ``[members, ...]``, as rows; see ``rows.join``."""
    if not isinstance(outputs, Tensor):
        return outputs
    if outputs.dim() - 1 > axis:
        return outputs.movedim(0, axis).flatten(axis, axis + 1)
    return outputs.mean(0) if outputs.is_floating_point() else outputs[0]


@contextmanager
def _as_vmap_needs_it() -> Iterator[None]:
    """Disable fast paths that bypass vmap, and warnings about missing batching rules."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _explained(error: Exception, network: nn.Module) -> str:
    """Return the error message for a network that runs alone but not under ``vmap``."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    names = {module: name for name, module in network.named_modules()}
    place, trace = "", error.__traceback__
    while trace is not None:
        module = trace.tb_frame.f_locals.get("self")
        if isinstance(module, nn.Module) and module in names:
            place = f"{names[module] or 'the network'!r} ({type(module).__name__}): "
        trace = trace.tb_next
    return (
        f"the members cannot run all at once under torch.func.vmap: {place}{reason.strip()} "
        "Give stacked=False, which runs one copy after the other"
    )
