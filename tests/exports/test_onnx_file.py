"""A traced graph as it is written."""

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from batchensemble.exports.onnx_file import say_types


def graph_of_casts() -> onnx.ModelProto:
    """Return a graph that converts a number to the types of a weight, a constant and an output."""
    wanted = {"weight": np.zeros(1, np.float32), "constant": np.zeros(1, np.int64)}
    nodes = [
        helper.make_node("Constant", [], ["two"], value=numpy_helper.from_array(np.float64([2.5]))),
        helper.make_node(
            "Constant", [], ["constant"], value=numpy_helper.from_array(wanted["constant"])
        ),
        helper.make_node("CastLike", ["two", "weight"], ["as weight"]),
        helper.make_node("CastLike", ["two", "constant"], ["as constant"]),
        helper.make_node("Identity", ["as constant"], ["unknown"]),
        helper.make_node("CastLike", ["two", "unknown"], ["as unknown"]),
    ]
    outputs = [
        helper.make_tensor_value_info("as weight", TensorProto.FLOAT, [1]),
        helper.make_tensor_value_info("as constant", TensorProto.INT64, [1]),
        helper.make_tensor_value_info("as unknown", TensorProto.INT64, [1]),
    ]
    weight = numpy_helper.from_array(wanted["weight"], "weight")
    graph = helper.make_graph(nodes, "casts", [], outputs, [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_conversions_name_their_type_and_give_the_same_numbers():
    proto = graph_of_casts()
    say_types(proto.graph)
    onnx.checker.check_model(proto)
    kinds = [node.op_type for node in proto.graph.node if "Cast" in node.op_type]
    assert kinds == ["Cast", "Cast", "CastLike"]  # what has no known type stays as it was
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    found = session.run(None, {})
    assert [each.tolist() for each in found] == [[2.5], [2], [2]]
    assert [each.dtype for each in found] == [np.float32, np.int64, np.int64]
