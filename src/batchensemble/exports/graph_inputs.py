"""The inputs of a graph: the tensors of an example by name, and which axis of each is the batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from batchensemble.core.inputs import Inputs, Nested, as_inputs
from batchensemble.core.pytree import Path, leaves, map_leaves
from batchensemble.data.sources import open_inputs
from batchensemble.data.tables.column_names import ColumnNames
from batchensemble.ensembles import Ensemble
from batchensemble.ensembles.checks import place_of
from batchensemble.ensembles.conversion.tiling import Arguments, Tiling

AxisNames = Mapping[str, Mapping[int, str]]
MOST_EXAMPLES = 64  # of the given ones that are looked at
FEWEST_EXAMPLES = 3  # a tracer takes a size of 0 or 1 for a constant
BATCH_AXIS = "batch"  # the name of its axis
NOISE_SHARE = 0.1  # of a number, by which examples of a check differ


@dataclass(frozen=True)
class GraphInputs:
    """The arguments of a network as a list of tensors.

    Attributes:
        arguments: an example of them; what is no tensor becomes a constant of the graph.
        tiling: which of their axes is the batch.
        names: of the tensors, in the order of the arguments.
        axes: names of the axes of each tensor whose length may vary, the batch among them.
        size: how many examples are traced: a number that no other axis of the inputs has, so that
            axes are told apart by it.
    """

    arguments: Arguments
    tiling: Tiling
    names: tuple[str, ...]
    axes: tuple[dict[int, str], ...]
    size: int

    @classmethod
    def of(cls, model: Ensemble, example: Any, dynamic: AxisNames | None = None) -> GraphInputs:
        """Return the inputs for an example.

        Args:
            model: the ensemble.
            example: what its network takes, for any number of examples.
            dynamic: further axes whose length may vary: by name of an input, a mapping from the
                axis to a name.

        Raises:
            ValueError: a packed sequence is among them, or ``dynamic`` names no input.
        """
        inputs = read_example(model, example)
        args, kwargs = ((inputs,), {}) if isinstance(inputs, Tensor) else inputs.arguments({})
        arguments = Arguments.of(model.plain_network(), args, kwargs)
        tiling = Tiling.of(arguments, model.members, model.batch_axis, False, model.untiled)
        names, axes = _names_and_axes(arguments, tiling, dynamic or {})
        sizes = {size for each in tensors_among(arguments) for size in each.shape}
        many = model.members  # of which a batch must be no multiple; every number is one of 1
        own = next(n for n in count(FEWEST_EXAMPLES) if n not in sizes and (n % many or many == 1))
        return cls(arguments, tiling, names, axes, own)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors that are traced, in the order of the names."""
        return tensors_among(self.resized(self.size))

    def filled(self, tensors: Sequence[Any]) -> Arguments:
        """Return the arguments with other tensors."""
        given = iter(tensors)

        def one(_: Any, leaf: Any) -> Any:
            return next(given) if isinstance(leaf, Tensor) else leaf

        return self.arguments.replaced(map_leaves(one, self.arguments.values))

    def equate(self, tensors: Sequence[Tensor]) -> None:
        """Tell a tracer that axes of one name are of one length, which comparisons then know."""
        first: dict[str, int] = {}
        for tensor, axes in zip(tensors, self.axes, strict=True):
            for axis, name in axes.items():
                torch._check(tensor.shape[axis] == first.setdefault(name, tensor.shape[axis]))

    def resized(self, examples: int) -> Arguments:
        """Return the example with another number of examples.

        Where more are asked for than were given, their numbers are changed a little, since a graph
        that mixed equal examples could not be told from one that does not.
        """
        found = self.tiling.resized(self.arguments, examples)
        generator = torch.Generator().manual_seed(0)

        def varied(path: Path, leaf: Any) -> Any:
            axis = self.tiling.axis_of(path, self._given[path])
            if axis is None or not leaf.is_floating_point() or examples <= self.tiling.batch:
                return leaf
            changed = 1 + NOISE_SHARE * torch.randn(leaf.shape, generator=generator)
            changed.narrow(axis, 0, self.tiling.batch).fill_(1)
            return leaf * changed.to(leaf)

        return found.replaced(map_leaves(varied, found.values))

    @cached_property
    def _given(self) -> dict[Path, Any]:
        return dict(leaves(self.arguments.values))

    def shorter(self, arguments: Arguments) -> Arguments | None:
        """Return arguments with one less along each named axis; ``None`` if only the batch is."""
        axes = dict(zip(self.names, self.axes, strict=True))
        if all(set(each.values()) <= {BATCH_AXIS} for each in self.axes):
            return None

        def cut(path: Path, leaf: Any) -> Any:
            for axis, name in axes.get(input_name(path), {}).items():
                if name != BATCH_AXIS and leaf.shape[axis] > 1:
                    leaf = leaf.narrow(axis, 0, leaf.shape[axis] - 1)
            return leaf

        return arguments.replaced(map_leaves(cut, arguments.values))

    def dynamic_shapes(self) -> tuple[dict[int, Any], ...]:
        """Return which axes may vary, as ``torch.export`` takes it.

        From 2 on, since a tracer would ask of every sum and product whether it is that of a batch
        of one. The graph is the same for one, which the check of the file confirms.
        """
        known = {
            name: torch.export.Dim(name, min=2) for axes in self.axes for name in axes.values()
        }
        return tuple({axis: known[name] for axis, name in axes.items()} for axes in self.axes)


def _names_and_axes(
    arguments: Arguments, tiling: Tiling, dynamic: AxisNames
) -> tuple[tuple[str, ...], tuple[dict[int, str], ...]]:
    names, axes = [], []
    for path, leaf in leaves(arguments.values):
        if isinstance(leaf, PackedSequence):
            raise ValueError(
                f"{path[0]!r} is a PackedSequence, which no file can take as an input; let the "
                "network pack a padded tensor and its lengths itself"
            )
        if isinstance(leaf, Tensor):
            axis, name = tiling.axis_of(path, leaf), input_name(path)
            names.append(name)
            axes.append({**dynamic.get(name, {}), **({} if axis is None else {axis: BATCH_AXIS})})
    unknown = set(dynamic) - set(names)
    if unknown:
        raise ValueError(
            f"dynamic names {min(unknown)!r}, which is no input (inputs: {', '.join(names)})"
        )
    return tuple(names), tuple(axes)


def input_name(path: Path) -> str:
    """Return the name of an input from its place among the arguments."""
    return ".".join(map(str, path))


def tensors_among(arguments: Arguments) -> tuple[Tensor, ...]:
    """Return the tensors among arguments, in their order."""
    return tuple(leaf for _, leaf in leaves(arguments.values) if isinstance(leaf, Tensor))


def read_example(model: Ensemble, example: Any) -> Inputs:
    """Return an example as the network takes it, at most 64 rows of a table or an array.

    Raises:
        TypeError, ValueError: it cannot be read.
    """
    if isinstance(example, Nested):
        return example
    parts = [leaf for _, leaf in leaves(example)]
    if any(isinstance(each, Tensor) for each in parts):
        return as_inputs(example)
    return next(
        iter(open_inputs(example, MOST_EXAMPLES, known=ColumnNames.of(model), **place_of(model)))
    )
