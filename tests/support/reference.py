"""The slow way: each member's plain layer alone, its weights merged by the papers' formulas.

Nothing here calls the twins' own arithmetic, so that a test which compares the two has two sources.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from batchensemble.layers.registry import find

MEMBERS = 3

OPTIONS: dict[str, dict[str, Any]] = {
    "multiplicative": {},
    "multiplicative, activations bent": {"space": "activation"},
    "multiplicative, weights bent": {"space": "weight"},
    "multiplicative, shared bias": {"bias": "shared"},
    "additive": {"mode": "additive"},
    "additive, rank 3, alpha, shared bias": {
        "mode": "additive",
        "rank": 3,
        "alpha": 1.5,
        "bias": "shared",
    },
}


@dataclass(frozen=True)
class Case:
    """A plain layer and what one member's batch of inputs is.

    Attributes:
        make: returns the layer; draws from torch's generator.
        inputs: returns the arguments of one member for a size of batch.
        axes: of the rows in each argument, nested as the arguments are.
        output_axes: the same for what the layer returns.
        matrices: the weights that are bent.
        inputs_first: whether the first axis of the weights is the inputs'.
        tensors: returns a member's plain tensors from the twin, where names do not tell.
    """

    make: Callable[[], nn.Module]
    inputs: Callable[[int], tuple[Any, ...]]
    axes: Any = 0
    output_axes: Any = 0
    matrices: Sequence[str] = ("weight",)
    inputs_first: bool = False
    tensors: Callable[[nn.Module, int, dict[str, Any]], dict[str, Tensor]] | None = None

    def plain_tensors(
        self, layer: nn.Module, twin: Any, index: int, options: dict[str, Any]
    ) -> dict[str, Tensor]:
        """Return what the plain layer of a member has, differentiable in the twin's tensors."""
        if self.tensors is not None:
            return self.tensors(twin, index, options)
        result = {}
        for name, plain in (*layer.named_parameters(), *layer.named_buffers()):
            value = getattr(twin, name)
            if name in self.matrices:
                prefix = "" if name == "weight" else f"{name}_"
                r, s = getattr(twin, f"{prefix}r")[index], getattr(twin, f"{prefix}s")[index]
                groups = getattr(layer, "groups", 1)
                value = merged(value, r, s, options, self.inputs_first, groups)
            elif value.dim() > plain.dim():
                value = value[index]
            result[name] = value
        return result


def merged(
    weight: Tensor,
    r: Tensor,
    s: Tensor,
    options: dict[str, Any],
    inputs_first: bool = False,
    groups: int = 1,
) -> Tensor:
    """Return a member's weight: ``W ∘ (s rᵀ)``, or ``W + alpha / rank Sᵀ R``."""
    first, second = (r, s) if inputs_first else (s, r)
    if options.get("mode") == "additive":
        rank = options.get("rank", 1)
        added = sum(torch.outer(first[k], second[k]) for k in range(rank))
        return weight + options.get("alpha", rank) / rank * added.view_as(weight)
    rows = []
    for k, row in enumerate(weight):
        own = second.chunk(groups)[k * groups // len(weight)]
        rows.append(first[k] * (row.movedim(0, -1) * own).movedim(-1, 0))
    return torch.stack(rows)


def build(layer: nn.Module, **options: Any) -> Any:
    """Return the rank-one twin of a layer, all of its tensors drawn anew."""
    factory = find(layer)[0]
    assert factory is not None
    return drawn(factory(layer, MEMBERS, **options))


def drawn(module: nn.Module) -> Any:
    """Fill all tensors at random, in place: no two members and no two entries alike."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
        for name, buffer in module.named_buffers():
            if buffer.is_floating_point():
                buffer.normal_()
                if name.endswith("running_var"):
                    buffer.abs_().add_(0.5)
    return module


def parts_of(case: Case, batch: int, members: int = MEMBERS) -> list[tuple[Any, ...]]:
    """Return each member's own arguments, floating ones to be differentiated."""
    parts = [case.inputs(batch) for _ in range(members)]
    for each in tensors_in(parts):
        if each.is_floating_point():
            each.requires_grad_()
    return parts


def joined(parts: Sequence[Any], axes: Any) -> Any:
    """Return nested values of the members as rows."""
    first = parts[0]
    if isinstance(first, (tuple, list)):
        inner = axes if isinstance(axes, (tuple, list)) else [axes] * len(first)
        return tuple(
            joined(each, axis) for each, axis in zip(zip(*parts, strict=True), inner, strict=True)
        )
    return torch.cat(list(parts), axes) if isinstance(first, Tensor) else first


def tensors_in(value: Any) -> list[Tensor]:
    """Return the tensors of nested tuples and lists, in order."""
    if isinstance(value, (tuple, list)):
        return [tensor for each in value for tensor in tensors_in(each)]
    return [value] if isinstance(value, Tensor) else []


def assert_same(one: Any, other: Any) -> None:
    """Compare nested outputs."""
    ones, others = tensors_in(one), tensors_in(other)
    assert len(ones) == len(others) > 0
    for a, b in zip(ones, others, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9, equal_nan=True)


def check(
    case: Case, layer: nn.Module, twin: Any, options: dict[str, Any], batch: int, **settings: Any
) -> None:
    """Compare a twin with the loop over merged plain layers, and with its own members.

    Outputs, gradients of all inputs and parameters, and running statistics afterwards.
    """
    parts = parts_of(case, batch)
    plain = [case.plain_tensors(layer, twin, index, options) for index in range(MEMBERS)]
    buffers = [name for name, _ in layer.named_buffers()]
    for tensors in plain:  # the loop must not write into the twin's running statistics
        tensors.update({name: tensors[name].clone() for name in buffers})
    members = [twin.member(index) for index in range(MEMBERS)]
    layer.train(twin.training)

    loop = [
        functional_call(layer, tensors, part, settings)
        for tensors, part in zip(plain, parts, strict=True)
    ]
    alone = [member(*part, **settings) for member, part in zip(members, parts, strict=True)]
    outputs = twin(*joined(parts, case.axes), **settings)

    assert_same(outputs, joined(loop, case.output_axes))
    assert_same(outputs, joined(alone, case.output_axes))
    for index, tensors in enumerate(plain):
        for name in buffers:
            torch.testing.assert_close(getattr(twin, name)[index], tensors[name])
            torch.testing.assert_close(members[index].get_buffer(name), tensors[name])
    variables = [each for each in tensors_in(parts) if each.requires_grad]
    variables += list(twin.parameters())
    assert_same(gradients(outputs, variables), gradients(joined(loop, case.output_axes), variables))


def gradients(outputs: Any, variables: list[Tensor]) -> list[Tensor]:
    """Return the gradients of a sum in which every entry of the outputs has its own weight."""
    total = sum(
        (each * torch.linspace(0.5, 1.5, each.numel()).view_as(each)).sum()
        for each in tensors_in(outputs)
        if each.requires_grad
    )
    found = torch.autograd.grad(total, variables, allow_unused=True)
    return [
        torch.zeros_like(variable) if grad is None else grad
        for grad, variable in zip(found, variables, strict=True)
    ]


def gradcheck(case: Case, twin: Any, batch: int = 2, **settings: Any) -> bool:
    """Check a twin's backward against finite differences, in all inputs and parameters.

    They go as one vector, along which the differences need two calls of the twin in all.
    """
    rows = joined(parts_of(case, batch), case.axes)
    moving = [each for each in tensors_in(rows) if each.is_floating_point()]
    parameters = dict(twin.named_parameters())
    start = [each.detach() for each in (*moving, *parameters.values())]

    def run(vector: Tensor) -> Tensor:
        pieces = iter(vector.split([each.numel() for each in start]))
        values = iter([next(pieces).view_as(each) for each in start])
        arguments = _refilled(rows, values)
        tensors = dict(zip(parameters, values, strict=True))
        outputs = functional_call(twin, tensors, arguments, settings)
        return torch.cat([each.flatten() for each in tensors_in(outputs) if each.requires_grad])

    vector = torch.cat([each.flatten() for each in start]).requires_grad_()
    return torch.autograd.gradcheck(run, vector, fast_mode=True)


def _refilled(value: Any, given: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_refilled(each, given) for each in value)
    floating = isinstance(value, Tensor) and value.is_floating_point()
    return next(given) if floating else value
