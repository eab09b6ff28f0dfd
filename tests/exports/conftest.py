"""Exports without what a test run adds to them: a record of each trace, a table read anew."""

import functools
import logging

import pytest


@pytest.fixture(autouse=True)
def _no_record_of_traces():
    """Keep torch's structured trace from the handler that pytest puts on the root logger."""
    trace = logging.getLogger("torch.__trace")
    before = trace.propagate, trace.handlers[:]
    trace.propagate, trace.handlers[:] = False, []
    yield
    trace.propagate, trace.handlers[:] = before


@pytest.fixture(autouse=True, scope="package")
def _one_table_of_operators():
    """Let torch read its 500 operators of ONNX once, not in each export, which takes a second."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    read_once = functools.cache(ONNXRegistry.from_torchlib)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(read_once))
        yield
