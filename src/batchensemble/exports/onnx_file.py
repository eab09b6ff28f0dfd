"""ONNX files: a traced graph, its metadata, and what runs it."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from batchensemble.exports.graph_inputs import GraphInputs
from batchensemble.exports.member_graph import MemberGraph

METADATA = "batchensemble"  # the key of the metadata
RESULT = "result "  # before the names of outputs while operations may have the same ones
QUIET = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")  # loggers
LARGEST_FILE = 2**31 - 2**20  # bytes that protocol buffers hold in one file


def onnx_libraries() -> tuple[Any, Any]:
    """Return the modules ``onnx`` and ``onnxruntime``.

    Raises:
        ImportError: one of them, or ``onnxscript``, is not installed.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"export to ONNX needs {error.name}: pip install 'batchensemble[export]'"
        ) from None
    return onnx, onnxruntime


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keep the exporter's progress, and its warnings about itself, from the user.

    Encoder layers are traced as they are written: their fused operation has no counterpart.
    """
    loggers = [logging.getLogger(name) for name in QUIET]
    levels = [logger.level for logger in loggers]
    fused = torch.backends.mha.get_fastpath_enabled()
    nowhere = io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fused)
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def trace_onnx(graph: MemberGraph, inputs: GraphInputs, *, optimise: bool) -> Any:
    """Return a graph as an ``onnx.ModelProto``.

    Args:
        graph: what is traced.
        inputs: its inputs.
        optimise: whether constants are computed before they are written: weights that are bent in
            the graph would become one for each member.

    Raises:
        Exception: a tracer cannot follow the network; of many kinds.
    """
    with torch.no_grad(), quietly():
        strict = graph.way == "code of copies"
        traced: Any = trace_program(graph, graph, inputs) if strict else graph
        program = torch.onnx.export(
            traced,
            () if strict else inputs.tensors,
            dynamo=True,
            dynamic_shapes=None if strict else (inputs.dynamic_shapes(),),
            input_names=list(inputs.names),
            output_names=[f"{RESULT}{name}" for name in graph.names],
            optimize=optimise,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    say_types(proto.graph)
    without_traces(proto)
    inner = {name: f"{name} (inner)" for name in graph.names if name not in inputs.names}
    rename(proto.graph, {**inner, **{f"{RESULT}{name}": name for name in graph.names}})
    name_axes(proto.graph, inputs)
    return proto


def name_axes(graph: Any, inputs: GraphInputs) -> None:
    """Give the axes whose length may vary their names.

    Raises:
        ValueError: an axis has become a constant.
    """
    known: dict[str, str] = {}
    axes = dict(zip(inputs.names, inputs.axes, strict=True))
    for value in graph.input:
        shape = value.type.tensor_type.shape.dim
        for axis, name in axes[value.name].items():
            if not shape[axis].dim_param:
                raise ValueError(
                    f"the network fixes the {name} of {value.name!r} to {shape[axis].dim_value}"
                )
            known[shape[axis].dim_param] = name
    for value in (*graph.input, *graph.output):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param in known:
                size.dim_param = known[size.dim_param]


def rename(graph: Any, names: Mapping[str, str]) -> None:
    """Give values of a graph other names, in the graphs of its loops and branches too."""
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                rename(inner, names)
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = names.get(value.name, value.name)


def trace_program(module: torch.nn.Module, graph: MemberGraph, inputs: GraphInputs) -> Any:
    """Return the program of a module that is or holds a graph, for batches of any size."""
    return torch.export.export(
        module,
        inputs.tensors,
        dynamic_shapes=(inputs.dynamic_shapes(),),
        strict=graph.way == "code of copies",
    )


def say_types(graph: Any) -> None:
    """Let conversions to the type of another value name that type.

    onnxruntime warns of each ``CastLike`` that it cannot compute beforehand.
    """
    types = {each.name: each.data_type for each in graph.initializer}
    values = (*graph.input, *graph.value_info, *graph.output)
    types |= {each.name: each.type.tensor_type.elem_type for each in values}
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                types[node.output[0]] = attribute.t.data_type
        if node.op_type == "CastLike" and types.get(node.input[1]):
            target = node.attribute.add()
            target.name, target.type, target.i = "to", target.INT, types[node.input[1]]
            node.op_type = "Cast"
            del node.input[1]


def without_traces(proto: Any) -> None:
    """Drop where each operation came from, a tenth of a file."""
    for part in (proto.graph, *proto.functions):
        for node in part.node:
            node.ClearField("metadata_props")
            node.ClearField("doc_string")
        part.ClearField("value_info")
    proto.graph.ClearField("metadata_props")


def write_metadata(proto: Any, metadata: str) -> None:
    """Write metadata into a graph."""
    del proto.metadata_props[:]
    entry = proto.metadata_props.add()
    entry.key, entry.value = METADATA, metadata
    proto.producer_name = "batchensemble"


def content_of(proto: Any) -> bytes:
    """Return the bytes of the file.

    Raises:
        ValueError: they are too many for one file.
    """
    size = proto.ByteSize()
    if size > LARGEST_FILE:
        raise ValueError(
            f"the file would have {size / 2**30:.1f} GiB, and an ONNX file holds at most 2 GiB; "
            "take layout='shared', quantise='int8', or a path that ends in .pt2"
        )
    content: bytes = proto.SerializeToString()
    return content


def values_in_words(values: Sequence[Any]) -> dict[str, str]:
    """Return types and shapes of the inputs or outputs of a session, by name."""
    kinds = {"float": "float32", "double": "float64"}
    return {
        each.name: f"{kinds.get(kind, kind)} [{', '.join(map(str, each.shape))}]"
        for each in values
        for kind in [each.type[len("tensor(") : -1]]
    }


class OnnxRunner:
    """A file that runs in onnxruntime on the CPU.

    Args:
        content: the bytes of the file.
    """

    def __init__(self, content: bytes) -> None:
        _, onnxruntime = onnx_libraries()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"]
        )
        self.runtime = f"onnxruntime {onnxruntime.__version__}"
        self.inputs = values_in_words(self.session.get_inputs())
        self.outputs = values_in_words(self.session.get_outputs())

    def __call__(self, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs by name; inputs that the graph does not need are left out."""
        given = {name: value for name, value in values.items() if name in self.inputs}
        return dict(zip(self.outputs, self.session.run(None, given), strict=True))


def as_numpy(tensor: Tensor) -> np.ndarray:
    """Return a tensor as an array."""
    array: np.ndarray = tensor.detach().cpu().numpy()
    return array
