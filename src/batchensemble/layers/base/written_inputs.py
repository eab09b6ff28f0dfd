"""Inputs that a network writes into, as ``x.div_(255)`` or an in-place ReLU that comes first does.

One tensor may be seen by several: by the caller, who keeps it, and by all members. Who writes into
it would change what the others see, so a network that writes is given copies. Which inputs it
writes into is found in its first calls, which get copies of all; later ones copy only those, so
that networks that do not write pay for nothing. Training and evaluation are told apart, since
dropout in place writes in one of them only, and so are calls with and without gradients.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from batchensemble.core.pytree import Path, leaves, map_leaves

CallMode = tuple[bool, bool]

# A network may write now and then, as what augments its input at random does.
FIRST_CALLS = 3


class WrittenInputError(RuntimeError):
    """A network wrote into a tensor that others see, after calls in which it did not."""


@dataclass(eq=False)
class WrittenInputs:
    """What is known of one module: into which of its inputs it writes.

    Attributes:
        paths: where these are among its arguments, by whether it is in training mode and whether
            there are gradients.
        calls: how many calls were watched, alike.
    """

    paths: dict[CallMode, set[Path]] = field(default_factory=dict)
    calls: dict[CallMode, int] = field(default_factory=dict)


class Lending:
    """Tensors that are handed to a module in one call, of which others hold the memory, too.

    Args:
        known: what is known of the module.
        training: its mode.
        name: of the module, for errors.
    """

    def __init__(self, known: WrittenInputs, training: bool, name: str) -> None:
        self.known, self.name = known, name
        self.mode: CallMode = (training, torch.is_grad_enabled())
        self.paths: Collection[Path] = known.paths.get(self.mode, ())
        calls = known.calls.get(self.mode, 0)
        # Compilers and torch.func show no counters of versions.
        self.blind = is_looked_on()
        self.copies_all = calls == 0 if self.blind else calls < FIRST_CALLS
        self._copied: list[tuple[Path, Tensor, Tensor, tuple[Any, ...]]] = []
        self._lent: list[tuple[Path, Tensor, int]] = []
        self._own: list[tuple[Path, Tensor, int]] = []

    def lend(self, values: Any, owners: Any = None) -> Any:
        """Return nested values to call the module with: copies of what it writes into.

        Args:
            values: what it is to get.
            owners: nested alike: what others hold, in whose memory a value may be; by default the
                values themselves.
        """
        owners = values if owners is None else owners
        if not self.copies_any:
            self._look_at(owners)
            return values
        if self.blind:
            return map_leaves(lambda path, leaf: self._unseen(path, leaf), values)
        seen: dict[int, Tensor] = {}

        def one(path: Path, leaf: Any, owner: Any) -> Any:
            if isinstance(leaf, PackedSequence):
                same = leaf is owner
                return leaf._replace(data=self.one(path, leaf.data)) if same else leaf
            if not isinstance(leaf, Tensor):
                return leaf
            given = seen.get(id(owner))
            if given is None or given.shape != leaf.shape:  # else it is one tensor, given twice
                given = seen[id(owner)] = self.one(path, leaf, owner)
            return given

        return map_leaves(one, values, owners)

    def _look_at(self, values: Any) -> None:
        if not self.blind:
            for path, leaf in leaves(values):
                tensor = leaf.data if isinstance(leaf, PackedSequence) else leaf
                if isinstance(tensor, Tensor) and not tensor.is_inference():
                    self._lent.append((path, tensor, tensor._version))

    def one(self, path: Path, leaf: Tensor, owner: Tensor | None = None) -> Tensor:
        """Return one tensor to call the module with, a copy if it writes into it.

        Args:
            path: where it is among the arguments.
            leaf: what the module is to get.
            owner: what others hold, by default the same.
        """
        if self.blind:
            return self._unseen(path, leaf)
        owner = leaf if owner is None else owner
        if leaf is not owner and not shares_memory(leaf, owner):
            self.watch(path, leaf)
            return leaf
        if self.copies(path):
            copy = copy_of(leaf)
            if self.copies_all:
                self._copied.append((path, leaf, copy, _state(copy)))
            return copy
        if not owner.is_inference():
            self._lent.append((path, owner, owner._version))
        return leaf

    def watch(self, path: Path, leaf: Tensor) -> None:
        """Look what becomes of a tensor that is nobody else's here, as it may be in other calls."""
        if path not in self.paths and not leaf.is_inference():
            self._own.append((path, leaf, leaf._version))

    @property
    def copies_any(self) -> bool:
        """Whether there is any input that the module is given a copy of."""
        return self.copies_all or bool(self.paths)

    def copies(self, path: Path) -> bool:
        """Tell whether the module is given a copy of this input."""
        return self.copies_all or path in self.paths

    def is_written(self, path: Path) -> bool:
        """Tell whether the module wrote into copies of this input in this call."""
        if path in self.paths:
            return True
        return any(
            _is_written(before, copy, state)
            for other, before, copy, state in self._copied
            if other == path
        )

    def end(self, *, failed: bool = False) -> None:
        """Note into what the module wrote.

        Raises:
            WrittenInputError: into a tensor that was no copy.
        """
        if self.blind:
            return
        calls, paths = self.known.calls, self.known.paths
        if self.copies_all and not failed:
            calls[self.mode] = calls.get(self.mode, 0) + 1
        written = {
            path for path, before, copy, state in self._copied if _is_written(before, copy, state)
        }
        late = {path for path, owner, version in self._lent if owner._version != version}
        written |= {path for path, leaf, version in self._own if leaf._version != version}
        if written or late:
            paths[self.mode] = {*paths.get(self.mode, ()), *written, *late}
        if late and not failed:
            names = ", ".join(sorted(repr(".".join(map(str, path))) for path in late))
            raise WrittenInputError(
                f"{self.name} wrote into its input {names}, which it had not done in its first "
                "calls, so that what all members see has changed, and so has the tensor that was "
                "given; it gets a copy from now on: call it again with the input as it was"
            )

    def _unseen(self, path: Path, leaf: Any) -> Any:
        if not self.copies(path):
            return leaf
        if isinstance(leaf, PackedSequence):
            return leaf._replace(data=leaf.data.clone())
        return leaf.clone() if isinstance(leaf, Tensor) else leaf


@contextmanager
def lending(module: nn.Module, name: str = "the network") -> Iterator[Lending]:
    """Hand tensors to a module in one call; what is found is kept with it.

    Args:
        module: that knows its mode.
        name: of what writes, for errors.

    Raises:
        WrittenInputError: it wrote into a tensor where it was not known to.
    """
    known = module.__dict__.get("_written_inputs")
    if known is None:
        known = WrittenInputs()
        if not torch.compiler.is_compiling():
            module.__dict__["_written_inputs"] = known
    lent = Lending(known, module.training, name)
    try:
        yield lent
    except BaseException:
        lent.end(failed=True)
        raise
    lent.end()


def copies_of(values: Any) -> Any:
    """Return nested values of which all tensors are copies; one that is there twice is one copy."""
    seen: dict[int, Tensor] = {}

    def one(_: Path, leaf: Any) -> Any:
        if isinstance(leaf, PackedSequence):
            return leaf._replace(data=copy_of(leaf.data))
        if not isinstance(leaf, Tensor):
            return leaf
        if id(leaf) not in seen:
            seen[id(leaf)] = copy_of(leaf)
        return seen[id(leaf)]

    return map_leaves(one, values)


def copy_of(tensor: Tensor) -> Tensor:
    """Return a copy, for autograd to follow; in inference mode one that counts its versions."""
    if not torch.is_inference_mode_enabled():
        return tensor.clone()
    with torch.inference_mode(False), torch.no_grad():
        return tensor.clone()


def never_writes(module: nn.Module) -> bool:
    """Tell whether a module cannot write into its inputs: torch's own, and not in place.

    Asked once, of a twin; what it stands for is in its shell.
    """
    known = module.__dict__.get("_never_writes")
    if known is None:
        known = all(map(_is_harmless, _parts(module)))
        if not torch.compiler.is_compiling():
            module.__dict__["_never_writes"] = known
    return bool(known)


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    for each in module.modules():
        yield each
        shell = each.__dict__.get("shell")
        if shell is not None:
            yield from shell.modules()


def _is_harmless(module: nn.Module) -> bool:
    own = type(module).__module__.startswith(("torch.nn.", "batchensemble."))
    hooked = module._forward_pre_hooks or module._forward_hooks or "forward" in module.__dict__
    return own and not hooked and not module.__dict__.get("inplace", False)


def shares_memory(one: Tensor, other: Tensor) -> bool:
    """Tell whether writing into one tensor may change another.

    Example:
        >>> x = torch.zeros(3, 2)
        >>> shares_memory(x[0], x), shares_memory(x.clone(), x)
        (True, False)
    """
    return bool(torch._C._is_alias_of(one, other))  # type: ignore[attr-defined]


def is_looked_on() -> bool:
    """Tell whether a compiler or ``torch.func`` looks on."""
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()


def _state(tensor: Tensor) -> tuple[Any, ...]:
    version = None if tensor.is_inference() else tensor._version
    return version, tensor.shape, tensor.requires_grad


def _is_written(original: Tensor, copy: Tensor, state: tuple[Any, ...]) -> bool:
    """Tell whether somebody wrote into a copy: by its counter, or behind it through ``.data``."""
    if _state(copy) != state:
        return True
    plain = type(copy) is Tensor and copy.layout == torch.strided and not copy.is_quantized
    if not plain or copy.is_meta:
        return False
    with torch.no_grad():
        one, other = copy.detach(), original.detach()
        return not bool(((one == other) | ((one != one) & (other != other))).all())
