"""What conversion made of a network: module by module, what is shared and what it costs."""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from torch import nn

from batchensemble.checks import nearest
from batchensemble.convert import is_twin
from batchensemble.layers import OneByOne, Twin
from batchensemble.registry import BATCH_NORMS, find, holds_parameters, is_norm

LIBRARIES = ("torch.", "torch_", "batchensemble.")
WIDTH, WIDEST = 120, 1_000  # of a printed report, if its names fit
SENTENCE = 36  # besides its longest word
READ_BEHIND = ("weight", "bias", "in_proj_weight", "in_proj_bias")
RESHAPES = ("view", "reshape", "expand")


@dataclass(frozen=True)
class ModuleReport:
    """What conversion made of one module that holds weights.

    Attributes:
        name: in the network.
        kind: its class.
        detail: its shape.
        sharing: ``"shared"``, ``"rank_one"``, ``"independent"``, or ``"heads"`` in MIMO.
        shared: parameters that all members use.
        per_member: parameters that each member owns.
        reason: why it is shared, or why its members run one after the other; else empty.
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
    """What conversion made of a network; iterating gives its rows.

    Attributes:
        rows: one for each module that holds weights.
        warnings: what in the network may defeat conversion; ``verify`` tells for sure.
        members: how many (M).
        parameters: of all members together.
        parameters_of_one: of one plain network.
        branch_at: the module before which the network runs once; empty where there is none.
        calls_per_forward: of the network; one a member where the members run one after the other.
    """

    rows: list[ModuleReport]
    members: int
    parameters: int
    parameters_of_one: int
    warnings: list[str] = field(default_factory=list)
    branch_at: str = ""
    calls_per_forward: int = 1

    def __iter__(self) -> Iterator[ModuleReport]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> ModuleReport:
        return self.rows[index]

    @property
    def overhead(self) -> float:
        """Parameters besides those of one network, as a share of these."""
        return self.parameters / self.parameters_of_one - 1 if self.parameters_of_one else 0.0

    def __str__(self) -> str:
        """Return the table that ``batchensemble inspect`` prints."""
        from rich.console import Console

        from batchensemble.terminal import report_table

        table, console = report_table("Conversion", self), Console(width=WIDEST, no_color=True)
        console.width = max(WIDTH, console.measure(table).minimum + SENTENCE)
        with console.capture() as capture:
            console.print(table)
            if self.branch_at:
                text = f"All before {self.branch_at} runs once, on the batch as it is."
                console.print(text, soft_wrap=True, markup=False)
            if self.calls_per_forward > 1:
                text = (
                    "The members run one after the other, each with its own rows: "
                    f"{self.calls_per_forward} calls of the network instead of 1."
                )
                console.print(text, soft_wrap=True, markup=False)
            for warning in self.warnings:
                console.print(f"Warning: {warning}", soft_wrap=True, markup=False)
        return "\n".join(line.rstrip() for line in capture.get().splitlines())


def inspect_network(network: nn.Module, members: int, parameters_of_one: int) -> Report:
    """Describe a converted network."""
    return Report(
        _rows(network, "", members, set(), set()),
        members,
        count_parameters(network),
        parameters_of_one,
        list(_warnings(network)),
    )


def count_parameters(network: nn.Module) -> int:
    """Return how many parameters ``network`` has, a shared one counted once."""
    return sum(parameter.numel() for parameter in network.parameters())


def _rows(
    module: nn.Module, name: str, members: int, seen: set[nn.Module], counted: set[nn.Parameter]
) -> list[ModuleReport]:
    """Describe ``module`` and all beneath it that is not yet ``seen``, a twin as one row.

    A parameter that two modules share is counted with the first.
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
        names = getattr(parent, "own", ())
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
    """Return the shape of a layer in a few characters."""
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
    """Yield what conversion cannot follow, mostly from the source of the user's own modules."""
    yield from _shared_statistics(network)
    trees: dict[type[nn.Module], ast.AST] = {}
    seen = set()
    for name, module in network.named_modules():
        kind = type(module)
        if is_twin(module) or f"{kind.__module__}.".startswith(LIBRARIES):
            continue
        if kind not in trees:
            trees[kind] = _source(kind)
        for line, text in _suspicious(module, trees[kind]):
            if (kind, line, text) not in seen:
                seen.add((kind, line, text))
                place = f"{name or 'the network'} ({kind.__name__}), line {line} of its forward"
                yield f"{place}: {text}"


def _shared_statistics(network: nn.Module) -> Iterator[str]:
    """Find batch norms that all members share behind layers that are their own."""
    apart = False
    for name, module in network.named_modules():
        apart = apart or is_twin(module)
        if apart and isinstance(module, BATCH_NORMS):
            yield (
                f"{name} ({type(module).__name__}) is shared: in training it normalises the rows "
                "of all members together, which no member alone does"
            )


def _suspicious(module: nn.Module, tree: ast.AST) -> Iterator[tuple[int, str]]:
    around = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in READ_BEHIND:
            owner = _submodule(module, ast.unparse(node.value))
            apart = owner is not None and is_twin(owner) and not getattr(owner, "for_all", "")
            if apart and not _asks_only(node, around):
                yield (
                    node.lineno,
                    f"reads {ast.unparse(node)} itself, which is not the weight of any member; "
                    "exclude that module, or call it",
                )
        elif isinstance(node, ast.Call):
            yield from _fixed_batch(node)


def _source(kind: type[nn.Module]) -> ast.AST:
    """Return the syntax of the ``forward`` of a class; of nothing where there is no source."""
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(kind.forward)))
    except (OSError, TypeError, SyntaxError):
        return ast.Module([], [])


def _submodule(module: nn.Module, source: str) -> nn.Module | None:
    """Return the module that ``self.layers[0].head`` is, if the text says so much."""
    path = source.replace("[", ".").replace("]", "").split(".")
    try:
        return module.get_submodule(".".join(path[1:])) if path[1:] else None
    except AttributeError:
        return None


def _asks_only(node: ast.AST, around: dict[ast.AST, ast.AST]) -> bool:
    """Tell whether the source asks what kind of tensor a weight is, and does not use it."""
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


def find_network(path: str) -> nn.Module:
    """Return the network that ``package.module:name`` gives: a module, or a function that makes it.

    For a path that the user gave: modules beside the user are found, and what is there runs.

    Raises:
        ImportError: there is no such module, or it fails.
        ValueError: ``path`` is not of that form, or there is no such name.
        TypeError: it is no network, or a function that takes arguments.
    """
    module_name, colon, name = path.partition(":")
    if not (module_name and colon and name):
        raise ValueError(f"give a network as package.module:function, got {path!r}")
    if "" not in sys.path:
        sys.path.insert(0, "")  # as ``python -m`` does: the modules beside the user
    return network_of(path, attribute_of(imported(module_name), name)[-1])


def imported(module_name: str) -> ModuleType:
    """Return a module.

    Raises:
        ImportError: there is none, or it fails.
    """
    try:
        return importlib.import_module(module_name)
    except ImportError:
        raise
    except Exception as error:
        raise ImportError(f"{module_name} fails with {type(error).__name__}: {error}") from error


def attribute_of(module: ModuleType, name: str) -> list[Any]:
    """Return what ``name``, with points between, leads to in a module, and what is on the way.

    Raises:
        ValueError: there is no such name.
    """
    way: list[Any] = [module]
    for part in name.split("."):
        if not hasattr(way[-1], part):
            raise ValueError(
                f"{module.__name__} has no {name!r}"
                f"{nearest(part, dir(way[-1])) or '; check the name'}"
            )
        way.append(getattr(way[-1], part))
    return way


def network_of(path: str, found: Any) -> nn.Module:
    """Return a network that was found, or that a function which was found makes.

    Raises:
        TypeError: it is no network, or a function that takes arguments.
    """
    if isinstance(found, nn.Module):
        return found
    try:
        network = found()
    except TypeError as error:
        raise TypeError(f"{path} must work without arguments: {error}") from error
    if not isinstance(network, nn.Module):
        raise TypeError(f"{path} must return a torch.nn.Module, got {type(network).__name__}")
    return network
