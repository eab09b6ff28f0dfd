"""Branching: a trunk that runs once, and an ensemble from one module on.

The network gets the plain batch. Hooks on the modules from the branch on repeat inputs with
``batch`` rows for every member; so everything after the branch sees ``members * batch`` rows, as in
any ensemble, and the trunk before it is a plain network. The order in which modules are defined
says which belong to the trunk; the first forward pass checks that they run in that order.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from batchensemble.core.pytree import leaves
from batchensemble.ensembles.conversion.branch_inputs import BranchedPass, BranchError, BranchInput
from batchensemble.ensembles.conversion.convert import (
    Reset,
    batch_axis_of,
    draw_copies,
    is_twin,
    put_module,
    reset_parameters,
    stack,
    twins,
    without_fast_path,
)
from batchensemble.ensembles.conversion.copies import copied, relink
from batchensemble.ensembles.conversion.report import Report
from batchensemble.ensembles.conversion.rules import ARGUMENTS, Rules, nothing_found
from batchensemble.ensembles.conversion.tiling import Arguments, Tiling
from batchensemble.layers import OneByOne
from batchensemble.layers.base.rows import RUNNING
from batchensemble.layers.base.twin import same
from batchensemble.layers.modes import preserve_buffers
from batchensemble.layers.registry import find, needs_twin


@dataclass(frozen=True)
class Branch:
    """A trunk and the modules of the ensemble after it, by name.

    Attributes:
        name: name of the first module that is each member's own.
        around: modules that contain the branch; they run partly before it and partly after it.
        trunk: modules defined before the branch, with all beneath them.
        after: the branch and the modules defined after it, with all beneath them.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 3))
        >>> branch = Branch.of(net, "2")
        >>> branch.trunk, branch.after
        (('0', '1'), ('2', '3'))
    """

    name: str
    around: tuple[str, ...]
    trunk: tuple[str, ...]
    after: tuple[str, ...]

    @classmethod
    def of(cls, network: nn.Module, name: Any) -> Branch:
        """Find the branch in a plain network.

        Raises:
            TypeError: ``name`` is no string.
            ValueError: there is no such module, or it does not run by itself.
        """
        if not isinstance(name, str):
            raise TypeError(f"branch_at takes the name of one module, got {name!r}")
        modules = dict(network.named_modules(remove_duplicate=False))
        if not name or name not in modules:
            raise ValueError(nothing_found("branch_at", name, [each for each in modules if each]))
        if _never_runs(modules[name]):
            first = next((f", such as '{name}.{each}'" for each in modules[name]._modules), "")
            raise ValueError(
                f"branch_at names {name!r}, a {type(modules[name]).__name__}, which does not run "
                f"itself; name one of its modules{first}"
            )
        parts = name.split(".")
        around = tuple(".".join(parts[:depth]) for depth in range(len(parts)))
        before: list[str] = []
        after: list[str] = []
        for parent, own in zip(around, parts, strict=True):
            children = list(modules[parent]._modules)
            position = children.index(own)
            before += [_path(parent, child) for child in children[:position]]
            # Deeper modules were defined before those that follow the modules around them.
            after = [_path(parent, child) for child in children[position + 1 :]] + after
        trunk, modules_after = _runnable(before, modules), _runnable([name, *after], modules)
        found = cls(name, around, tuple(trunk), tuple(modules_after))
        found._check(modules)
        return found

    def _check(self, modules: Mapping[str, nn.Module]) -> None:
        trunk = {each: name for name in self.trunk for each in modules[name].modules()}
        if modules[self.name] in trunk:
            raise ValueError(
                f"branch_at names {self.name!r}, which is also {trunk[modules[self.name]]!r} and "
                "so runs before; name a module that is used once"
            )
        for name in self.around:
            if find(modules[name])[0] is not None:
                raise ValueError(
                    f"branch_at names {self.name!r}, which is part of the layer {name!r}; name "
                    "that layer, or another module around it"
                )

    def share(self, network: nn.Module, rules: Rules) -> Rules:
        """Return rules under which all members share the trunk.

        Raises:
            ValueError: a rule gives the members something of their own there.
        """
        modules = dict(network.named_modules(remove_duplicate=False))
        trunk = {each: name for name in self.trunk for each in modules[name].modules()}
        names = {module: name for name, module in network.named_modules()}
        for module, sharing in rules.explicit(network).items():
            if sharing != "shared" and module in trunk:
                argument = next(key for key, value in ARGUMENTS.items() if value == sharing)
                raise ValueError(
                    f"{argument} names {names[module]!r}, which runs before "
                    f"branch_at={self.name!r}, once for all members; name only modules after it"
                )
        around = {modules[name]: name for name in self.around}
        for module in rules.run_one_by_one(network):
            if module in trunk or module in around:
                raise ValueError(
                    f"one_by_one names {names[module]!r}, which runs, or begins, before "
                    f"branch_at={self.name!r}, once for all members; name only modules after it"
                )
        given = rules.exclude
        alone = isinstance(given, str) or callable(given)
        excluded = [given] if alone else given
        return replace(rules, exclude=[*excluded, *self.trunk])  # type: ignore[misc]

    def install(self, network: nn.Module) -> None:
        """Register the branch inputs in a converted network, in place.

        Raises:
            ValueError: a rule made a module around the branch independent.
        """
        modules = dict(network.named_modules(remove_duplicate=False))
        for name in self.around:
            if is_twin(modules[name]) or isinstance(modules[name], OneByOne):
                raise ValueError(
                    f"branch_at names {self.name!r}, which is within {name or 'the network'!r}, "
                    "and a rule makes that one module of each member's own; name a module around "
                    "it, or give the rule for the modules within"
                )
        done = {modules[name] for name in self.trunk}
        for name in self.after:
            module = modules[name]
            if module not in done:
                done.add(module)
                own = any(True for _ in twins(module))
                hook = BranchInput(name, opens=name == self.name, own=own)
                # First, so that a user's hooks see the rows.
                module.register_forward_pre_hook(hook, with_kwargs=True, prepend=True)

    def run(self, network: nn.Module, tiling: Tiling, arguments: Arguments, *, watch: bool) -> Any:
        """Run a converted network on the plain batch and return its outputs.

        Args:
            network: the converted network with its branch inputs.
            tiling: numbers of members and examples.
            arguments: the arguments of the call, not tiled.
            watch: check that no module of the trunk runs after the branch only.

        Raises:
            BranchError: the modules do not run in the order in which they are defined.
        """
        current = BranchedPass(self.name, tiling.members, tiling.batch, tiling.axis, watch)
        before, RUNNING.branch = RUNNING.branch, current
        try:
            if watch:
                with self._watching(network, current):
                    outputs = arguments.call(network)
            else:
                outputs = arguments.call(network)
        finally:
            RUNNING.branch = before
        if not current.opened:
            raise BranchError(
                f"branch_at names {self.name!r}, and the network ran without calling it, so its "
                "members are one; name a module that the forward calls itself"
            )
        for _, leaf in leaves(outputs):
            if isinstance(leaf, Tensor):
                current.check_unwritten(leaf)
        return outputs

    @contextmanager
    def _watching(self, network: nn.Module, current: BranchedPass) -> Iterator[None]:
        """Raise ``BranchError`` if a layer of the trunk runs after the branch only."""
        ran = set()

        def note(module: nn.Module, args: Any) -> None:
            if not current.opened:
                ran.add(module)
            elif module not in ran:
                raise BranchError(
                    f"{names[module]!r} is defined before branch_at={self.name!r}, and so shared "
                    "by all members, but runs after it; define it after the branch in the "
                    "network's __init__"
                )

        names = {
            module: name
            for root in self.trunk
            for name, module in network.get_submodule(root).named_modules(prefix=root)
            if needs_twin(module)
        }
        handles = [module.register_forward_pre_hook(note) for module in names]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def hint(self, tiling: Tiling) -> str:
        """Return a hint for the error of a failed forward pass."""
        return (
            f"With branch_at={self.name!r} the inputs and the trunk have {tiling.batch} rows, and "
            f"everything after the branch has {tiling.rows}: if the forward combines them, as a "
            "skip connection around the branch or a loss with labels does, branch before the skip "
            "connection begins, or compute the loss from the outputs"
        )

    def draw_copies(
        self, network: nn.Module, members: int, reset: Reset | None = None
    ) -> list[nn.Module]:
        """Return ``members`` copies of a network, re-initialised from the branch on.

        Args:
            network: any module.
            members: number of copies.
            reset: see :func:`batchensemble.ensembles.conversion.convert.draw_copies`; it may
                re-initialise the trunk as well, whose copies are not used.
        """
        if reset is not None:
            return draw_copies(network, members, reset)
        copies = [copied(network) for _ in range(members)]
        for each in copies:
            for name in self.after:
                reset_parameters(each.get_submodule(name))
        return copies

    def stack(
        self,
        network: nn.Module,
        copies: Sequence[nn.Module],
        batch_axis: int = 0,
        *,
        stacked: bool | None = None,
    ) -> nn.Module:
        """Return a copy of a network whose modules from the branch on are independent.

        Args:
            network: the network that provides the trunk.
            copies: one network per member, which provide the modules from the branch on; these
                are used themselves, not copied.
            batch_axis: axis of the rows, 0 or 1.
            stacked: see :func:`batchensemble.ensembles.conversion.convert.stack`.

        Raises:
            ValueError: no module after the branch holds weights, or ``stacked=True`` and there are
                weights that cannot be stacked.
        """
        result, replaced = copied(network), {}
        inherited = None
        for name in self.around:
            inherited = batch_axis_of(network.get_submodule(name), inherited)
        done: dict[nn.Module, nn.Module] = {}
        for name in self.after:
            parts = [each.get_submodule(name) for each in copies]
            if not any(needs_twin(each) for each in parts[0].modules()):
                continue
            if parts[0] not in done:
                axis = batch_axis_of(parts[0], inherited)
                axis = batch_axis if axis is None else axis
                done[parts[0]] = _named(stack(parts, axis, stacked=stacked), name)
            replaced[result.get_submodule(name)] = done[parts[0]]
            put_module(result, name, done[parts[0]])
        if not done:
            raise ValueError(
                f"all members would be the same network: no module from branch_at={self.name!r} on "
                "holds weights; name an earlier module"
            )
        for module in relink(result, replaced).modules():
            without_fast_path(module)
        return result

    def check_same_trunk(self, networks: Sequence[nn.Module]) -> None:
        """Raise ``ValueError`` if networks differ in the trunk; the message names the weight."""
        first = networks[0].state_dict()
        apart = tuple(f"{name}." for name in self.after)
        for index, network in enumerate(networks):
            for name, value in network.state_dict().items():
                if not name.startswith(apart) and not same(first[name], value):
                    raise ValueError(
                        f"{name!r} is before branch_at={self.name!r} and so shared by all members, "
                        f"but network {index} has another than network 0"
                    )

    @contextmanager
    def statistics_kept(self, network: nn.Module) -> Iterator[None]:
        """Preserve the running statistics of the trunk."""
        with ExitStack() as stack:
            for name in self.trunk:
                stack.enter_context(preserve_buffers(network.get_submodule(name)))
            yield

    def describe(self, report: Report) -> Report:
        """Return a conversion report that marks what runs once."""

        def in_trunk(name: str) -> bool:
            return any(name == root or name.startswith(f"{root}.") for root in self.trunk)

        rows = [replace(row, reason="runs once") if in_trunk(row.name) else row for row in report]
        return replace(report, rows=rows, branch_at=self.name)


def _path(parent: str, name: str) -> str:
    return f"{parent}.{name}" if parent else name


def _named(part: nn.Module, name: str) -> nn.Module:
    """Set the names of the twins within a stacked part of a network, for errors."""
    for within, twin in twins(part):
        twin.name = _path(name, within) if within else name  # type: ignore[assignment]
    return part


def _runnable(names: Collection[str], modules: Mapping[str, nn.Module]) -> Iterator[str]:
    """Yield the names; containers are replaced by the modules they hold."""
    for name in names:
        if name not in modules:
            continue  # an attribute for a module may be None
        if _never_runs(modules[name]):
            children = [_path(name, each) for each in modules[name]._modules]
            yield from _runnable(children, modules)
        else:
            yield name


def _never_runs(module: nn.Module) -> bool:
    """Return whether a module is a container without a ``forward``, as ``ModuleList`` is."""
    return type(module).forward is nn.Module.forward
