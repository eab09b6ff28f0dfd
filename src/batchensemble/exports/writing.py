"""From a plan to a file: traced in the best way that works, checked, and only then written."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from batchensemble.core.atomic_files import write_whole
from batchensemble.ensembles import Ensemble
from batchensemble.ensembles.conversion.tiling import Arguments
from batchensemble.exports.checking import (
    CHECKED_BATCHES,
    TOLERANCE,
    ExportError,
    differences,
    expected_values,
    raw_values,
    refuse_differences,
    torch_outputs,
    torch_prediction,
)
from batchensemble.exports.graph_inputs import GraphInputs, tensors_among
from batchensemble.exports.member_graph import OF_COPIES, MemberGraph, Way, WeightLayout, ways
from batchensemble.exports.metadata import metadata_of
from batchensemble.exports.onnx_file import (
    METADATA,
    OnnxRunner,
    as_numpy,
    content_of,
    quietly,
    trace_onnx,
    trace_program,
    write_metadata,
)
from batchensemble.exports.prediction_graph import AnswerRule, PredictionGraph
from batchensemble.exports.quantising import Quantisation, quantised
from batchensemble.exports.result import Exported
from batchensemble.exports.subject import TableExample
from batchensemble.layers.modes import evaluating
from batchensemble.losses import EnsembleLoss

LONGEST_ERROR = 400  # characters of another library's error
TRIED: dict[Way, str] = {
    "together": "all members in one pass",
    "in turn": "one member after the other",
    "copies": "members with weights of their own",
    "code of copies": "their code instead of a trace",
}


@dataclass(frozen=True)
class ExportPlan:
    """What an export writes.

    Attributes:
        model: the ensemble.
        inputs: the inputs of the graph.
        prediction: what becomes of the outputs; ``None``: nothing.
        names: of the outputs.
        loss: that defines the prediction.
        levels: of quantiles.
        rule: when to answer.
        extra: further metadata.
        table: the example, if the file takes the columns of a table.
        notes: what the file does not do, in sentences.
        tolerance: the largest difference to torch that is allowed.
        quantise: how the weights are rounded, if at all.
    """

    model: Ensemble
    inputs: GraphInputs
    prediction: PredictionGraph | None
    names: tuple[str, ...]
    loss: EnsembleLoss
    levels: tuple[float, ...] = ()
    rule: AnswerRule | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    table: TableExample | None = None
    notes: tuple[str, ...] = ()
    tolerance: float = TOLERANCE
    quantise: Quantisation | None = None

    def graph(self, way: Way) -> MemberGraph:
        """Return what is traced, its members running in one of the ways."""
        plain = self.model if self.model.calibrator is None else self.model.uncalibrated()
        return MemberGraph(plain, self.inputs, way, self.prediction, self.names, self.rule)

    def metadata(self, names: tuple[str, ...]) -> str:
        """Return the metadata of the file."""
        return metadata_of(
            self.model, self.loss, self.prediction, names, self.levels, self.rule, self.extra
        )


class ProgramRunner:
    """A ``.pt2`` file that runs in torch.

    Args:
        content: the bytes of the file.
        inputs: the inputs of the graph.
    """

    def __init__(self, content: bytes, inputs: GraphInputs) -> None:
        with quietly():
            self.program: Any = torch.export.load(io.BytesIO(content)).module()
        self.runtime = f"torch {torch.__version__}"
        shapes = [
            [axes.get(axis, str(size)) for axis, size in enumerate(tensor.shape)]
            for tensor, axes in zip(inputs.tensors, inputs.axes, strict=True)
        ]
        self.inputs = {
            name: f"{str(tensor.dtype).removeprefix('torch.')} [{', '.join(shape)}]"
            for name, tensor, shape in zip(inputs.names, inputs.tensors, shapes, strict=True)
        }
        found = self.program(*inputs.tensors)
        self.outputs = {
            name: f"{str(each.dtype).removeprefix('torch.')} "
            f"[{', '.join(['batch', *map(str, each.shape[1:])])}]"
            for name, each in found.items()
        }

    def __call__(self, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs by name."""
        with torch.no_grad():
            found = self.program(*map(torch.from_numpy, values.values()))
        return {name: as_numpy(each) for name, each in found.items()}


class _ByName(torch.nn.Module):
    """A graph that returns its outputs by name."""

    def __init__(self, graph: MemberGraph) -> None:
        super().__init__()
        self.members = graph

    def forward(self, *tensors: torch.Tensor) -> dict[str, torch.Tensor]:
        return dict(zip(self.members.names, self.members(*tensors), strict=True))


def write_export(plan: ExportPlan, path: Path, layout: WeightLayout) -> Exported:
    """Trace, check and write.

    Raises:
        ExportError: no way of tracing gives a file that agrees with torch.
    """
    failures: dict[str, list[str]] = {}  # the ways that failed, by what was wrong
    with evaluating(plan.model):
        for way in ways(plan.model, layout):
            try:
                content, runner = traced(plan, way, path.suffix)
                found = check(plan, runner)
            except ExportError as error:
                failures.setdefault(str(error), []).append(TRIED[way])
            except Exception as error:  # of many kinds, of libraries
                failures.setdefault(_first_words(error), []).append(TRIED[way])
            else:
                break
        else:
            each = [f"{' and '.join(tried)}: {wrong}" for wrong, tried in failures.items()]
            raise ExportError(
                f"the model cannot be exported. Tried {'; '.join(each)}. "
                "torch.export of model.member(0) tells whether the network itself can be traced"
            )
        if plan.quantise is not None:
            content = quantised(content)
            runner = OnnxRunner(content)
            found = all_differences(plan, runner)
    write_whole(path, content)
    kind = "merged" if way in OF_COPIES else "shared"
    return Exported(
        path,
        kind,
        len(content),
        runner.inputs,
        runner.outputs,
        runner.runtime,
        found,
        plan.notes,
        plan.quantise,
    )


def traced(plan: ExportPlan, way: Way, suffix: str) -> tuple[bytes, Any]:
    """Return the bytes of a file, and what runs them."""
    graph = plan.graph(way)
    if suffix == ".pt2":
        content = _program(plan, graph)
        return content, ProgramRunner(content, plan.inputs)
    proto = trace_onnx(graph, plan.inputs, optimise=way in OF_COPIES)
    if plan.table is not None:
        plan.table.put_before(proto, plan.inputs.names[0])
    write_metadata(proto, plan.metadata(graph.names))
    content = content_of(proto)
    return content, OnnxRunner(content)


def _program(plan: ExportPlan, graph: MemberGraph) -> bytes:
    file = io.BytesIO()
    with torch.no_grad(), quietly():
        program = trace_program(_ByName(graph).eval(), graph, plan.inputs)
        extra = {f"{METADATA}.json": plan.metadata(graph.names)}
        torch.export.save(program, file, extra_files=extra)
    return file.getvalue()


def check(plan: ExportPlan, runner: Any) -> dict[int, dict[str, float]]:
    """Return the largest difference to torch of each output, by the size of the batch.

    Raises:
        ExportError: one is too large.
    """
    found = all_differences(plan, runner)
    refuse_differences(found, plan.tolerance)
    return found


def all_differences(plan: ExportPlan, runner: Any) -> dict[int, dict[str, float]]:
    """Return the largest difference to torch of each output, by the size of the batch."""
    found: dict[int, dict[str, float]] = {}
    for batch in CHECKED_BATCHES:
        if plan.table is not None:
            columns, encoded = plan.table.rows(batch)
            arguments = plan.inputs.filled((torch.from_numpy(encoded),))
            values = columns if set(columns) <= set(runner.inputs) else None
            found[batch] = difference_on(plan, runner, arguments, values)
            continue
        arguments = plan.inputs.resized(batch)
        found[batch] = difference_on(plan, runner, arguments)
        shorter = plan.inputs.shorter(arguments)
        if shorter is not None:
            again = difference_on(plan, runner, shorter)
            found[batch] = {name: max(each, again[name]) for name, each in found[batch].items()}
    return found


def difference_on(
    plan: ExportPlan,
    runner: Any,
    arguments: Arguments,
    values: Mapping[str, np.ndarray] | None = None,
) -> dict[str, float]:
    """Return the largest difference of each output on one batch.

    Args:
        plan: what was exported.
        runner: the file.
        arguments: of the network.
        values: inputs of the file, if they are others.
    """
    if values is None:
        values = dict(zip(plan.inputs.names, map(as_numpy, tensors_among(arguments)), strict=True))
    given = runner(values)
    outputs = torch_outputs(plan.model, arguments)
    if plan.prediction is None:
        return differences(given, raw_values(outputs, tuple(runner.outputs)), None, None)
    prediction = torch_prediction(plan.model, plan.loss, outputs)
    wanted = expected_values(prediction, plan.names, plan.levels, plan.rule)
    return differences(given, wanted, prediction, plan.rule)


def _first_words(error: BaseException) -> str:
    """Return what went wrong, by the error that another one was raised from."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines)[:LONGEST_ERROR]}"
