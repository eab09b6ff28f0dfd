"""The conversion report: for each module, how its weights are shared, and their number."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import nn

from batchensemble.core.printed_tables import terminal_table
from batchensemble.ensembles.conversion.convert import is_twin
from batchensemble.layers import OneByOne, Twin
from batchensemble.layers.registry import ALL_BATCH_NORMS, find, holds_parameters, is_norm

if TYPE_CHECKING:
    from rich.table import Table

KNOWN_LIBRARIES = ("torch.", "torch_", "batchensemble.")
WIDTH, WIDEST = 120, 1_000  # of a printed report, if its names fit
SENTENCE = 36  # besides its longest word
READ_BEHIND = ("weight", "bias", "in_proj_weight", "in_proj_bias")
RESHAPES = ("view", "reshape", "expand")


@dataclass(frozen=True)
class ModuleReport:
    """One row of the report: a module that holds weights.

    Attributes:
        name: its name in the network.
        kind: name of its class.
        detail: its shape as text, such as ``"3 → 64, 7x7"``.
        sharing: ``"shared"``, ``"rank_one"``, ``"independent"``, or ``"heads"`` in MIMO.
        shared: number of parameters that all members share.
        per_member: number of parameters of each member.
        reason: why it is shared, or why its members run one after the other; otherwise empty.
    """

    name: str
    kind: str
    detail: str
    sharing: str
    shared: int
    per_member: int
    reason: str = ""


@dataclass(frozen=True)
class Report:
    """The result of a conversion; iterating yields its rows.

    Attributes:
        rows: one row for each module that holds weights.
        warnings: code that conversion may not handle correctly; ``verify`` gives certainty.
        members: number of members (M).
        parameters: number of parameters of the ensemble.
        parameters_of_one: number of parameters of one plain network.
        branch_at: name of the module at which the ensemble begins; empty without a trunk.
        calls_per_forward: number of calls of the network in one forward pass: 1, or M if the
            members run one after the other.
        trainable: number of parameters that are trained, the others being frozen; by default all.
    """

    rows: list[ModuleReport]
    members: int
    parameters: int
    parameters_of_one: int
    warnings: list[str] = field(default_factory=list)
    branch_at: str = ""
    calls_per_forward: int = 1
    trainable: int | None = None

    def __iter__(self) -> Iterator[ModuleReport]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> ModuleReport:
        return self.rows[index]

    @property
    def overhead(self) -> float:
        """Number of additional parameters, relative to one network."""
        return self.parameters / self.parameters_of_one - 1 if self.parameters_of_one else 0.0

    def __str__(self) -> str:
        """Return the table that ``batchensemble inspect`` prints."""
        from rich.console import Console

        table, console = report_table("Conversion", self), Console(width=WIDEST, no_color=True)
        console.width = max(WIDTH, console.measure(table).minimum + SENTENCE)
        with console.capture() as capture:
            console.print(table)
            if self.trainable is not None and self.trainable < self.parameters:
                share = self.trainable / self.parameters
                text = f"trainable: {self.trainable:,} of {self.parameters:,} ({100 * share:.2f} %)"
                console.print(text, soft_wrap=True, markup=False)
            if self.branch_at:
                text = f"Modules before {self.branch_at} run once for all members."
                console.print(text, soft_wrap=True, markup=False)
            if self.calls_per_forward > 1:
                text = (
                    "The members run one after the other, each with its own rows: "
                    f"{self.calls_per_forward} forward passes instead of 1."
                )
                console.print(text, soft_wrap=True, markup=False)
            for warning in self.warnings:
                console.print(f"Warning: {warning}", soft_wrap=True, markup=False)
        return "\n".join(line.rstrip() for line in capture.get().splitlines())


def report_table(name: str, report: Report) -> Table:
    """Return the report as a table for the terminal."""
    members, total = report.members, report.parameters
    times = total / report.parameters_of_one if report.parameters_of_one else 1.0
    table = terminal_table(
        f"{name}: {members} member{'s' if members > 1 else ''}, {total:,} parameters, "
        f"{times:.2f} times one network"
    )
    for heading in ("module", "layer", "shape", "sharing"):
        table.add_column(heading, no_wrap=True)
    for heading in ("shared", "each member", "share of all"):
        table.add_column(heading, justify="right", no_wrap=True)
    with_reasons = any(row.reason for row in report)
    if with_reasons:
        table.add_column("because")
    for row in report:
        everything = row.shared + members * row.per_member
        reason = [row.reason] if with_reasons else []
        table.add_row(
            row.name or "(the network)",
            row.kind,
            row.detail,
            row.sharing,
            f"{row.shared:,}",
            f"{row.per_member:,}",
            f"{everything / total:.1%}",
            *reason,
        )
    return table


def inspect_network(network: nn.Module, members: int, parameters_of_one: int) -> Report:
    """Return the report of a converted network.

    Args:
        network: a converted network.
        members: number of members (M).
        parameters_of_one: number of parameters of one plain network.
    """
    return Report(
        _rows(network, "", members, set(), set()),
        members,
        count_parameters(network),
        parameters_of_one,
        list(_warnings(network)),
        trainable=count_parameters(network, trained=True),
    )


def count_parameters(network: nn.Module, *, trained: bool = False) -> int:
    """Return the number of parameters of ``network``, counting shared ones once.

    Args:
        network: any network.
        trained: whether to count only those that are trained, not frozen ones.
    """
    parameters = network.parameters()
    return sum(each.numel() for each in parameters if each.requires_grad or not trained)


def _rows(
    module: nn.Module, name: str, members: int, seen: set[nn.Module], counted: set[nn.Parameter]
) -> list[ModuleReport]:
    """Return a row for each module that is not yet ``seen``; a twin is one row.

    A parameter of two modules is counted in the first.
    """
    if module in seen:
        return []
    seen.add(module)
    if is_twin(module):
        return [_twin_row(module, name, members, counted)]
    rows = []
    if isinstance(module, OneByOne):
        return _rows(module.module, name, members, seen, counted)
    if holds_parameters(module):
        shared = _count_new(module.parameters(recurse=False), counted)
        kind = type(module).__name__
        reason = _why_shared(module)
        rows.append(ModuleReport(name, kind, shape_of(module), "shared", shared, 0, reason))
    for child_name, child in module.named_children():
        path = f"{name}.{child_name}" if name else child_name
        rows += _rows(child, path, members, seen, counted)
    return rows


def _twin_row(twin: nn.Module, name: str, members: int, counted: set[nn.Parameter]) -> ModuleReport:
    plain: Any = twin.shell if isinstance(twin, Twin) else next(twin.children())[0]  # type: ignore[index]
    own = 0
    shared = []
    for parent in twin.modules():
        names = parent.own if isinstance(parent, Twin) else ()
        for each, parameter in parent.named_parameters(recurse=False):
            if each not in names and twin.sharing != "independent":
                shared.append(parameter)
            else:
                own += _count_new([parameter], counted)
    reason = ""
    if isinstance(twin, Twin) and twin.for_all:
        roles = twin.roles()
        counts = [getattr(twin, each).numel() for each in twin.own if roles[each] != "fast"]
        used = _count_new(shared, counted) + sum(counts) // members
        kind, shape = type(plain).__name__, shape_of(plain)
        return ModuleReport(name, kind, shape, "shared", used, 0, twin.for_all)
    if "forward" in twin.__dict__:
        reason = "its own forward, members one by one"
    elif twin.sharing == "shared":
        reason = "norm='shared'; the statistics are each member's own"
    return ModuleReport(
        name,
        type(plain).__name__,
        shape_of(plain),
        str(twin.sharing),
        _count_new(shared, counted),
        own // members,
        reason,
    )


def _count_new(parameters: Any, counted: set[nn.Parameter]) -> int:
    new = [parameter for parameter in parameters if parameter not in counted]
    counted.update(new)
    return sum(parameter.numel() for parameter in new)


def _why_shared(module: nn.Module) -> str:
    if find(module)[0] is not None:
        return "norm='shared' or a rule" if is_norm(module) else "by a rule"
    names = ", ".join(name for name, _ in module.named_parameters(recurse=False))
    return f"held by the module itself: {names}"


def shape_of(module: Any) -> str:
    """Return the shape of a layer as short text."""
    if hasattr(module, "in_features") and hasattr(module, "out_features"):
        return f"{module.in_features} → {module.out_features}"
    if hasattr(module, "in_channels") and hasattr(module, "kernel_size"):
        kernel = "x".join(str(size) for size in module.kernel_size)
        groups = f", {module.groups} groups" if module.groups != 1 else ""
        return f"{module.in_channels} → {module.out_channels}, {kernel}{groups}"
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        return f"{module.num_embeddings} → {module.embedding_dim}"
    if isinstance(module, nn.RNNBase):
        layers = f", {module.num_layers} layers" if module.num_layers > 1 else ""
        both = ", both ways" if module.bidirectional else ""
        return f"{module.input_size} → {module.hidden_size}{layers}{both}"
    if isinstance(module, nn.MultiheadAttention):
        return f"{module.embed_dim}, {module.num_heads} heads"
    shapes = [tuple(parameter.shape) for parameter in module.parameters(recurse=False)]
    texts = dict.fromkeys("x".join(map(str, shape)) or "1" for shape in shapes)
    return ", ".join([*texts][:3])


def _warnings(network: nn.Module) -> Iterator[str]:
    """Yield warnings about code that conversion may not handle, from the source of modules."""
    yield from _shared_statistics(network)
    trees: dict[type[nn.Module], ast.AST] = {}
    seen = set()
    for name, module in network.named_modules():
        kind = type(module)
        if is_twin(module) or f"{kind.__module__}.".startswith(KNOWN_LIBRARIES):
            continue
        if kind not in trees:
            trees[kind] = _source(kind)
        for line, text in _suspicious(module, trees[kind]):
            if (kind, line, text) not in seen:
                seen.add((kind, line, text))
                place = f"{name or 'the network'} ({kind.__name__}), line {line} of its forward"
                yield f"{place}: {text}"


def _shared_statistics(network: nn.Module) -> Iterator[str]:
    """Find batch norms that all members share after layers of their own."""
    apart = False
    for name, module in network.named_modules():
        apart = apart or is_twin(module)
        if apart and isinstance(module, ALL_BATCH_NORMS):
            yield (
                f"{name} ({type(module).__name__}) is shared: in training it normalises the rows "
                "of all members together, which no member alone does"
            )


def _suspicious(module: nn.Module, tree: ast.AST) -> Iterator[tuple[int, str]]:
    around = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in READ_BEHIND:
            owner = _submodule(module, ast.unparse(node.value))
            apart = (
                owner is not None
                and is_twin(owner)
                and not (isinstance(owner, Twin) and owner.for_all)
            )
            if apart and not _asks_only(node, around):
                yield (
                    node.lineno,
                    f"reads {ast.unparse(node)} itself, which is not the weight of any member; "
                    "exclude that module, or call it",
                )
        elif isinstance(node, ast.Call):
            yield from _fixed_batch(node)


def _source(kind: type[nn.Module]) -> ast.AST:
    """Return the syntax tree of the ``forward`` of a class; empty without source code."""
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(kind.forward)))
    except (OSError, TypeError, SyntaxError):
        return ast.Module([], [])


def _submodule(module: nn.Module, source: str) -> nn.Module | None:
    """Return the module of an expression such as ``self.layers[0].head``, if there is one."""
    path = source.replace("[", ".").replace("]", "").split(".")
    try:
        return module.get_submodule(".".join(path[1:])) if path[1:] else None
    except AttributeError:
        return None


def _asks_only(node: ast.AST, around: dict[ast.AST, ast.AST]) -> bool:
    """Return whether code only reads the type or shape of a weight, not its values."""
    parent = around[node]
    if isinstance(parent, ast.Attribute):
        return parent.attr in ("dtype", "device", "shape", "ndim", "requires_grad", "size", "dim")
    if isinstance(parent, ast.Call):
        return ast.unparse(parent.func) in ("isinstance", "len", "torch.is_tensor")
    return isinstance(parent, ast.Compare) and isinstance(parent.ops[0], (ast.Is, ast.IsNot))


def _fixed_batch(call: ast.Call) -> Iterator[tuple[int, str]]:
    """Find a reshape to a fixed number of rows: ``x.view(32, -1)``."""
    if not isinstance(call.func, ast.Attribute) or call.func.attr not in RESHAPES or not call.args:
        return
    sizes = call.args
    if isinstance(sizes[0], (ast.Tuple, ast.List)):
        sizes = sizes[0].elts
    first = sizes[0] if len(sizes) > 1 else None
    if isinstance(first, ast.Constant) and isinstance(first.value, int) and first.value > 1:
        yield (
            call.lineno,
            f"{ast.unparse(call)} fixes the first axis, and the rows are members times examples",
        )
