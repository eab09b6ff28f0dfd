"""What every twin is: a module that stands for M plain layers of one class."""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from batchensemble.layers.base.rows import RUNNING, each_member

WeightSharing = Literal["shared", "rank_one", "independent"]

# A user's hooks sit on the twin while the network is an ensemble, and on the members' layers after.
MODULE_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)


# A shell holds the tensors of one member at a time: threads take turns.
FILLED = threading.RLock()


class Twin(nn.Module):
    """A layer of an ensemble: member-major rows to member-major rows.

    Subclasses hold the tensors and say in :meth:`tensors` which of them a member's plain layer
    has. Everything else of the plain layer (its class, its settings, its hooks) is kept in a shell
    without tensors, so that a member comes out as it went in.

    Args:
        layer: the plain layer.
        members: how many members (M).
        batch_axis: the axis of the rows.

    Attributes:
        own: names of the parameters and buffers whose first axis is the members.
        name: of the layer in its network, for errors.
        learned_axis: see :func:`batchensemble.ensembles.conversion.axes.learn_axes`.
        for_all: why all members share the layer, see :meth:`share_with_all`; empty if they do not.
    """

    shell: Any
    sharing: WeightSharing = "rank_one"
    any_axis = False  # whether rows may lie on another axis than the first
    name = ""
    for_all = ""

    def __init__(self, layer: nn.Module, members: int, batch_axis: int = 0) -> None:
        super().__init__()
        self.members, self.batch_axis = members, batch_axis
        self.own: list[str] = []
        self.learned_axis: int | str | None = None
        self.__dict__["shell"] = hollow(layer)  # past nn.Module, which would make it a child
        copy_hooks(layer, self)
        self.train(layer.training)

    def __getattr__(self, name: str) -> Any:
        """Return the plain layer's settings, such as ``kernel_size``, which networks read."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            shell = self.__dict__.get("shell")
            if shell is None or name.startswith("__"):
                raise
            value = getattr(shell, name)
            if isinstance(value, Tensor):
                raise
            return value

    def hold(self, name: str, value: Tensor | None, *, own: bool) -> None:
        """Keep a tensor of the plain layer under its name: one for all, or a copy a member."""
        if value is None:
            setattr(self, name, None)
            return
        if own:
            value = value.detach().unsqueeze(0).repeat(self.members, *[1] * value.dim())
            self.own.append(name)
        like = getattr(self.shell, name)
        if isinstance(like, nn.Parameter) and own:
            self.register_parameter(name, nn.Parameter(value, requires_grad=like.requires_grad))
        elif isinstance(like, nn.Parameter):
            setattr(self, name, value)
        else:
            self.register_buffer(name, value)

    def tensors(self, index: int) -> dict[str, Tensor]:
        """Return the tensors of member ``index``'s plain layer, by name, for autograd to follow."""
        values = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        if self.for_all:
            return {name: v.mean(0) if name in self.own else v for name, v in values.items()}
        return {name: value[index] if name in self.own else value for name, value in values.items()}

    def member(self, index: int) -> nn.Module:
        """Return the plain layer that member ``index`` is."""
        plain = copy.deepcopy(self.shell)
        fill(plain, {name: tensor.detach().clone() for name, tensor in self.tensors(index).items()})
        copy_hooks(self, plain)
        return plain.train(self.training)

    def run_member(self, index: int, *args: Any, **kwargs: Any) -> Any:
        """Run the plain layer that member ``index`` is."""
        if RUNNING.calls is not None and args and isinstance(args[0], Tensor):
            RUNNING.calls.append((self, tuple(args[0].shape)))
        return self._run_plain(self.tensors(index), args, kwargs)

    def _run_plain(self, tensors: dict[str, Tensor], args: Any, kwargs: Any) -> Any:
        """Run the plain layer with these tensors."""
        if self.shell.training != self.training:  # set without a call of train()
            self.shell.train(self.training)
        if torch.compiler.is_compiling():
            return torch.func.functional_call(self.shell, tensors, args, kwargs)
        with FILLED:
            return torch.func.functional_call(self.shell, tensors, args, kwargs)

    def one_by_one(self, *args: Any, **kwargs: Any) -> Any:
        """Run the members' plain layers one after the other: right for any layer."""
        return each_member(self, self.run_member, *args, **kwargs)

    def run_as_written(self) -> None:
        """Send the rows through the plain layer's own ``forward``, one member after the other."""
        self.forward = self.one_by_one  # type: ignore[method-assign]

    def run_for_all(self, reason: str) -> None:
        """Run one plain layer for all members, whatever their rows, until :meth:`run_for_each`."""
        if self.for_all:
            return
        self.for_all = reason
        self.__dict__["own_forward"] = self.__dict__.get("forward")
        self.forward = self._of_all  # type: ignore[method-assign]

    def run_for_each(self) -> None:
        """Undo :meth:`run_for_all`."""
        self.for_all = ""
        del self.forward
        before = self.__dict__.pop("own_forward")
        if before is not None:
            self.forward = before  # type: ignore[method-assign]

    def share_with_all(self, reason: str) -> None:
        """Let all members share the layer for good.

        No parameter comes or goes, so that an optimiser that holds them stays right. What each
        member owns is made the same for all, and gets the same gradient from now on.
        """
        self.run_for_all(reason)
        for name in self.own:
            value = getattr(self, name).detach()
            if not (value == value[:1]).all():
                value.copy_(value.mean(0, keepdim=True).expand_as(value))

    def _of_all(self, *args: Any, **kwargs: Any) -> Any:
        return self._run_plain(self.tensors(0), args, kwargs)

    def train(self, mode: bool = True) -> Twin:
        """Set the mode, of the shell too."""
        self.shell.train(mode)
        return super().train(mode)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Map member-major rows to member-major rows."""
        return self.one_by_one(*args, **kwargs)

    def roles(self) -> dict[str, str]:
        """Return what each parameter is: ``"shared"``, ``"fast"``, ``"bias"`` or ``"norm"``."""
        return {name: "bias" if _is_bias(name) else "shared" for name, _ in self.named_parameters()}

    @classmethod
    def of(cls, layers: Sequence[nn.Module]) -> Twin:
        """Return the twin whose members are these plain layers, independent of each other."""
        twin = cls(layers[0], len(layers))
        twin.sharing = "independent"
        with torch.no_grad():
            for index, layer in enumerate(layers):
                twin.put(index, layer)
        return twin

    def keep(self, indices: list[int]) -> None:
        """Keep only these members, in this order, in place."""
        self.pick(lambda value: value[indices].clone(), len(indices))

    def average(self) -> None:
        """Make the mean of what the members own the only member, in place."""
        self.pick(lambda v: (v if v.is_floating_point() else v.double()).mean(0, True).to(v), 1)

    def pick(self, function: Callable[[Tensor], Tensor], members: int) -> None:
        """Replace what each member owns by ``function`` of it, which leaves ``members``."""
        for name in self.own:
            value = function(getattr(self, name).detach())
            old = getattr(self, name)
            if isinstance(old, nn.Parameter):
                value = nn.Parameter(value, requires_grad=old.requires_grad)
            setattr(self, name, value)
        self.members = members

    def put(self, index: int, layer: nn.Module) -> None:
        """Make member ``index`` the plain ``layer``, in place.

        Raises:
            ValueError: the layer differs in what the members share, or no rank-one fit is exact.
        """
        given = {**dict(layer.named_parameters()), **dict(layer.named_buffers())}
        for name, value in self.tensors(index).items():
            if name in self.own and not self.for_all:
                value.detach().copy_(given[name])
            else:
                self.check_shared(name, value, given[name])

    def check_shared(self, name: str, shared: Tensor, given: Tensor) -> None:
        """Raise ``ValueError`` where a plain layer differs in what all members share."""
        if not same(shared, given):
            raise ValueError(
                f"{self.name or 'the network'!r} shares its {name} among all members, and the "
                "given network has another"
            )

    def extra_repr(self) -> str:
        """Describe the layer in one line."""
        return f"{self.shell.extra_repr()}, members={self.members}"


def hollow(layer: nn.Module) -> nn.Module:
    """Return a module of the same class and settings without tensors and hooks.

    Where the layer has a tensor the shell has one of the same shape that holds no memory.
    """
    shell = copy.copy(layer)
    state = shell.__dict__
    for name in MODULE_HOOKS:
        state[name] = OrderedDict()
    state["_parameters"] = {
        name: parameter if parameter is None else _without_memory(parameter)
        for name, parameter in layer._parameters.items()
    }
    state["_buffers"] = {
        name: buffer if buffer is None else buffer.to("meta")
        for name, buffer in layer._buffers.items()
    }
    state["_modules"] = {
        name: child if child is None else hollow(child) for name, child in layer._modules.items()
    }
    if isinstance(layer, nn.RNNBase):  # which keeps a list of its weights as well
        state["_flat_weights"] = [state["_parameters"][name] for name in layer._flat_weights_names]
    return shell


def fill(plain: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a shell its tensors; parameters stay parameters, buffers buffers."""
    for path, value in tensors.items():
        parent, _, name = path.rpartition(".")
        owner = plain.get_submodule(parent)
        old = getattr(owner, name)
        if isinstance(old, nn.Parameter):
            value = nn.Parameter(value, requires_grad=old.requires_grad)
        setattr(owner, name, value)


def copy_hooks(source: nn.Module, target: nn.Module) -> None:
    """Let the forward and backward hooks of one module be called by another too."""
    for name in MODULE_HOOKS:
        getattr(target, name).update(getattr(source, name))


def same(one: Tensor, other: Tensor) -> bool:
    """Tell whether two weights are the same but for rounding."""
    if one.shape != other.shape:
        return False
    if not one.is_floating_point():
        return torch.equal(one, other)
    tolerance = 64 * torch.finfo(one.dtype).eps
    difference = (one.detach() - other.detach()).abs().max() if one.numel() else 0.0
    return bool(difference <= tolerance * (one.detach().abs().max() if one.numel() else 1.0))


def _without_memory(parameter: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)


def _is_bias(name: str) -> bool:
    return name.rpartition(".")[2].startswith("bias") or "_bias" in name
