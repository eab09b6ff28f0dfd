"""Exports are traced without pytest's record of what is logged, which torch's traces fill."""

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
