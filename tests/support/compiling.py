"""Compile and export ensembles, and print as JSON what went wrong: one entry a network and mode.

A script, since the compiler cannot look through the type checker that the tests run with.
"""

import copy
import json
import traceback

import torch

import batchensemble as be
from torch_networks import MODES, NETWORKS, loss

MEMBERS = 3


def compile_for_prediction(model, inputs):
    """Compile into one graph that serves batches of several sizes."""
    model.eval()
    compiled = torch.compile(model, fullgraph=True, backend="eager", dynamic=True)
    with torch.no_grad():
        for batch in (4, 6):
            x = inputs(batch)
            torch.testing.assert_close(compiled(x), model(x))


def compile_for_training(model, inputs):
    """Compile into one graph whose gradients are those of the ensemble."""
    x, twin = inputs(4), copy.deepcopy(model)
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    loss(model(x)).backward()
    loss(compiled(x)).backward()
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert one.grad is not None
        torch.testing.assert_close(other.grad, one.grad)


def export(model, inputs):
    """Export as a graph."""
    model.eval()
    x = inputs(4)
    exported = torch.export.export(model, (x,)).module()
    torch.testing.assert_close(exported(x), model(x))


def main():
    """Try everything, each by itself."""
    results = {}
    for name, (make, inputs) in NETWORKS.items():
        for mode, options in MODES.items():
            for what in (compile_for_prediction, compile_for_training, export):
                torch.manual_seed(0)
                torch._dynamo.reset()
                try:
                    what(be.BatchEnsemble(make(), MEMBERS, **options), inputs)
                    error = ""
                except Exception:
                    error = traceback.format_exc()
                results[f"{name}, {mode}, {what.__name__}"] = error
    for what in (compile_for_prediction, compile_for_training):
        torch._dynamo.reset()
        try:
            make, inputs = NETWORKS["convolutional"]
            what(be.DeepEnsemble(make(), MEMBERS, stacked=True), inputs)
            error = ""
        except Exception:
            error = traceback.format_exc()
        results[f"deep ensemble, {what.__name__}"] = error
    print(json.dumps(results))


if __name__ == "__main__":
    main()
